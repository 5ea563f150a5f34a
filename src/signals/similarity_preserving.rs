//! The similarity-preserving (SP) loss.
//!
//! `G = QQ'` with every row over its L2 norm, and `||Ga - Gb||_F^2 / b^2` for a batch of b, Q being
//! datapoints x features, not centred. It compares which datapoints a layer sees as alike, so
//! the two sets may have different features. Source: Tung and Mori, ICCV 2019; Egeria (arXiv
//! 2201.06227) calls it plasticity when one of the sets is of a snapshot.

use super::{Activations, SignalError};
use nalgebra::DMatrix;

/// Returns the loss, in [0, 4 / b]; 0 for sets that are equal up to scale and rotation.
///
/// A datapoint whose activations are all zero has a row of zeros.
///
/// # Errors
/// Different numbers of datapoints.
pub fn similarity_preserving(a: &Activations, b: &Activations) -> Result<f64, SignalError> {
    Similarities::of(a).loss(&Similarities::of(b))
}

/// How alike a set of activations sees its datapoints: `G`, datapoints x datapoints, whatever the number of features.
#[derive(Clone, Debug, PartialEq)]
pub struct Similarities(DMatrix<f64>);

impl Similarities {
    /// Returns the similarities of a set.
    pub fn of(activations: &Activations) -> Similarities {
        Similarities(similarities(activations))
    }

    /// Returns the loss between two sets, as [`similarity_preserving`] does.
    ///
    /// # Errors
    /// Different numbers of datapoints.
    pub fn loss(&self, other: &Similarities) -> Result<f64, SignalError> {
        let (first, second) = (self.0.nrows(), other.0.nrows());
        if first != second {
            return Err(SignalError::Datapoints { first, second });
        }
        Ok((&self.0 - &other.0).norm_squared() / (first as f64 * first as f64))
    }
}

fn similarities(activations: &Activations) -> DMatrix<f64> {
    let q = activations.scaled().matrix;
    // The norm of a row of G divides out the size of its own datapoint, which may be tiny.
    let mut own = q.clone();
    for mut row in own.row_iter_mut() {
        let largest = row.amax();
        if largest > 0.0 {
            row /= largest;
        }
    }
    let mut similarities = own * q.transpose();
    for mut row in similarities.row_iter_mut() {
        let norm = row.norm();
        if norm > 0.0 {
            row /= norm;
        }
    }
    similarities
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Pair, close, each_pair, random, set};
    use super::*;

    #[test]
    fn losses_are_the_papers() {
        each_pair("similarity_preserving", |pair: &Pair, expected| {
            close(&pair.name, similarity_preserving(&pair.x, &pair.y).unwrap(), expected.as_f64().unwrap());
        });
    }

    #[test]
    fn closed_cases() {
        let a = set(&DMatrix::from_row_slice(2, 2, &[1.0, 0.0, 0.0, 1.0]));
        let b = set(&DMatrix::from_row_slice(2, 1, &[1.0, 1.0]));
        close("equal", similarity_preserving(&a, &a).unwrap(), 0.0);
        // G of a is the identity, every entry of G of b is 1 / sqrt 2.
        close("apart", similarity_preserving(&a, &b).unwrap(), 1.0 - 0.5f64.sqrt());
        let x = random(6, 4, 1);
        let turned = &x * random(4, 4, 2).qr().q() * 1e200;
        close("turned", similarity_preserving(&set(&x), &set(&turned)).unwrap(), 0.0);
        let moved = similarity_preserving(&set(&x), &set(&x.add_scalar(1.0))).unwrap();
        assert!(moved > 1e-3, "{moved}");
    }

    #[test]
    fn zero_rows_are_rows_of_zeros() {
        let zero = set(&DMatrix::zeros(2, 3));
        let a = set(&DMatrix::from_row_slice(2, 2, &[1.0, 0.0, 0.0, 0.0]));
        close("zero", similarity_preserving(&zero, &zero).unwrap(), 0.0);
        close("one", similarity_preserving(&a, &zero).unwrap(), 0.25);
        let other = similarity_preserving(&zero, &set(&DMatrix::zeros(3, 3)));
        assert_eq!(other, Err(SignalError::Datapoints { first: 2, second: 3 }));
    }
}
