//! Singular vector canonical correlation analysis (SVCCA).
//!
//! 1. Of each centred set keep the fewest leading singular directions whose singular values (not
//!    their squares) make up a share of the sum of all.
//! 2. Take the canonical correlations of what is kept.
//!
//! Source: arXiv 1706.05806; google/svcca, `tutorials/001_Introduction.ipynb` (which keeps 20
//! directions instead of a share).

use super::activations::paired;
use super::basis::Basis;
use super::cca::correlate;
use super::{Activations, Correlations, SignalError};

/// The share of the sum of the singular values that the paper keeps.
pub const SVCCA_SHARE: f64 = 0.99;

/// Returns the canonical correlations of what carries `share` of each set, a fraction in (0, 1].
///
/// [`Correlations::dimensions`] are the dimensions kept, and [`Correlations::mean`] is over the
/// smaller of the two, as in the tutorial. The paper's text divides by the number of neurons of the
/// smaller layer, which is the same only where nothing is cut.
///
/// # Errors
/// As [`cca`](super::cca), about the dimensions kept; a share outside of (0, 1].
pub fn svcca(x: &Activations, y: &Activations, share: f64) -> Result<Correlations, SignalError> {
    if !(share > 0.0 && share <= 1.0) {
        return Err(SignalError::Argument { argument: "share", value: share, expected: "a fraction in (0, 1]" });
    }
    paired(x, y)?;
    let kept = |basis: Basis| {
        let needed = share * basis.values.iter().sum::<f64>();
        let mut sum = 0.0;
        let below = basis.values.iter().take_while(|value| {
            sum += **value;
            sum < needed
        });
        let dimensions = (below.count() + 1).min(basis.dimensions());
        basis.truncated(dimensions)
    };
    Ok(correlate(&kept(Basis::of(x, "first")?), &kept(Basis::of(y, "second")?))?.0)
}

#[cfg(test)]
mod tests {
    use super::super::cca;
    use super::super::testing::{Pair, close, close_all, each_pair, random, set};
    use super::*;
    use nalgebra::DMatrix;

    #[test]
    fn coefficients_are_google_svccas() {
        each_pair("svcca", |pair: &Pair, expected| {
            let found = svcca(&pair.x, &pair.y, SVCCA_SHARE).unwrap();
            let dimensions = serde_json::json!([found.dimensions.0, found.dimensions.1]);
            assert_eq!(dimensions, expected["dimensions"], "{}", pair.name);
            close_all(&pair.name, &found.coefficients, &expected["coefficients"]);
            close(&pair.name, found.mean(), expected["mean"].as_f64().unwrap());
        });
    }

    #[test]
    fn the_share_cuts_at_the_sum_of_singular_values() {
        let x = DMatrix::from_fn(8, 3, |row, column| {
            let size = [8.0, 1.0, 1.0][column];
            if (row >> column) & 1 == 0 { size } else { -size }
        });
        let dimensions = |share| svcca(&set(&x), &set(&random(8, 2, 1)), share).unwrap().dimensions.0;
        let found = [0.1, 0.79, 0.81, 0.89, 0.91, 0.99, 1.0].map(dimensions);
        assert_eq!(found, [1, 1, 2, 2, 3, 3, 3]);
        for share in [0.0, -1.0, 1.01, f64::NAN] {
            assert!(svcca(&set(&x), &set(&x), share).is_err(), "{share}");
        }
    }

    #[test]
    fn a_share_of_one_is_cca_and_rotations_and_scales_change_nothing() {
        let (x, y) = (random(40, 6, 1), random(40, 5, 2) + random(40, 6, 1) * random(6, 5, 3));
        assert_eq!(svcca(&set(&x), &set(&y), 1.0).unwrap(), cca(&set(&x), &set(&y)).unwrap());
        let rotation = random(6, 6, 4).qr().q();
        let turned = svcca(&set(&(&x * rotation * -1e6)), &set(&y), 0.8).unwrap();
        let plain = svcca(&set(&x), &set(&y), 0.8).unwrap();
        assert!(plain.dimensions.0 < 6);
        assert_eq!(plain.dimensions, turned.dimensions);
        close("turned", turned.mean(), plain.mean());
        let mapped = svcca(&set(&(&x * random(6, 6, 5))), &set(&y), 1.0).unwrap();
        close("mapped", mapped.mean(), cca(&set(&x), &set(&y)).unwrap().mean());
    }
}
