//! `.safetensors` files, mapped.

use crate::data::{DataError, column, map, select};
use crate::graph::{DType, Tensor};
use bytes::Bytes;
use safetensors::{Dtype, SafeTensors};
use std::path::Path;

/// Reads columns of a file in the order of the file.
pub(crate) fn read(path: &Path, wanted: Option<&[&str]>) -> Result<Vec<(String, Tensor)>, DataError> {
    let data = map(path).map_err(|source| DataError::Read { path: path.to_path_buf(), source })?;
    let fail = |reason: String| DataError::Format { path: path.to_path_buf(), format: ".safetensors", reason };
    let (header, metadata) = SafeTensors::read_metadata(&data).map_err(|error| fail(error.to_string()))?;
    let names = select(path, metadata.offset_keys(), wanted)?;
    let mut columns = Vec::with_capacity(names.len());
    for name in names {
        let info = metadata.info(&name).expect("invariant: selected names are present");
        let dtype = dtype(info.dtype).ok_or_else(|| DataError::Column {
            path: path.to_path_buf(),
            column: name.clone(),
            reason: format!("has dtype {}, which is not supported", info.dtype),
        })?;
        let start = 8 + header;
        let bytes = data.slice(start + info.data_offsets.0..start + info.data_offsets.1);
        let tensor = column(path, &name, dtype, info.shape.clone(), bytes)?;
        columns.push((name, tensor));
    }
    Ok(columns)
}

const DTYPES: [(DType, Dtype); 13] = [
    (DType::F32, Dtype::F32),
    (DType::F64, Dtype::F64),
    (DType::F16, Dtype::F16),
    (DType::BF16, Dtype::BF16),
    (DType::I64, Dtype::I64),
    (DType::I32, Dtype::I32),
    (DType::I16, Dtype::I16),
    (DType::I8, Dtype::I8),
    (DType::U64, Dtype::U64),
    (DType::U32, Dtype::U32),
    (DType::U16, Dtype::U16),
    (DType::U8, Dtype::U8),
    (DType::Bool, Dtype::BOOL),
];

fn dtype(stored: Dtype) -> Option<DType> {
    DTYPES.iter().find(|row| row.1 == stored).map(|row| row.0)
}

/// Writes tensors to a file, which is replaced.
///
/// # Errors
/// A text that fits after "cannot write ..:".
pub(crate) fn write<'a>(path: &Path, tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Result<(), String> {
    let views = tensors.into_iter().map(|(name, tensor)| {
        let stored = DTYPES.iter().find(|row| row.0 == tensor.dtype()).map(|row| row.1);
        let stored =
            stored.ok_or_else(|| format!("\"{name}\" has dtype {}, which cannot be stored", tensor.dtype()))?;
        Ok((name, View { stored, tensor }))
    });
    let views = views.collect::<Result<Vec<_>, String>>()?;
    safetensors::serialize_to_file(views, None, path).map_err(|error| error.to_string())
}

struct View<'a> {
    stored: Dtype,
    tensor: &'a Tensor,
}

impl safetensors::View for View<'_> {
    fn dtype(&self) -> Dtype {
        self.stored
    }
    fn shape(&self) -> &[usize] {
        self.tensor.shape()
    }
    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        let bytes: &Bytes = self.tensor.bytes();
        bytes.as_ref().into()
    }
    fn data_len(&self) -> usize {
        self.tensor.bytes().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let tensors: Vec<(String, Tensor)> = DTYPES
            .iter()
            .map(|(dtype, _)| {
                let size = dtype.size() * 6;
                let data: Vec<u8> = (0..size).map(|byte| u8::from(byte % 3 == 1)).collect();
                (dtype.to_string(), Tensor::new(*dtype, vec![2, 3], data.into()).unwrap())
            })
            .collect();
        write(&path, tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))).unwrap();
        let mut back = read(&path, None).unwrap();
        back.sort_by_key(|column| tensors.iter().position(|tensor| tensor.0 == column.0));
        assert!(back == tensors, "{back:?}");
        assert_eq!(read(&path, Some(&["int64"])).unwrap().len(), 1);
        let error = read(&path, Some(&["int6"])).unwrap_err().to_string();
        assert!(error.contains("has no column \"int6\", did you mean \"int"), "{error}");
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let tensor = Tensor::ints(&[1, 2, 3]);
        write(&path, [("a", &tensor)]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in [0, 4, 12, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = read(&path, None).unwrap_err().to_string();
            assert!(error.contains("a.safetensors is no .safetensors file: "), "{error}");
        }
        let header = br#"{"a":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}}"#;
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header, &[1, 2]].concat();
        std::fs::write(&path, bytes).unwrap();
        let error = read(&path, None).unwrap_err().to_string();
        assert!(error.ends_with("column \"a\" is bool and holds the byte 2"), "{error}");
    }
}
