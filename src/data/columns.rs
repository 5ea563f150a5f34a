//! Columns that lie in memory or are mapped.

use super::source::{Column, Draw, Sample, Source};
use super::{DataError, dataset::same_rows};
use crate::graph::Tensor;
use std::path::{Path, PathBuf};

/// Tensors of equal length.
#[derive(Clone, Debug)]
pub struct Columns {
    path: PathBuf,
    columns: Vec<Column>,
    tensors: Vec<Tensor>,
    rows: usize,
}

impl Columns {
    /// Returns the source of tensors; `path` is its name in errors.
    ///
    /// # Errors
    /// A tensor has rank 0 or another number of rows than the first, or there are no rows.
    pub fn new(path: &Path, columns: Vec<(String, Tensor)>) -> Result<Columns, DataError> {
        let mut lengths = Vec::with_capacity(columns.len());
        for (name, tensor) in &columns {
            let Some(rows) = tensor.shape().first().copied() else {
                let reason = "is a single value, expected one value or more for each row".into();
                return Err(DataError::Column { path: path.to_path_buf(), column: name.clone(), reason });
            };
            lengths.push((name.as_str(), rows));
        }
        let rows = same_rows(path, &lengths)?;
        let column = |(name, tensor): &(String, Tensor)| Column {
            name: name.clone(),
            dtype: tensor.dtype(),
            shape: tensor.shape()[1..].to_vec(),
        };
        let described = columns.iter().map(column).collect();
        let tensors = columns.into_iter().map(|(_, tensor)| tensor).collect();
        Ok(Columns { path: path.to_path_buf(), columns: described, tensors, rows })
    }
}

impl Source for Columns {
    fn path(&self) -> &Path {
        &self.path
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn columns(&self) -> &[Column] {
        &self.columns
    }

    fn read(&self, columns: &[usize], samples: &[Sample], _draw: Draw) -> Result<Vec<Tensor>, DataError> {
        Ok(columns.iter().map(|column| rows_of(&self.tensors[*column], samples)).collect())
    }

    fn whole(&self, column: usize) -> Option<&Tensor> {
        self.tensors.get(column)
    }
}

/// Returns rows of a tensor; those that follow each other without a copy.
fn rows_of(tensor: &Tensor, samples: &[Sample]) -> Tensor {
    let mut shape = tensor.shape().to_vec();
    let stride = shape[1..].iter().product::<usize>() * tensor.dtype().size();
    shape[0] = samples.len();
    let bytes = tensor.bytes();
    let first = samples.first().map_or(0, |sample| sample.row);
    let data = if samples.iter().zip(first..).all(|(sample, row)| sample.row == row) {
        bytes.slice(first * stride..(first + samples.len()) * stride)
    } else {
        let mut data = Vec::with_capacity(samples.len() * stride);
        for Sample { row, .. } in samples {
            data.extend_from_slice(&bytes[row * stride..(row + 1) * stride]);
        }
        data.into()
    };
    Tensor::new(tensor.dtype(), shape, data).expect("invariant: whole rows")
}
