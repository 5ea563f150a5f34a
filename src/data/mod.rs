//! Data: rows of named columns, in batches in a reproducible order.
//!
//! A [`Source`] gives rows of its columns, from memory, mapped files or by decoding them; [`formats`](FORMATS) open
//! files as sources, [`Batches`] say which rows are a batch, and a [`Loader`] makes batches ahead of the step. What this
//! module does not do: decide which column feeds which input (the job file does), or run anything.

mod augment;
mod batches;
mod check;
mod columns;
mod concat;
mod dataset;
mod derive;
mod files;
mod formats;
mod image;
mod joined;
mod learn;
mod loader;
mod options;
mod order;
mod selection;
mod source;

pub use augment::{AugmentOptions, Erasing, Mix, RandomCrop, RandomResizedCrop};
pub use batches::{Batch, BatchOptions, Batches, Elsewhere, LastBatch, Shape};
pub use check::{Feed, Wanted, check, check_fed_labels, check_labels};
pub use columns::Columns;
pub use dataset::Dataset;
pub use derive::Wish;
pub use files::Files;
pub(crate) use formats::safetensors;
pub use formats::{FORMATS, Format, class_names, is_image_folder, read_tensors};
pub use image::{Extent, ImageOptions, Interpolation, Layout, PixelType};
pub use loader::{Loader, Loading};
pub use options::{
    CsvOptions, DataOptions, Normalize, Number, Part, Side, Statistics, TextOptions, TokenType, TokensOptions,
};
pub use order::Sampler;
pub use selection::Selection;
pub use source::{Column, Draw, LabelRange, Sample, Source};

use crate::error::{ErrorKind, nearest};
use crate::graph::{DType, Tensor};
use bytes::Bytes;
use memmap2::Mmap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// A file that is no data, or data that do not fit the model.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum DataError {
    #[error("cannot read {}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} has an unknown extension, supported are {}", .path.display(), formats::extensions())]
    Extension { path: PathBuf },
    #[error("{} is no {format} file: {reason}", .path.display())]
    Format { path: PathBuf, format: &'static str, reason: String },
    #[error("{}: column \"{column}\" {reason}", .path.display())]
    Column { path: PathBuf, column: String, reason: String },
    #[error("{} has no column \"{column}\"{}; it has {}", .path.display(), did_you_mean(.near), list(.present))]
    Missing { path: PathBuf, column: String, near: Option<String>, present: Vec<String> },
    #[error("{}: column \"{first}\" has {first_rows} rows and column \"{second}\" has {second_rows}", .path.display())]
    Lengths { path: PathBuf, first: String, first_rows: usize, second: String, second_rows: usize },
    #[error("{} has no rows", .path.display())]
    Empty { path: PathBuf },
    #[error("{}: column \"{column}\" does not fit model input \"{input}\": expected {expected}, found {found}", .path.display())]
    Fit { path: PathBuf, column: String, input: String, expected: String, found: String },
    #[error(
        "{}: column \"{column}\" gives \"{symbol}\" the size {size}, column \"{other}\" gives it {other_size}",
        .path.display()
    )]
    Symbol { path: PathBuf, symbol: String, column: String, size: usize, other: String, other_size: usize },
    #[error("column \"{column}\" holds {found}, expected integer labels")]
    LabelType { column: String, found: DType },
    #[error("column \"{column}\": row {row} (from 0) holds label {label}, expected 0 to {}{}", .classes.saturating_sub(1), or_ignored(.ignored))]
    Label { column: String, row: usize, label: i64, classes: usize, ignored: Option<i64> },
    #[error("{} {reason}", .path.display())]
    Pattern { path: PathBuf, reason: String },
    #[error("{}: line {line}, column \"{column}\": {reason}", .path.display())]
    Line { path: PathBuf, line: u64, column: String, reason: String },
    #[error("{}: column \"{column}\" is {found}, and {} has {expected}", .path.display(), .first.display())]
    Parts { path: PathBuf, column: String, found: String, first: PathBuf, expected: String },
    #[error("cannot keep decoded data in {}", .path.display())]
    Cache { path: PathBuf, source: std::io::Error },
    #[error("data.normalize names \"{name}\", and no input or target reads such a column")]
    Unused { name: String },
    #[error("{}: row {row} (from 0) {reason}", .path.display())]
    Row { path: PathBuf, row: usize, reason: String },
    #[error("{} {reason}", .path.display())]
    Image { path: PathBuf, reason: String },
    #[error("{key}: {reason}")]
    Setting { key: &'static str, reason: String },
    #[error("batch {index} of epoch {epoch} could not be made: its source panicked")]
    Panicked { epoch: u64, index: usize },
    #[error("{rows} rows are fewer than one batch of {batch}, and last_batch = \"drop\" leaves none")]
    NoBatch { rows: usize, batch: usize },
}

impl DataError {
    /// Returns the group this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::BadInput
    }
}

fn did_you_mean(near: &Option<String>) -> String {
    near.as_ref().map(|near| format!(", did you mean \"{near}\"?")).unwrap_or_default()
}

fn list(present: &[String]) -> String {
    if present.is_empty() {
        return "no columns".into();
    }
    present.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

fn or_ignored(ignored: &Option<i64>) -> String {
    ignored.map(|label| format!(", or {label} to be ignored")).unwrap_or_default()
}

fn missing(path: &Path, column: &str, present: Vec<String>) -> DataError {
    let near = nearest(column, present.iter().map(String::as_str)).map(str::to_string);
    DataError::Missing { path: path.to_path_buf(), column: column.into(), near, present }
}

/// Returns the names to read, in the order of the file: all of them, or those that are wanted by name or pattern.
fn select(path: &Path, present: Vec<String>, wanted: Option<&[&str]>) -> Result<Vec<String>, DataError> {
    let Some(wanted) = wanted else { return Ok(present) };
    let mut taken = vec![false; present.len()];
    for name in wanted {
        let found = selection::matching(name, &present);
        if found.is_empty() {
            return Err(missing(path, name, present));
        }
        found.into_iter().for_each(|position| taken[position] = true);
    }
    Ok(present.into_iter().zip(taken).filter_map(|(name, taken)| taken.then_some(name)).collect())
}

/// Returns the tensor of a column read from a file.
fn column(path: &Path, name: &str, dtype: DType, shape: Vec<usize>, data: Bytes) -> Result<Tensor, DataError> {
    let fail = |reason: String| DataError::Column { path: path.to_path_buf(), column: name.into(), reason };
    if dtype == DType::Bool
        && let Some(byte) = data.iter().find(|byte| **byte > 1)
    {
        return Err(fail(format!("is bool and holds the byte {byte}")));
    }
    Tensor::new(dtype, shape, data).map_err(|error| fail(format!("is damaged: {error}")))
}

/// Maps a file.
pub(crate) fn map(path: &Path) -> std::io::Result<Bytes> {
    map_open(&File::open(path)?)
}

/// Maps an open file.
fn map_open(file: &File) -> std::io::Result<Bytes> {
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the file is not changed while the program runs; that is a condition of its use.
    Ok(Bytes::from_owner(unsafe { Mmap::map(file)? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(columns: &[(&str, Tensor)], column: &str) -> String {
        let columns = columns.iter().map(|(name, tensor)| ((*name).to_string(), tensor.clone())).collect();
        let result = Dataset::new(Path::new("a.npz"), columns).and_then(|data| data.values(column));
        result.map_or_else(|error| error.to_string(), |tensor| format!("{tensor:?}"))
    }

    #[test]
    fn columns_are_of_equal_length() {
        let (three, two) = (Tensor::ints(&[1, 2, 3]), Tensor::from_vec(&[2, 1], vec![1f32, 2.0]));
        let none = Tensor::zeros(DType::F32, &[0, 4]);
        type Case<'a> = (&'a [(&'a str, Tensor)], &'a str, &'a str);
        let cases: [Case; 6] = [
            (&[("labels", three.clone())], "labels", "int64[3]=[1.0, 2.0, 3.0]"),
            (
                &[("labels", three.clone()), ("images", three.clone())],
                "image",
                "a.npz has no column \"image\", did you mean \"images\"?; it has \"labels\", \"images\"",
            ),
            (
                &[("labels", three), ("images", two)],
                "labels",
                "a.npz: column \"labels\" has 3 rows and column \"images\" has 2",
            ),
            (
                &[("a", Tensor::scalar(1f32))],
                "a",
                "a.npz: column \"a\" is a single value, expected one value or more for each row",
            ),
            (&[("a", none)], "a", "a.npz has no rows"),
            (&[], "a", "a.npz has no rows"),
        ];
        for (columns, name, expected) in cases {
            assert_eq!(open(columns, name), expected);
        }
    }

    #[test]
    fn an_unknown_extension_lists_the_known_ones() {
        for name in ["data.what", "data"] {
            let error = Dataset::open(Path::new(name), &DataOptions::default(), None).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name} has an unknown extension, supported are .npz, .safetensors,")));
        }
        let error = Dataset::open(Path::new("/none/data.npz"), &DataOptions::default(), None).unwrap_err();
        assert_eq!(error.to_string(), "cannot read /none/data.npz");
    }
}
