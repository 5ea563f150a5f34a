//! Projection weighted canonical correlation analysis (PWCCA).
//!
//! `PWCCA = sum_i a_i rho_i`, where `a_i` is proportional to `sum_j |<h_i, x_j>|` over the centred
//! features `x_j` of the set of fewer dimensions, and sums to 1; `h_i` are orthonormal directions.
//! Source: arXiv 1806.05759; google/svcca, `pwcca.py`. The two disagree about `h_i`: see
//! [`Directions`]. The code's branch for a smaller second set mixes up the sets; here the sets are
//! exchanged instead.

use super::activations::paired;
use super::basis::Basis;
use super::cca::correlate;
use super::singular::inner;
use super::{Activations, Correlations, SignalError};

/// What the weights of PWCCA project on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directions {
    /// The canonical variates `u_i' Sxx^(-1/2) X`, orthonormal as they are: the paper's.
    Variates,
    /// `u_i' X`, made orthonormal in order of the coefficients: what google/svcca computes, on
    /// centred sets. On sets that are not centred its code adds means back, and its result depends
    /// on the signs of singular vectors.
    Rotated,
}

/// A weighted mean of canonical correlations.
#[derive(Clone, Debug, PartialEq)]
pub struct ProjectionWeighted {
    /// The weighted mean, in [0, 1].
    pub value: f64,
    /// The weight of each coefficient; they sum to 1.
    pub weights: Vec<f64>,
    /// The coefficients. Their dimensions are in the order of the arguments.
    pub correlations: Correlations,
}

/// Returns the projection weighted correlation of two sets, datapoints x features each.
///
/// The weights come from the set of fewer dimensions, from the first where they are equal.
///
/// # Errors
/// As [`cca`](super::cca).
pub fn pwcca(x: &Activations, y: &Activations, directions: Directions) -> Result<ProjectionWeighted, SignalError> {
    paired(x, y)?;
    let (x, y) = (Basis::of(x, "first")?, Basis::of(y, "second")?);
    let dimensions = (x.dimensions(), y.dimensions());
    let (small, large) = if dimensions.0 <= dimensions.1 { (x, y) } else { (y, x) };
    let (mut correlations, variates) = correlate(&small, &large)?;
    correlations.dimensions = dimensions;
    let rotation = match directions {
        Directions::Variates => variates,
        Directions::Rotated => {
            let mut stretched = variates;
            for (mut row, value) in stretched.row_iter_mut().zip(&small.values) {
                row *= *value;
            }
            stretched.qr().q()
        }
    };
    let projections = inner(&rotation, &inner(&small.left, &small.matrix));
    let mut weights: Vec<f64> = projections.row_iter().map(|row| row.iter().map(|value| value.abs()).sum()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= total);
    let value: f64 = weights.iter().zip(&correlations.coefficients).map(|(weight, rho)| weight * rho).sum();
    Ok(ProjectionWeighted { value: value.min(1.0), weights, correlations })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Pair, close, close_all, each_pair, random, set};
    use super::*;
    use nalgebra::DMatrix;

    #[test]
    fn both_directions_are_the_papers_and_google_svccas() {
        each_pair("pwcca", |pair: &Pair, expected| {
            for (directions, name) in [(Directions::Variates, "variates"), (Directions::Rotated, "rotated")] {
                let expected = &expected[name];
                let found = pwcca(&pair.x, &pair.y, directions).unwrap();
                close_all(&pair.name, &found.weights, &expected["weights"]);
                close(&pair.name, found.value, expected["value"].as_f64().unwrap());
                if found.correlations.dimensions.0 != found.correlations.dimensions.1 {
                    close("exchanged", pwcca(&pair.y, &pair.x, directions).unwrap().value, found.value);
                }
            }
        });
    }

    #[test]
    fn the_weight_follows_the_size_of_the_shared_direction() {
        let sign = |row: usize, bit: usize| if (row >> bit) & 1 == 0 { 1.0 } else { -1.0 };
        let x = DMatrix::from_fn(16, 2, |row, column| [3.0, 1.0][column] * sign(row, column));
        let y = DMatrix::from_fn(16, 2, |row, column| sign(row, 2 * column));
        for directions in [Directions::Variates, Directions::Rotated] {
            let found = pwcca(&set(&x), &set(&y), directions).unwrap();
            close("first", found.weights[0], 0.75);
            close("value", found.value, 0.75);
        }
    }

    #[test]
    fn equal_sets_give_one_and_degenerate_sets_an_error() {
        let x = set(&random(20, 4, 1));
        close("equal", pwcca(&x, &x, Directions::Variates).unwrap().value, 1.0);
        let wide = set(&random(20, 30, 1));
        let expected = SignalError::Spanned { set: "second", dimensions: 19, datapoints: 20 };
        assert_eq!(pwcca(&x, &wide, Directions::Rotated), Err(expected));
        let constant = set(&DMatrix::repeat(20, 2, 3.0));
        assert_eq!(pwcca(&constant, &x, Directions::Rotated), Err(SignalError::NoVariance { set: "first" }));
    }
}
