//! Small values whose elements are known, for the arithmetic that exporters put before `Reshape`,
//! `Expand`, `Slice` and `Resize`. An element may be a named size or unknown.
//!
//! What this module does not do: look into weights, or compute in another precision than the model
//! would.

mod element;
mod evaluate;
mod moves;

pub(super) use evaluate::{Question, evaluate};

use crate::graph::{DType, Number, Tensor, small_numbers};

/// Values of more elements than this are not followed.
const LIMIT: usize = 1024;
/// The same for floating-point values, which are rarely sizes.
const FLOAT_LIMIT: usize = 64;

/// The elements of a small tensor in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Small {
    shape: Vec<usize>,
    data: Vec<Number>,
}

impl Small {
    /// Returns the elements of a constant; `None` when there are too many of them.
    pub fn of(tensor: &Tensor) -> Option<Small> {
        if tensor.len() > Small::limit(Some(tensor.dtype())) {
            return None;
        }
        Some(Small { shape: tensor.shape().to_vec(), data: small_numbers(tensor)? })
    }

    /// Returns a value of rank 1.
    pub fn list(data: Vec<Number>) -> Small {
        Small { shape: vec![data.len()], data }
    }

    /// Returns a value of rank 0.
    pub fn scalar(number: Number) -> Small {
        Small { shape: Vec::new(), data: vec![number] }
    }

    /// Returns the most elements that a value of a dtype may have.
    pub fn limit(dtype: Option<DType>) -> usize {
        if dtype.is_some_and(DType::is_float) { FLOAT_LIMIT } else { LIMIT }
    }

    /// Returns the elements.
    pub fn data(&self) -> &[Number] {
        &self.data
    }

    /// Returns the shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the tensor when every element is fixed and the dtype can hold it.
    pub fn tensor(&self, dtype: DType) -> Option<Tensor> {
        let integers = || self.data.iter().map(Number::fixed).collect::<Option<Vec<i64>>>();
        let reals = || self.data.iter().map(Number::real).collect::<Option<Vec<f64>>>();
        Some(match dtype {
            DType::I64 => Tensor::from_vec(&self.shape, integers()?),
            DType::I32 => {
                let integers = integers()?.into_iter().map(|value| i32::try_from(value).ok());
                Tensor::from_vec(&self.shape, integers.collect::<Option<Vec<i32>>>()?)
            }
            DType::Bool => Tensor::from_vec(&self.shape, integers()?.into_iter().map(|value| value != 0).collect()),
            DType::F32 => Tensor::from_vec(&self.shape, reals()?.into_iter().map(|value| value as f32).collect()),
            DType::F64 => Tensor::from_vec(&self.shape, reals()?),
            _ => return None,
        })
    }

    /// Returns the value of a shape with an element for each multi-index; `None` when it is too large.
    fn build(shape: Vec<usize>, mut element: impl FnMut(&[usize]) -> Option<Number>) -> Option<Small> {
        let count = shape.iter().try_fold(1usize, |count, size| count.checked_mul(*size))?;
        if count > LIMIT {
            return None;
        }
        let mut index = vec![0; shape.len()];
        let mut data = Vec::with_capacity(count);
        for _ in 0..count {
            data.push(element(&index)?);
            for axis in (0..shape.len()).rev() {
                index[axis] += 1;
                if index[axis] < shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        Some(Small { shape, data })
    }

    fn get(&self, index: &[usize]) -> Option<&Number> {
        let mut place = 0;
        for (size, at) in self.shape.iter().zip(index) {
            place = place * size + at;
        }
        self.data.get(place)
    }

    /// Returns the element that stands at an index of a shape that this one is broadcast to.
    fn spread(&self, index: &[usize]) -> Option<&Number> {
        let skipped = index.len().checked_sub(self.shape.len())?;
        let own: Vec<usize> =
            index[skipped..].iter().zip(&self.shape).map(|(at, size)| if *size == 1 { 0 } else { *at }).collect();
        self.get(&own)
    }

    /// Returns the same elements under another shape.
    fn reshaped(self, shape: Vec<usize>) -> Option<Small> {
        let count = shape.iter().try_fold(1usize, |count, size| count.checked_mul(*size))?;
        (count == self.data.len()).then_some(Small { shape, data: self.data })
    }
}

/// Returns the broadcast shape; `None` when the shapes do not fit.
fn broadcast(shapes: &[&[usize]]) -> Option<Vec<usize>> {
    let rank = shapes.iter().map(|shape| shape.len()).max()?;
    let mut result = vec![1; rank];
    for shape in shapes {
        for (slot, size) in result[rank - shape.len()..].iter_mut().zip(*shape) {
            *slot = match (*slot, *size) {
                (1, size) => size,
                (slot, 1) => slot,
                (slot, size) if slot == size => slot,
                _ => return None,
            };
        }
    }
    Some(result)
}
