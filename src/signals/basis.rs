//! The directions in which a set of activations varies.

use super::{Activations, SignalError};
use nalgebra::{DMatrix, SVD};

/// Orthonormal directions over the datapoints, strongest first, without those of rounding alone:
/// the left singular vectors of the centred activations.
pub(super) struct Basis {
    /// Datapoints x directions.
    pub left: DMatrix<f64>,
    /// Singular values of `matrix`, positive, descending.
    pub values: Vec<f64>,
    /// The centred activations, datapoints x features, over their largest magnitude.
    pub matrix: DMatrix<f64>,
    /// What the set is called in errors.
    pub set: &'static str,
}

impl Basis {
    /// Returns the directions of a set.
    ///
    /// A singular value of at most `max(datapoints, features)` units of rounding of the largest one
    /// counts as zero.
    ///
    /// # Errors
    /// The set does not vary.
    pub fn of(activations: &Activations, set: &'static str) -> Result<Basis, SignalError> {
        let matrix = activations.varying(set)?;
        let (rows, columns) = matrix.shape();
        let (left, values) = if rows >= columns {
            let qr = matrix.clone().qr();
            let (left, values) = left_vectors(qr.r())?;
            (qr.q() * left, values)
        } else {
            left_vectors(matrix.transpose().qr().r().transpose())?
        };
        let least = values.first().copied().unwrap_or(0.0) * rows.max(columns) as f64 * f64::EPSILON;
        let rank = values.iter().take_while(|value| **value > least).count();
        Ok(Basis { left, values, matrix, set }.truncated(rank))
    }

    /// Returns the number of directions.
    pub fn dimensions(&self) -> usize {
        self.values.len()
    }

    /// Keeps the first `dimensions` directions.
    pub fn truncated(mut self, dimensions: usize) -> Basis {
        self.left = self.left.columns(0, dimensions).into_owned();
        self.values.truncate(dimensions);
        self
    }
}

/// Returns the left singular vectors and the singular values of a matrix, descending.
pub(super) fn left_vectors(matrix: DMatrix<f64>) -> Result<(DMatrix<f64>, Vec<f64>), SignalError> {
    let (rows, columns) = matrix.shape();
    let rounds = 100 * rows.max(columns);
    let failed = SignalError::NoConvergence { rows, columns };
    let svd = SVD::try_new(matrix, true, false, 5.0 * f64::EPSILON, rounds).ok_or(failed.clone())?;
    let values = svd.singular_values.as_slice().to_vec();
    Ok((svd.u.ok_or(failed)?, values))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{random, set};
    use super::*;

    #[test]
    fn directions_are_orthonormal_and_rebuild_the_set() {
        for (rows, columns) in [(30, 7), (6, 11), (9, 9), (1 + 8, 8)] {
            let basis = Basis::of(&set(&random(rows, columns, 5)), "first").unwrap();
            assert_eq!(basis.dimensions(), columns.min(rows - 1), "{rows} x {columns}");
            let gram = basis.left.tr_mul(&basis.left);
            let identity = DMatrix::identity(basis.dimensions(), basis.dimensions());
            assert!((gram - identity).amax() < 1e-12, "{rows} x {columns}");
            let rebuilt = &basis.left * basis.left.tr_mul(&basis.matrix);
            assert!((rebuilt - &basis.matrix).amax() < 1e-12, "{rows} x {columns}");
        }
    }

    #[test]
    fn repeated_and_constant_features_add_no_direction() {
        let mut matrix = random(40, 6, 1);
        matrix.set_column(4, &(matrix.column(0) * 3.0 - matrix.column(1) + matrix.column(2).add_scalar(2.0)));
        matrix.column_mut(5).fill(0.7);
        assert_eq!(Basis::of(&set(&matrix), "first").unwrap().dimensions(), 4);
    }
}
