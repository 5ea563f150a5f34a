//! The formats that data are read from: one file each, and a list of them.

mod arrow;
mod cache;
mod cifar;
mod classes;
mod csv;
mod idx;
mod images;
mod jsonl;
mod lines;
mod npy;
mod npz;
mod parquet;
pub(crate) mod safetensors;
mod text;
mod tokens;

pub use images::class_names;

use super::{DataError, DataOptions, Dataset, image};
use crate::graph::Tensor;
use cifar::Cifar;
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
    Format {
        name: "images",
        extensions: &[],
        about: "a folder of JPEG and PNG files for each class",
        open: images::open,
    },
    Format {
        name: "idx",
        extensions: &["idx1-ubyte", "idx3-ubyte"],
        about: "the files of MNIST, also packed by gzip",
        open: idx::open,
    },
    Format {
        name: "cifar10",
        extensions: &[],
        about: "the binary files of CIFAR-10",
        open: |path, options, columns| Cifar::Ten.open(path, options, columns),
    },
    Format {
        name: "cifar100",
        extensions: &[],
        about: "the binary files of CIFAR-100",
        open: |path, options, columns| Cifar::Hundred.open(path, options, columns),
    },
];

/// Formats whose columns of pictures are known.
const PICTURES: [&str; 4] = ["images", "idx", "cifar10", "cifar100"];

/// Opens a dataset in the format that the options name, or else the one that its extension does; all columns with
/// `None`.
///
/// # Errors
/// There is no such format, the file cannot be read, or a column is missing, has a dtype without use or another number
/// of rows than the first.
pub(super) fn open(path: &Path, options: &DataOptions, columns: Option<&[&str]>) -> Result<Dataset, DataError> {
    let format = format_of(path, options).ok_or_else(|| DataError::Extension { path: path.to_path_buf() })?;
    let dataset = (format.open)(path, options, columns)?;
    if PICTURES.contains(&format.name) { Ok(dataset) } else { image::image_column(dataset, options) }
}

fn format_of(path: &Path, options: &DataOptions) -> Option<&'static Format> {
    match &options.format {
        Some(name) => FORMATS.iter().find(|format| format.name == name),
        None if options.tokens.is_some() => FORMATS.iter().find(|format| format.name == "tokens"),
        None => by_extension(path).or_else(|| by_content(path)),
    }
}

/// Returns true for a file or folder whose format is of pictures.
pub(super) fn holds_pictures(path: &Path, options: &DataOptions) -> bool {
    format_of(path, options).is_some_and(|format| PICTURES.contains(&format.name))
}

/// Returns the format of pictures that a folder holds, or that a name stands for.
fn by_content(path: &Path) -> Option<&'static Format> {
    let name = match Cifar::in_folder(path) {
        Some(Cifar::Ten) => "cifar10",
        Some(Cifar::Hundred) => "cifar100",
        None if idx::is_one(path) => "idx",
        None if images::is_one(path) => "images",
        None => return None,
    };
    FORMATS.iter().find(|format| format.name == name)
}

/// Returns true for a folder of images by class.
pub fn is_image_folder(path: &Path, options: &DataOptions) -> bool {
    let format = options.format.as_deref();
    format.or_else(|| by_content(path).map(|format| format.name)) == Some("images")
}

/// Returns the bytes of elements in the other order.
fn swapped(data: &[u8], size: usize) -> bytes::Bytes {
    data.chunks_exact(size).flat_map(|element| element.iter().rev().copied()).collect::<Vec<u8>>().into()
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
