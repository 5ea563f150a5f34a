//! The directions in which a set of activations varies.

use super::singular::directions;
use super::{Activations, SignalError};
use nalgebra::DMatrix;

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
    /// # Errors
    /// The set does not vary.
    pub fn of(activations: &Activations, set: &'static str) -> Result<Basis, SignalError> {
        let matrix = activations.varying(set)?;
        let (left, values) = directions(&matrix)?;
        Ok(Basis { left, values, matrix, set })
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
