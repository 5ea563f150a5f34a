//! Data: columns of equal length from a file, in batches of rows in a reproducible order.
//!
//! A column is one tensor whose first dimension counts the rows. What this module does not do:
//! decide which column feeds which input (the job file does), or run anything.

mod batches;
mod check;
mod npz;
pub(crate) mod safetensors;

pub use batches::{BatchOptions, Batches, LastBatch};
pub use check::{Feed, Wanted, check, check_labels};

use crate::error::{ErrorKind, nearest};
use crate::graph::{DType, Tensor};
use bytes::Bytes;
use memmap2::Mmap;
use std::fs::File;
use std::path::{Path, PathBuf};

const FORMATS: &str = ".npz, .safetensors";

/// Columns of equal length.
#[derive(Clone, Debug)]
pub struct Dataset {
    path: PathBuf,
    columns: Vec<(String, Tensor)>,
    rows: usize,
}

/// A file that is no data, or data that do not fit the model.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum DataError {
    #[error("cannot read {}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} has an unknown extension, supported are {FORMATS}", .path.display())]
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

/// Reads tensors of any shapes from an `.npz` or `.safetensors` file; all of them with `None`.
///
/// # Errors
/// The file cannot be read, a name is missing or has a dtype without use.
pub fn read_tensors(path: &Path, names: Option<&[&str]>) -> Result<Vec<(String, Tensor)>, DataError> {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    match extension.as_deref() {
        Some("npz") => npz::read(path, names),
        Some("safetensors") => safetensors::read(path, names),
        _ => Err(DataError::Extension { path: path.to_path_buf() }),
    }
}

impl Dataset {
    /// Reads columns of an `.npz` or `.safetensors` file; all of its columns with `None`.
    /// Uncompressed columns are mapped, not copied.
    ///
    /// # Errors
    /// The file cannot be read, a column is missing, has a dtype without use or another number of
    /// rows than the first.
    pub fn open(path: &Path, columns: Option<&[&str]>) -> Result<Dataset, DataError> {
        Dataset::new(path, read_tensors(path, columns)?)
    }

    /// Returns the dataset of tensors in memory; `path` is its name in errors.
    ///
    /// # Errors
    /// A tensor has rank 0 or another number of rows than the first, or there are no rows.
    pub fn new(path: &Path, columns: Vec<(String, Tensor)>) -> Result<Dataset, DataError> {
        let path = path.to_path_buf();
        let mut first: Option<(&str, usize)> = None;
        for (name, tensor) in &columns {
            let Some(rows) = tensor.shape().first().copied() else {
                let reason = "is a single value, expected one value or more for each row".into();
                return Err(DataError::Column { path, column: name.clone(), reason });
            };
            match first {
                Some((first, first_rows)) if first_rows != rows => {
                    let (first, second) = (first.to_string(), name.clone());
                    return Err(DataError::Lengths { path, first, first_rows, second, second_rows: rows });
                }
                _ => first = Some((name, rows)),
            }
        }
        match first {
            Some((_, rows)) if rows > 0 => Ok(Dataset { path, columns, rows }),
            _ => Err(DataError::Empty { path }),
        }
    }

    /// Returns the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the columns with their names.
    pub fn columns(&self) -> &[(String, Tensor)] {
        &self.columns
    }

    /// Returns a column.
    ///
    /// # Errors
    /// There is no column of that name.
    pub fn column(&self, name: &str) -> Result<&Tensor, DataError> {
        let found = self.columns.iter().find(|column| column.0 == name);
        let present = || self.columns.iter().map(|column| column.0.clone()).collect();
        found.map(|column| &column.1).ok_or_else(|| missing(&self.path, name, present()))
    }
}

fn missing(path: &Path, column: &str, present: Vec<String>) -> DataError {
    let near = nearest(column, present.iter().map(String::as_str)).map(str::to_string);
    DataError::Missing { path: path.to_path_buf(), column: column.into(), near, present }
}

/// Returns the names to read, each of which is present.
fn select(path: &Path, present: Vec<String>, wanted: Option<&[&str]>) -> Result<Vec<String>, DataError> {
    let Some(wanted) = wanted else { return Ok(present) };
    let mut names: Vec<String> = Vec::new();
    for name in wanted {
        if !present.iter().any(|other| other == name) {
            return Err(missing(path, name, present));
        }
        if !names.iter().any(|other| other == name) {
            names.push((*name).to_string());
        }
    }
    Ok(names)
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
    let file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the file is not changed while the program runs; that is a condition of its use.
    Ok(Bytes::from_owner(unsafe { Mmap::map(&file)? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(columns: &[(&str, Tensor)], column: &str) -> String {
        let columns = columns.iter().map(|(name, tensor)| ((*name).to_string(), tensor.clone())).collect();
        let result = Dataset::new(Path::new("a.npz"), columns).and_then(|data| data.column(column).cloned());
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
        for name in ["data.csv", "data"] {
            let error = Dataset::open(Path::new(name), None).unwrap_err().to_string();
            assert_eq!(error, format!("{name} has an unknown extension, supported are .npz, .safetensors"));
        }
        let error = Dataset::open(Path::new("/none/data.npz"), None).unwrap_err();
        assert_eq!(error.to_string(), "cannot read /none/data.npz");
    }
}
