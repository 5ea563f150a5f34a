//! Why a measure has no value.

use crate::error::ErrorKind;
use crate::graph::DType;

/// Data that a measure is not defined on. `set` and `what` name the argument.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum SignalError {
    #[error("{what}: expected {expected} values, found {found}")]
    Length { what: &'static str, expected: usize, found: usize },
    #[error("shape {shape:?} has no {needed}")]
    Shape { shape: Vec<usize>, needed: &'static str },
    #[error("{dtype} activations are not numbers")]
    NotNumeric { dtype: DType },
    #[error("{what}: value {index} is {value}")]
    NonFinite { what: &'static str, index: usize, value: f64 },
    #[error("the first set has {first} datapoints, the second {second}")]
    Datapoints { first: usize, second: usize },
    #[error("{what}: expected at least {needed}, found {found}")]
    TooFew { what: &'static str, needed: usize, found: usize },
    #[error("the {set} set does not vary over its datapoints")]
    NoVariance { set: &'static str },
    #[error("the {set} set has {dimensions} dimensions, which {datapoints} datapoints cannot tell from chance")]
    Spanned { set: &'static str, dimensions: usize, datapoints: usize },
    #[error("{argument} is {value}, expected {expected}")]
    Argument { argument: &'static str, value: f64, expected: &'static str },
    #[error("every previous weight is zero, there is no relative change")]
    NoWeight,
    #[error("{measure} is beyond the range of a float64")]
    Overflow { measure: &'static str },
    #[error("the singular values of a {rows} x {columns} matrix do not converge")]
    NoConvergence { rows: usize, columns: usize },
}

impl SignalError {
    /// Returns the group this error belongs to: what the run produced is a failed check, what the
    /// caller passed is bad input.
    pub fn kind(&self) -> ErrorKind {
        match self {
            SignalError::Length { .. }
            | SignalError::Shape { .. }
            | SignalError::NotNumeric { .. }
            | SignalError::Datapoints { .. }
            | SignalError::TooFew { .. }
            | SignalError::Argument { .. } => ErrorKind::BadInput,
            SignalError::NonFinite { .. }
            | SignalError::NoVariance { .. }
            | SignalError::Spanned { .. }
            | SignalError::NoWeight
            | SignalError::Overflow { .. }
            | SignalError::NoConvergence { .. } => ErrorKind::Check,
        }
    }
}

/// Returns the values as f64.
///
/// # Errors
/// A NaN or an infinity among them.
pub(super) fn finite<T: Copy + Into<f64>>(what: &'static str, values: &[T]) -> Result<Vec<f64>, SignalError> {
    let found: Vec<f64> = values.iter().map(|value| (*value).into()).collect();
    match found.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(SignalError::NonFinite { what, index, value: found[index] }),
        None => Ok(found),
    }
}

/// Returns the value when it is finite, [`SignalError::Overflow`] otherwise.
pub(super) fn in_range(measure: &'static str, value: f64) -> Result<f64, SignalError> {
    if value.is_finite() { Ok(value) } else { Err(SignalError::Overflow { measure }) }
}
