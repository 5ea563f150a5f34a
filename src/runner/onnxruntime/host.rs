//! Values of ONNX Runtime on the processor, as tensors.

use super::buffer_error;
use crate::graph::{DType, Tensor};
use crate::runner::engine::EngineError;
use bytes::Bytes;
use ort::value::{DynTensor, TensorElementType};

pub(super) fn element_type(dtype: DType) -> Option<TensorElementType> {
    Some(match dtype {
        DType::F32 => TensorElementType::Float32,
        DType::F64 => TensorElementType::Float64,
        DType::F16 => TensorElementType::Float16,
        DType::BF16 => TensorElementType::Bfloat16,
        DType::I64 => TensorElementType::Int64,
        DType::I32 => TensorElementType::Int32,
        DType::I16 => TensorElementType::Int16,
        DType::I8 => TensorElementType::Int8,
        DType::U64 => TensorElementType::Uint64,
        DType::U32 => TensorElementType::Uint32,
        DType::U16 => TensorElementType::Uint16,
        DType::U8 => TensorElementType::Uint8,
        DType::Bool => TensorElementType::Bool,
        DType::String | DType::Other(_) => return None,
    })
}

pub(super) fn dtype(element: TensorElementType) -> Option<DType> {
    [
        DType::F32,
        DType::F64,
        DType::F16,
        DType::BF16,
        DType::I64,
        DType::I32,
        DType::I16,
        DType::I8,
        DType::U64,
        DType::U32,
        DType::U16,
        DType::U8,
        DType::Bool,
    ]
    .into_iter()
    .find(|dtype| element_type(*dtype) == Some(element))
}

/// Returns the bytes that a tensor has; `None` of none, and of what is no plain number.
pub(super) fn size(value: &DynTensor) -> Option<usize> {
    let elements: usize = value.shape().iter().map(|dim| usize::try_from(*dim).unwrap_or(0)).product();
    let size = elements * dtype(*value.data_type())?.size();
    (size > 0).then_some(size)
}

pub(super) fn download(value: &DynTensor) -> Result<Tensor, EngineError> {
    let shape: Vec<usize> = value.shape().iter().map(|dim| usize::try_from(*dim).unwrap_or(0)).collect();
    let dtype = dtype(*value.data_type())
        .ok_or_else(|| buffer_error(format!("{:?}", value.data_type()), "this dtype cannot be read back"))?;
    let data = Bytes::copy_from_slice(view(value, dtype));
    Tensor::new(dtype, shape, data).map_err(|error| buffer_error(dtype.to_string(), error))
}

/// Replaces the elements of a value on the processor.
pub(super) fn upload(value: &mut DynTensor, tensor: &Tensor) -> Result<(), EngineError> {
    let shape: Vec<usize> = value.shape().iter().map(|dim| usize::try_from(*dim).unwrap_or(0)).collect();
    if dtype(*value.data_type()) != Some(tensor.dtype()) || shape != tensor.shape() {
        let what = format!("{:?}{shape:?}", value.data_type());
        return Err(buffer_error(what, format!("cannot take {}{:?}", tensor.dtype(), tensor.shape())));
    }
    let bytes = tensor.bytes();
    if !bytes.is_empty() {
        // SAFETY: the value has exactly the tensor's dtype and shape, lies in CPU memory, and the caller's mutable engine
        // keeps a run from using it meanwhile.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), value.data_ptr_mut().cast::<u8>(), bytes.len());
        }
    }
    Ok(())
}

/// Returns the bytes of a value of this dtype.
pub(super) fn view(value: &DynTensor, dtype: DType) -> &[u8] {
    let sizes = value.shape().iter().map(|dim| usize::try_from(*dim).unwrap_or(0));
    let size = sizes.product::<usize>() * dtype.size();
    if size == 0 {
        return &[];
    }
    // SAFETY: the value is a CPU tensor of this dtype and shape, so `size` bytes are readable as long as it lives, and a
    // run, which may write them, takes the engine that holds it mutably.
    unsafe { std::slice::from_raw_parts(value.data_ptr().cast::<u8>(), size) }
}
