//! `.npy` files: one array, mapped. The column has the name of the file.

use super::npz::array;
use crate::data::{DataError, column, map, select};
use crate::graph::Tensor;
use std::path::Path;

/// Reads the column of a file.
pub(super) fn read(path: &Path, wanted: Option<&[&str]>) -> Result<Vec<(String, Tensor)>, DataError> {
    let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let names = select(path, vec![name.clone()], wanted)?;
    if names.is_empty() { Ok(Vec::new()) } else { Ok(vec![(name.clone(), values(path, &name)?)]) }
}

/// Reads the array of a file as a column of any name.
pub(super) fn values(path: &Path, name: &str) -> Result<Tensor, DataError> {
    let file = map(path).map_err(|source| DataError::Read { path: path.to_path_buf(), source })?;
    let fail = |reason: String| DataError::Format { path: path.to_path_buf(), format: ".npy", reason };
    let (dtype, shape, data) = array(file).map_err(|reason| fail(format!("it {reason}")))?;
    column(path, name, dtype, shape, data)
}
