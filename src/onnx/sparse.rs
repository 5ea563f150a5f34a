//! `SparseTensorProto` to a dense [`Tensor`].

use super::external::{External, MOST_DENSE};
use super::{OnnxError, proto, tensor};
use crate::graph::{DType, Tensor};
use std::path::Path;

/// Returns the name of a sparse initializer, which is that of its values.
pub(super) fn name(sparse: &proto::SparseTensor) -> &str {
    sparse.values.as_ref().map_or("", proto::Tensor::name)
}

/// Reads a sparse tensor. Pages of the dense form that hold only zeros take no memory.
pub(super) fn import(path: &Path, sparse: &proto::SparseTensor, external: &mut External) -> Result<Tensor, OnnxError> {
    let fail =
        |reason: String| OnnxError::Tensor { path: path.to_path_buf(), tensor: name(sparse).to_string(), reason };
    let (Some(values), Some(indices)) = (&sparse.values, &sparse.indices) else {
        return Err(fail("a sparse tensor needs values and indices".into()));
    };
    let shape = tensor::sizes(&sparse.dims).map_err(&fail)?;
    let values = tensor::import(path, values, external)?;
    let indices = tensor::import(path, indices, external)?;
    let element = values.dtype().size();
    let bytes = shape.iter().try_fold(element, |size, dim| size.checked_mul(*dim));
    let bytes = bytes.filter(|bytes| external.reserve(*bytes)).ok_or_else(|| {
        fail(format!(
            "with sparse {shape:?} the sparse tensors of the file take more than {MOST_DENSE} bytes once dense"
        ))
    })?;
    let (count, rank) = (values.len(), shape.len());
    let flat = indices.shape() == [count];
    if element == 0 || indices.dtype() != DType::I64 || !(flat || indices.shape() == [count, rank]) {
        let (values, indices) = (values.dtype(), format!("{}{:?}", indices.dtype(), indices.shape()));
        let expected = format!("int64[{count}] or int64[{count},{rank}]");
        return Err(fail(format!("indices of sparse {values}{shape:?} must be {expected}, found {indices}")));
    }
    let indices = indices.to_ints().ok_or_else(|| fail("its indices cannot be read".into()))?;
    let (mut dense, mut last) = (vec![0u8; bytes], None);
    for (number, value) in values.bytes().chunks_exact(element).enumerate() {
        let place = match flat {
            true => indices.get(number).and_then(|index| usize::try_from(*index).ok()),
            false => indices.get(number * rank..(number + 1) * rank).and_then(|index| offset(index, &shape)),
        };
        let slot =
            place.and_then(|place| place.checked_mul(element)).and_then(|start| dense.get_mut(start..start + element));
        slot.ok_or_else(|| fail(format!("sparse index {number} is outside of {shape:?}")))?.copy_from_slice(value);
        if last.replace(place) >= Some(place) {
            return Err(fail(format!("sparse index {number} does not come after the one before it")));
        }
    }
    Tensor::new(values.dtype(), shape, dense.into()).map_err(|error| fail(error.to_string()))
}

fn offset(index: &[i64], shape: &[usize]) -> Option<usize> {
    index.iter().zip(shape).try_fold(0usize, |place, (index, size)| {
        let index = usize::try_from(*index).ok().filter(|index| index < size)?;
        place.checked_mul(*size)?.checked_add(index)
    })
}
