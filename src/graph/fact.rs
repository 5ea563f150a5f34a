//! What is known of a value before anything runs.

use super::{DType, Size};
use std::fmt;

/// One dimension of a shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// A fixed size.
    Known(usize),
    /// A size with a name, such as the batch, or an expression of names ([`Size`]): equal texts mean
    /// equal sizes.
    Symbol(String),
    /// Nothing is known.
    Unknown,
}

impl Dim {
    /// Returns the fixed size.
    pub fn known(&self) -> Option<usize> {
        match self {
            Dim::Known(size) => Some(*size),
            _ => None,
        }
    }

    /// Returns true when both are sure to have the same size.
    pub fn same(&self, other: &Dim) -> bool {
        self == other && *self != Dim::Unknown
    }

    /// Returns the size to compute with; `None` when nothing is known.
    pub fn size(&self) -> Option<Size> {
        match self {
            Dim::Known(size) => i64::try_from(*size).ok().map(Size::from),
            Dim::Symbol(text) => Some(Size::parse(text)),
            Dim::Unknown => None,
        }
    }
}

/// A negative size is unknown.
impl From<Option<Size>> for Dim {
    fn from(size: Option<Size>) -> Dim {
        match size.map(|size| size.fixed().ok_or(size)) {
            Some(Ok(fixed)) => usize::try_from(fixed).map_or(Dim::Unknown, Dim::Known),
            Some(Err(size)) => Dim::Symbol(size.to_string()),
            None => Dim::Unknown,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Known(size) => write!(f, "{size}"),
            Dim::Symbol(name) => f.write_str(name),
            Dim::Unknown => f.write_str("?"),
        }
    }
}

/// Dtype and shape of a value, as far as known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fact {
    /// Element type.
    pub dtype: Option<DType>,
    /// Dimensions; `None` when not even the rank is known.
    pub shape: Option<Vec<Dim>>,
}

impl Fact {
    /// Returns the fact of a fixed dtype and shape.
    pub fn fixed(dtype: DType, shape: &[usize]) -> Fact {
        Fact { dtype: Some(dtype), shape: Some(shape.iter().map(|dim| Dim::Known(*dim)).collect()) }
    }

    /// Returns the fact of a dtype and dimensions.
    pub fn new(dtype: DType, shape: Vec<Dim>) -> Fact {
        Fact { dtype: Some(dtype), shape: Some(shape) }
    }

    /// Returns the number of dimensions.
    pub fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }

    /// Returns the dimensions when all of them are fixed.
    pub fn sizes(&self) -> Option<Vec<usize>> {
        self.shape.as_ref()?.iter().map(Dim::known).collect()
    }

    /// Returns the dimension at `axis`, which may count from the end.
    pub fn dim(&self, axis: i64) -> Option<&Dim> {
        let shape = self.shape.as_ref()?;
        let rank = i64::try_from(shape.len()).ok()?;
        shape.get(usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()?)
    }

    /// Returns true for a floating-point value.
    pub fn is_float(&self) -> bool {
        self.dtype.is_some_and(DType::is_float)
    }

    /// Returns this fact with the gaps filled from another fact of the same value.
    pub fn or(&self, other: &Fact) -> Fact {
        let shape = match (&self.shape, &other.shape) {
            (Some(a), Some(b)) if a.len() == b.len() => Some(
                a.iter()
                    .zip(b)
                    .map(|(a, b)| match (a, b) {
                        (Dim::Known(_), _) => a.clone(),
                        (_, Dim::Known(_)) | (Dim::Unknown, _) => b.clone(),
                        _ => a.clone(),
                    })
                    .collect(),
            ),
            (a, b) => a.clone().or_else(|| b.clone()),
        };
        Fact { dtype: self.dtype.or(other.dtype), shape }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dtype {
            Some(dtype) => write!(f, "{dtype}")?,
            None => f.write_str("?")?,
        }
        match &self.shape {
            Some(shape) => {
                let dims: Vec<String> = shape.iter().map(Dim::to_string).collect();
                write!(f, "[{}]", dims.join(","))
            }
            None => f.write_str("[..]"),
        }
    }
}
