//! Elements of small values, as far as they are known.

use super::Size;
use crate::graph::{DType, Tensor};

/// Values of more elements than this are not looked into.
const LIMIT: usize = 1024;

/// One element of a small value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Number {
    /// An integer, also as an element of a floating-point value; booleans are 0 and 1.
    Size(Size),
    /// A real number that is no integer.
    Real(f64),
    /// Nothing is known.
    Unknown,
}

impl Number {
    /// Returns the number for a real, an integer where it is one.
    pub fn of_real(real: f64) -> Number {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if real.fract() == 0.0 && real.abs() <= EXACT {
            Number::Size(Size::from(real as i64))
        } else {
            Number::Real(real)
        }
    }

    /// Returns the integer.
    pub fn size(self) -> Option<Size> {
        match self {
            Number::Size(size) => Some(size),
            _ => None,
        }
    }

    /// Returns the fixed integer.
    pub fn fixed(&self) -> Option<i64> {
        match self {
            Number::Size(size) => size.fixed(),
            _ => None,
        }
    }

    /// Returns the fixed number.
    pub fn real(&self) -> Option<f64> {
        match self {
            Number::Size(size) => size.fixed().map(|fixed| fixed as f64),
            Number::Real(real) => Some(*real),
            Number::Unknown => None,
        }
    }
}

/// Returns the elements of a small tensor of integers, booleans or floats.
pub(crate) fn of(tensor: &Tensor) -> Option<Vec<Number>> {
    if tensor.len() > LIMIT {
        return None;
    }
    let fixed = |value: i64| Number::Size(Size::from(value));
    match tensor.dtype() {
        DType::I64 | DType::I32 => Some(tensor.to_ints()?.into_iter().map(fixed).collect()),
        DType::U64 | DType::String | DType::Other(_) => None,
        _ => Some(tensor.to_f64s()?.into_iter().map(Number::of_real).collect()),
    }
}
