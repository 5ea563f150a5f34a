//! Canonical correlation analysis (CCA).
//!
//! For centred sets X and Y the coefficients are `rho_i`, the singular values of
//! `Sxx^(-1/2) Sxy Syy^(-1/2)`, which are those of `Ux' Uy` for orthonormal bases Ux and Uy of
//! the two column spaces. They do not change under an invertible linear map of the features of
//! either set. Source: arXiv 1706.05806; google/svcca, `cca_core.py`.

use super::activations::paired;
use super::basis::Basis;
use super::singular::{inner, left_vectors};
use super::{Activations, SignalError};
use nalgebra::DMatrix;

/// Canonical correlations of two sets.
#[derive(Clone, Debug, PartialEq)]
pub struct Correlations {
    /// The coefficients in [0, 1], descending: as many as the smaller set has dimensions.
    pub coefficients: Vec<f64>,
    /// The dimensions of the first and of the second set: its rank, or what SVCCA kept of it.
    pub dimensions: (usize, usize),
    /// How many coefficients are 1 whatever the data, because the two sets together have more
    /// dimensions than centred datapoints: `max(0, d1 + d2 - (datapoints - 1))`. Above zero the
    /// mean is inflated.
    pub forced: usize,
}

impl Correlations {
    /// Returns the mean of all coefficients, without a cut at a share of their sum. It is
    /// google/svcca's `np.mean(results["cca_coef1"])`, not its `results["mean"]`.
    pub fn mean(&self) -> f64 {
        self.coefficients.iter().sum::<f64>() / self.coefficients.len().max(1) as f64
    }
}

/// Returns the canonical correlations of two sets, datapoints x features each.
///
/// Constant features and features that are linear in others add no dimension. They get no
/// coefficient of zero, as a division by the number of features would.
///
/// # Errors
/// Different numbers of datapoints; a set that does not vary; a set whose dimensions reach
/// `datapoints - 1`, where every coefficient is 1 whatever the data.
pub fn cca(x: &Activations, y: &Activations) -> Result<Correlations, SignalError> {
    paired(x, y)?;
    Ok(correlate(&Basis::of(x, "first")?, &Basis::of(y, "second")?)?.0)
}

/// Returns the correlations and the coordinates in `x.left` of the first set's canonical variates.
pub(super) fn correlate(x: &Basis, y: &Basis) -> Result<(Correlations, DMatrix<f64>), SignalError> {
    let datapoints = x.left.nrows();
    for basis in [x, y] {
        if basis.dimensions() + 1 >= datapoints {
            return Err(SignalError::Spanned { set: basis.set, dimensions: basis.dimensions(), datapoints });
        }
    }
    let (variates, values) = left_vectors(&inner(&x.left, &y.left))?;
    let dimensions = (x.dimensions(), y.dimensions());
    let forced = (dimensions.0 + dimensions.1).saturating_sub(datapoints - 1);
    let coefficients = values.into_iter().map(|value| value.clamp(0.0, 1.0)).collect();
    Ok((Correlations { coefficients, dimensions, forced }, variates))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Pair, close, close_all, each_pair, random, set};
    use super::*;

    #[test]
    fn coefficients_are_google_svccas() {
        each_pair("cca", |pair: &Pair, expected| {
            let found = cca(&pair.x, &pair.y).unwrap();
            close_all(&pair.name, &found.coefficients, &expected["coefficients"]);
            close(&pair.name, found.mean(), expected["mean"].as_f64().unwrap());
        });
    }

    #[test]
    fn invertible_maps_and_shifts_change_nothing() {
        let (x, y) = (random(50, 4, 1), random(50, 6, 2) + random(50, 4, 1) * random(4, 6, 3));
        let plain = cca(&set(&x), &set(&y)).unwrap();
        let mapped = (&x * random(4, 4, 4)).add_scalar(3.0);
        let moved = cca(&set(&mapped), &set(&(&y * random(6, 6, 5) * 1e5))).unwrap();
        assert!(plain.coefficients[0] > plain.coefficients[3] + 0.01, "{plain:?}");
        for (before, after) in plain.coefficients.iter().zip(&moved.coefficients) {
            close("mapped", *after, *before);
        }
        assert_eq!((plain.dimensions, plain.forced), ((4, 6), 0));
    }

    #[test]
    fn equal_sets_give_one_and_orthogonal_sets_give_zero() {
        let x = set(&DMatrix::from_row_slice(4, 1, &[1.0, 1.0, -1.0, -1.0]));
        let y = set(&DMatrix::from_row_slice(4, 1, &[1.0, -1.0, 1.0, -1.0]));
        close("equal", cca(&x, &x).unwrap().mean(), 1.0);
        close("orthogonal", cca(&x, &y).unwrap().mean(), 0.0);
    }

    #[test]
    fn a_constant_feature_is_left_out() {
        let (x, y) = (random(30, 4, 1), random(30, 3, 2));
        let with = cca(&set(&x.clone().insert_column(2, 0.1)), &set(&y)).unwrap();
        assert_eq!((with.coefficients.len(), with.dimensions), (3, (4, 3)));
        close("constant", with.mean(), cca(&set(&x), &set(&y)).unwrap().mean());
    }

    #[test]
    fn too_few_datapoints_are_an_error_and_some_are_counted() {
        let pair = |rows, columns| cca(&set(&random(rows, columns, 1)), &set(&random(rows, 3, 2)));
        let spanned = |dimensions, datapoints| SignalError::Spanned { set: "first", dimensions, datapoints };
        assert_eq!(pair(8, 8).unwrap_err(), spanned(7, 8));
        assert_eq!(pair(8, 7).unwrap_err(), spanned(7, 8));
        assert_eq!(pair(8, 20).unwrap_err(), spanned(7, 8));
        let few = pair(8, 6).unwrap();
        assert_eq!(few.forced, 2);
        assert!(few.coefficients[1] > 1.0 - 1e-12 && few.coefficients[2] < 0.999, "{few:?}");
        let constant = set(&DMatrix::repeat(8, 2, 3.0));
        assert_eq!(cca(&set(&random(8, 2, 1)), &constant), Err(SignalError::NoVariance { set: "second" }));
        let other = cca(&constant, &set(&random(9, 2, 1)));
        assert_eq!(other, Err(SignalError::Datapoints { first: 8, second: 9 }));
    }
}
