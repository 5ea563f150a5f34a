//! The formats that data are read from: one file each, and a list of them.

mod arrow;
mod cache;
mod classes;
mod csv;
mod jsonl;
mod lines;
mod npy;
mod npz;
mod parquet;
pub(crate) mod safetensors;
mod text;
mod tokens;

use super::{DataError, DataOptions, Dataset};
use crate::graph::Tensor;
use std::path::Path;

/// How a format is found and opened.
pub struct Format {
    /// Its name in a job file.
    pub name: &'static str,
    /// File extensions by which it is found, without the dot.
    pub extensions: &'static [&'static str],
    /// What it is, in a few words.
    pub about: &'static str,
    /// Opens a file with some of its columns, or with all.
    open: Open,
}

type Open = fn(&Path, &DataOptions, Option<&[&str]>) -> Result<Dataset, DataError>;

/// All formats.
pub static FORMATS: &[Format] = &[
    Format {
        name: "npz",
        extensions: &["npz"],
        about: "NumPy arrays, one a column",
        open: |path, _, columns| Dataset::new(path, npz::read(path, columns)?),
    },
    Format {
        name: "safetensors",
        extensions: &["safetensors"],
        about: "tensors, one a column",
        open: |path, _, columns| Dataset::new(path, safetensors::read(path, columns)?),
    },
    Format {
        name: "npy",
        extensions: &["npy"],
        about: "one NumPy array, the column of the file's name",
        open: |path, _, columns| Dataset::new(path, npy::read(path, columns)?),
    },
    Format { name: "csv", extensions: &["csv", "tsv"], about: "a header and a row a line", open: csv::open },
    Format {
        name: "parquet",
        extensions: &["parquet", "pq"],
        about: "columns of numbers and lists",
        open: parquet::open,
    },
    Format {
        name: "arrow",
        extensions: &["arrow", "feather", "ipc"],
        about: "columns of numbers and lists",
        open: arrow::open_ipc,
    },
    Format {
        name: "jsonl",
        extensions: &["jsonl", "ndjson"],
        about: "an object of numbers, lists and texts a line",
        open: jsonl::open,
    },
    Format {
        name: "tokens",
        extensions: &["tokens", "u16", "u32", "i64"],
        about: "token ids in blocks",
        open: tokens::open,
    },
];

/// Opens a dataset in the format that the options name, or else the one that its extension does; all columns with
/// `None`.
///
/// # Errors
/// There is no such format, the file cannot be read, or a column is missing, has a dtype without use or another number
/// of rows than the first.
pub(super) fn open(path: &Path, options: &DataOptions, columns: Option<&[&str]>) -> Result<Dataset, DataError> {
    let format = match &options.format {
        Some(name) => FORMATS.iter().find(|format| format.name == name),
        None if options.tokens.is_some() => FORMATS.iter().find(|format| format.name == "tokens"),
        None => by_extension(path),
    };
    let format = format.ok_or_else(|| DataError::Extension { path: path.to_path_buf() })?;
    (format.open)(path, options, columns)
}

fn by_extension(path: &Path) -> Option<&'static Format> {
    let extension = path.extension()?.to_string_lossy().to_ascii_lowercase();
    FORMATS.iter().find(|format| format.extensions.contains(&extension.as_str()))
}

/// Returns the extensions that are known, with their dots.
pub(super) fn extensions() -> String {
    let all = FORMATS.iter().flat_map(|format| format.extensions).map(|extension| format!(".{extension}"));
    all.collect::<Vec<_>>().join(", ")
}

/// Reads tensors of any shapes from an `.npz` or `.safetensors` file; all of them with `None`.
///
/// # Errors
/// The file cannot be read, a name is missing or has a dtype without use.
pub fn read_tensors(path: &Path, names: Option<&[&str]>) -> Result<Vec<(String, Tensor)>, DataError> {
    match by_extension(path).map(|format| format.name) {
        Some("npz") => npz::read(path, names),
        Some("safetensors") => safetensors::read(path, names),
        _ => Err(DataError::Extension { path: path.to_path_buf() }),
    }
}
