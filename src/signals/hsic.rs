//! The Hilbert-Schmidt independence criterion (HSIC) with linear kernels `K = XX'`, `L = YY'`.
//!
//! - Biased: `HSIC0 = tr(KHLH) / (n - 1)^2`, `H = I - 11'/n` (arXiv 1905.00414).
//! - Unbiased, with k and l the kernels without their diagonals: `HSIC1 = [tr(kl) +
//!   (1'k1)(1'l1) / ((n-1)(n-2)) - 2 * 1'kl1 / (n-2)] / (n(n-3))` (arXiv 2010.15327).
//!
//! Neither changes when a constant is added to a feature, so kernels are made of centred sets.

use super::activations::paired;
use super::error::in_range;
use super::singular::inner;
use super::{Activations, SignalError};
use nalgebra::DMatrix;

/// Returns the biased estimate; 0 where a set does not vary.
///
/// # Errors
/// Different numbers of datapoints; fewer than 2; a value beyond the range of f64.
pub fn hsic0(x: &Activations, y: &Activations) -> Result<f64, SignalError> {
    let n = count(x, y, 2)?;
    let (x, y) = (x.centred(), y.centred());
    let (features, more) = (x.matrix.ncols() as f64, y.matrix.ncols() as f64);
    let sum = if n * (features + more) < features * more {
        (&x.matrix * x.matrix.transpose()).dot(&(&y.matrix * y.matrix.transpose()))
    } else {
        inner(&y.matrix, &x.matrix).norm_squared()
    };
    let scaled = sum / (n - 1.0).powi(2);
    in_range("HSIC", scaled * x.scale * y.scale * x.scale * y.scale)
}

/// Returns the unbiased estimate; 0 where a set does not vary. It may be negative.
///
/// # Errors
/// Different numbers of datapoints; fewer than 4; a value beyond the range of f64.
pub fn hsic1(x: &Activations, y: &Activations) -> Result<f64, SignalError> {
    count(x, y, 4)?;
    Kernel::of(x).hsic1(&Kernel::of(y))
}

fn count(x: &Activations, y: &Activations, needed: usize) -> Result<f64, SignalError> {
    let found = paired(x, y)?;
    if found < needed {
        return Err(SignalError::TooFew { what: "datapoints", needed, found });
    }
    Ok(found as f64)
}

/// A linear kernel without its diagonal, over `scale * scale`.
pub(super) struct Kernel {
    matrix: DMatrix<f64>,
    scale: f64,
}

impl Kernel {
    pub fn of(activations: &Activations) -> Kernel {
        let centred = activations.centred();
        let mut matrix = &centred.matrix * centred.matrix.transpose();
        matrix.fill_diagonal(0.0);
        Kernel { matrix, scale: centred.scale }
    }

    /// Returns the unbiased estimate for two kernels over the same four or more datapoints.
    pub fn hsic1(&self, other: &Kernel) -> Result<f64, SignalError> {
        let n = self.matrix.nrows() as f64;
        let (k, l) = (self.matrix.column_sum(), other.matrix.column_sum());
        let sum =
            self.matrix.dot(&other.matrix) + k.sum() * l.sum() / ((n - 1.0) * (n - 2.0)) - 2.0 * k.dot(&l) / (n - 2.0);
        let scaled = sum / (n * (n - 3.0));
        in_range("HSIC", scaled * self.scale * other.scale * self.scale * other.scale)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Pair, close, each_pair, random, set};
    use super::*;

    #[test]
    fn estimates_are_the_papers() {
        each_pair("hsic", |pair: &Pair, expected| {
            close(&pair.name, hsic0(&pair.x, &pair.y).unwrap(), expected["biased"].as_f64().unwrap());
            close(&pair.name, hsic1(&pair.x, &pair.y).unwrap(), expected["unbiased"].as_f64().unwrap());
        });
    }

    #[test]
    fn shifts_change_nothing_and_scales_go_by_the_square() {
        let (x, y) = (random(7, 3, 1), random(7, 4, 2));
        for hsic in [hsic0, hsic1] {
            let plain = hsic(&set(&x), &set(&y)).unwrap();
            assert!(plain.abs() > 1e-3, "{plain}");
            let moved = hsic(&set(&(&x * 3.0).add_scalar(100.0)), &set(&y)).unwrap();
            close("moved", moved / 9.0, plain);
        }
    }

    /// Over all pairings of the datapoints the unbiased estimate is zero on average.
    #[test]
    fn only_the_unbiased_estimate_is_zero_over_all_pairings() {
        fn pairings(rest: &[usize]) -> Vec<Vec<usize>> {
            if rest.is_empty() {
                return vec![Vec::new()];
            }
            let with = |first: usize| {
                let others: Vec<usize> = rest.iter().copied().filter(|other| *other != first).collect();
                pairings(&others).into_iter().map(move |tail| [vec![first], tail].concat())
            };
            rest.iter().copied().flat_map(with).collect()
        }
        let (x, y) = (random(5, 2, 1), random(5, 3, 2));
        let all = pairings(&[0, 1, 2, 3, 4]);
        assert_eq!(all.len(), 120);
        let mean = |hsic: fn(&Activations, &Activations) -> Result<f64, SignalError>| {
            let one = |order: &Vec<usize>| hsic(&set(&x), &set(&y.select_rows(order))).unwrap();
            all.iter().map(one).sum::<f64>() / 120.0
        };
        close("unbiased", mean(hsic1), 0.0);
        assert!(mean(hsic0) > 0.5, "{}", mean(hsic0));
    }

    #[test]
    fn degenerate_sets() {
        let of = |rows, size| set(&(random(rows, 2, 1) * size));
        let constant = set(&DMatrix::repeat(5, 2, 0.3));
        assert_eq!((hsic0(&constant, &of(5, 1.0)), hsic1(&of(5, 1.0), &constant)), (Ok(0.0), Ok(0.0)));
        let few = |needed, found| Err(SignalError::TooFew { what: "datapoints", needed, found });
        assert_eq!(hsic0(&of(1, 1.0), &of(1, 1.0)), few(2, 1));
        assert_eq!(hsic1(&of(3, 1.0), &of(3, 1.0)), few(4, 3));
        assert!(hsic1(&of(4, 1.0), &of(4, 1.0)).unwrap() > 0.0);
        let overflow = Err(SignalError::Overflow { measure: "HSIC" });
        assert_eq!(hsic0(&of(5, 1e200), &of(5, 1.0)), overflow);
        assert_eq!(hsic1(&of(5, 1e200), &of(5, 1.0)), overflow);
    }
}
