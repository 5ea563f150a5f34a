//! Centred kernel alignment with linear kernels (linear CKA).
//!
//! For centred sets X and Y, datapoints x features: `||Y'X||_F^2 / (||X'X||_F ||Y'Y||_F)`. With the
//! kernels `K = XX'` and `L = YY'` it is `<K, L>_F / (||K||_F ||L||_F)`, the biased HSIC over its
//! own norms; the cheaper of the two forms is computed. It does not change under an orthogonal map
//! of the features or a scaling of either set, and it does under other linear maps. Source: arXiv
//! 1905.00414.

use super::activations::paired;
use super::singular::inner;
use super::{Activations, SignalError};
use nalgebra::DMatrix;

/// Returns the linear CKA of two sets, in [0, 1].
///
/// It is biased: with many more features than datapoints unrelated sets come near 1, and with two
/// datapoints every value is 1. [`MinibatchCka`](super::MinibatchCka) is not.
///
/// # Errors
/// Different numbers of datapoints; a set that does not vary.
pub fn linear_cka(x: &Activations, y: &Activations) -> Result<f64, SignalError> {
    let datapoints = paired(x, y)?;
    let kernels = datapoints < x.features().max(y.features());
    let (x, y) = (x.varying("first")?, y.varying("second")?);
    Ok(if kernels { by_kernels(&x, &y) } else { by_features(&x, &y) }.min(1.0))
}

fn by_features(x: &DMatrix<f64>, y: &DMatrix<f64>) -> f64 {
    inner(y, x).norm_squared() / (inner(x, x).norm() * inner(y, y).norm())
}

fn by_kernels(x: &DMatrix<f64>, y: &DMatrix<f64>) -> f64 {
    let (k, l) = (x * x.transpose(), y * y.transpose());
    k.dot(&l) / (k.norm() * l.norm())
}

#[cfg(test)]
mod tests {
    use super::super::hsic0;
    use super::super::testing::{Pair, close, each_pair, random, set};
    use super::*;

    #[test]
    fn both_forms_are_the_papers() {
        each_pair("linear_cka", |pair: &Pair, expected| {
            let expected = expected.as_f64().unwrap();
            close(&pair.name, linear_cka(&pair.x, &pair.y).unwrap(), expected);
            let (x, y) = (pair.x.varying("first").unwrap(), pair.y.varying("second").unwrap());
            close(&pair.name, by_features(&x, &y), expected);
            close(&pair.name, by_kernels(&x, &y), expected);
            let hsic = |x, y| hsic0(x, y).unwrap();
            let norms = (hsic(&pair.x, &pair.x) * hsic(&pair.y, &pair.y)).sqrt();
            close(&pair.name, hsic(&pair.x, &pair.y) / norms, expected);
        });
    }

    #[test]
    fn rotations_shifts_and_scales_change_nothing_and_other_maps_do() {
        let (x, y) = (random(30, 5, 1), random(30, 5, 1) * random(5, 8, 2) + random(30, 8, 3));
        let plain = linear_cka(&set(&x), &set(&y)).unwrap();
        let turned = (&x * random(5, 5, 4).qr().q() * -1e-7).add_scalar(1e-6);
        close("turned", linear_cka(&set(&turned), &set(&(&y * 1e9))).unwrap(), plain);
        let mapped = linear_cka(&set(&(&x * random(5, 5, 5))), &set(&y)).unwrap();
        assert!((mapped - plain).abs() > 1e-2, "{mapped} {plain}");
    }

    #[test]
    fn closed_cases() {
        let column = |values: &[f64]| set(&DMatrix::from_column_slice(values.len(), 1, values));
        let (x, y) = (column(&[1.0, 1.0, -1.0, -1.0]), column(&[1.0, -1.0, 1.0, -1.0]));
        close("equal", linear_cka(&x, &x).unwrap(), 1.0);
        close("orthogonal", linear_cka(&x, &y).unwrap(), 0.0);
        // One feature each: the square of the correlation, here 4 / 5.
        close("correlation", linear_cka(&x, &column(&[3.0, 1.0, -1.0, -3.0])).unwrap(), 0.8);
        let huge = set(&(random(9, 3, 1) * 1e300));
        close("huge", linear_cka(&huge, &huge).unwrap(), 1.0);
        let tiny = set(&(random(9, 3, 1) * 1e-300));
        close("tiny", linear_cka(&tiny, &huge).unwrap(), 1.0);
    }

    #[test]
    fn what_does_not_vary_is_an_error() {
        let (x, constant) = (set(&random(6, 3, 1)), set(&DMatrix::repeat(6, 4, 0.1)));
        assert_eq!(linear_cka(&x, &constant), Err(SignalError::NoVariance { set: "second" }));
        assert_eq!(linear_cka(&constant, &x), Err(SignalError::NoVariance { set: "first" }));
        let one = set(&random(1, 3, 1));
        assert_eq!(linear_cka(&one, &one), Err(SignalError::NoVariance { set: "first" }));
        assert_eq!(linear_cka(&x, &one), Err(SignalError::Datapoints { first: 6, second: 1 }));
    }
}
