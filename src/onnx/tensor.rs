//! `TensorProto` to [`Tensor`] and back.

use super::external::External;
use super::{OnnxError, proto};
use crate::graph::{DType, Element, Tensor};
use bytes::Bytes;
use std::path::Path;

/// Reads a tensor of the file at `path`, mapping external data.
pub(super) fn import(path: &Path, tensor: &proto::Tensor, external: &mut External) -> Result<Tensor, OnnxError> {
    let fail =
        |reason: String| OnnxError::Tensor { path: path.to_path_buf(), tensor: tensor.name().to_string(), reason };
    let dtype = DType::from_code(tensor.data_type());
    let shape = sizes(&tensor.dims).map_err(&fail)?;
    if dtype.bits() == 0 && dtype != DType::String {
        return Err(fail(format!("its dtype has the code {}, which is not known", dtype.code())));
    }
    let strings = tensor.string_data.len();
    if dtype == DType::String && shape.iter().try_fold(1usize, |all, dim| all.checked_mul(*dim)) != Some(strings) {
        return Err(fail(format!("string{shape:?} needs that many strings, found {strings}")));
    }
    let data = if tensor.data_location() == 1 && dtype != DType::String {
        external.data(path, tensor)?
    } else if let Some(raw) = tensor.raw_data.as_ref().filter(|_| dtype != DType::String) {
        raw.clone()
    } else {
        typed_data(tensor, dtype).ok_or_else(|| fail(format!("{dtype} data without raw_data is not readable")))?
    };
    Tensor::new(dtype, shape, data).map_err(|error| fail(error.to_string()))
}

/// Returns dimensions as sizes.
pub(super) fn sizes(dims: &[i64]) -> Result<Vec<usize>, String> {
    let sizes: Result<Vec<usize>, _> = dims.iter().map(|dim| usize::try_from(*dim)).collect();
    sizes.map_err(|_| match dims.iter().any(|dim| *dim < 0) {
        true => format!("dimensions {dims:?} are not all non-negative"),
        false => format!("shape {dims:?} has more elements than this machine can address"),
    })
}

fn typed_data(tensor: &proto::Tensor, dtype: DType) -> Option<Bytes> {
    fn pack<T: Element>(elements: impl Iterator<Item = T>) -> Option<Bytes> {
        let mut out = Vec::new();
        elements.for_each(|element| element.put(&mut out));
        Some(out.into())
    }
    let ints = tensor.int32_data.iter();
    match dtype {
        DType::F32 => pack(tensor.float_data.iter().copied()),
        DType::F64 => pack(tensor.double_data.iter().copied()),
        DType::I64 => pack(tensor.int64_data.iter().copied()),
        DType::I32 => pack(ints.copied()),
        DType::I16 => pack(ints.map(|v| *v as i16)),
        DType::I8 => pack(ints.map(|v| *v as i8)),
        DType::U16 | DType::F16 | DType::BF16 => pack(ints.map(|v| *v as u16)),
        DType::U8 => pack(ints.map(|v| *v as u8)),
        DType::Bool => pack(ints.map(|v| *v != 0)),
        DType::U32 => pack(tensor.uint64_data.iter().map(|v| *v as u32)),
        DType::U64 => pack(tensor.uint64_data.iter().copied()),
        DType::String => Some(strings(&tensor.string_data)),
        DType::Other(14) => pack(tensor.float_data.iter().copied()),
        DType::Other(15) => pack(tensor.double_data.iter().copied()),
        DType::Other(_) if matches!(dtype.bits(), 1..=4 | 8) => pack(ints.map(|v| *v as u8)),
        DType::Other(_) => None,
    }
}

/// Returns strings as a tensor holds them: each with its length before it.
fn strings(texts: &[Bytes]) -> Bytes {
    let mut out = Vec::new();
    for text in texts {
        (text.len() as u64).put(&mut out);
        out.extend_from_slice(text);
    }
    out.into()
}

fn string_data(data: &Bytes) -> Vec<Bytes> {
    let (mut texts, mut rest) = (Vec::new(), data.clone());
    while rest.len() >= 8 {
        let length = usize::try_from(u64::get(&rest.split_to(8))).unwrap_or(usize::MAX).min(rest.len());
        texts.push(rest.split_to(length));
    }
    texts
}

/// Writes a tensor as `raw_data` (strings as such) under a name.
pub(super) fn export(name: &str, tensor: &Tensor) -> proto::Tensor {
    proto::Tensor {
        dims: tensor.shape().iter().map(|dim| *dim as i64).collect(),
        data_type: Some(tensor.dtype().code()),
        name: Some(name.to_string()),
        raw_data: (tensor.dtype() != DType::String).then(|| tensor.bytes().clone()),
        string_data: if tensor.dtype() == DType::String { string_data(tensor.bytes()) } else { Vec::new() },
        ..proto::Tensor::default()
    }
}
