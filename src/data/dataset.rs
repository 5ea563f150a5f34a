//! A dataset: a source, and how one is opened from files.

use super::columns::Columns;
use super::derive::{Wish, derive};
use super::files::Files;
use super::source::{Column, Draw, Sample, Source};
use super::{DataError, DataOptions, concat, formats, joined, learn, missing};
use crate::graph::Tensor;
use std::path::Path;
use std::sync::Arc;

/// Rows of named columns.
#[derive(Clone, Debug)]
pub struct Dataset {
    source: Arc<dyn Source>,
}

impl Dataset {
    /// Opens a file or folder, with some of its columns, or with all of them. Uncompressed columns are mapped, not
    /// copied.
    ///
    /// # Errors
    /// The format is not known, the file cannot be read, or a column is missing, has a dtype without use or another
    /// number of rows than the first.
    pub fn open(path: &Path, options: &DataOptions, columns: Option<&[&str]>) -> Result<Dataset, DataError> {
        formats::open(path, options, columns)
    }

    /// Opens files, with the columns that some names and patterns stand for, or with all of them.
    ///
    /// # Errors
    /// As [`Dataset::open`]; or the files do not have the same columns, or rows.
    pub fn open_files(files: &Files, options: &DataOptions, columns: Option<&[&str]>) -> Result<Dataset, DataError> {
        match files {
            Files::One(path) => concat::open(&[path.as_path()], files, options, columns),
            Files::Several(_) => concat::open(&files.paths(), files, options, columns),
            Files::Columns(parts) => joined::open(parts, files, options, columns),
        }
    }

    /// Returns the columns that are wanted, each under the name of its selection: joined to a vector, converted and
    /// normalised as the options say.
    ///
    /// # Errors
    /// There is no such column, columns cannot be joined, or one is normalised and there are no statistics for it.
    pub fn derive(&self, options: &DataOptions, wishes: &[Wish<'_>]) -> Result<Dataset, DataError> {
        derive(self, options, wishes)
    }

    /// Completes options with what reading other data the same way needs to know of these: the classes of texts, means
    /// and deviations. Returns what was found, to be told.
    ///
    /// # Errors
    /// A column that is normalised is not there or holds no finite numbers, or a row cannot be read.
    pub fn learn(&self, options: &mut DataOptions) -> Result<Vec<String>, DataError> {
        learn::learn(self, options)
    }

    /// Returns the dataset of tensors in memory; `path` is its name in errors.
    ///
    /// # Errors
    /// A tensor has rank 0 or another number of rows than the first, or there are no rows.
    pub fn new(path: &Path, columns: Vec<(String, Tensor)>) -> Result<Dataset, DataError> {
        Ok(Dataset::of(Columns::new(path, columns)?))
    }

    /// Returns the dataset with its column of pictures as the options say, as files of arrays are opened with them.
    ///
    /// # Errors
    /// There is no such column, or the options do not fit it.
    pub fn pictured(self, options: &DataOptions) -> Result<Dataset, DataError> {
        super::image::image_column(self, options)
    }

    /// Returns the dataset of a source.
    pub fn of(source: impl Source + 'static) -> Dataset {
        Dataset { source: Arc::new(source) }
    }

    /// Returns the source.
    pub fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// Returns the file or folder.
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.source.rows()
    }

    /// Returns the columns.
    pub fn columns(&self) -> &[Column] {
        self.source.columns()
    }

    /// Returns the position of a column.
    ///
    /// # Errors
    /// There is no column of that name.
    pub fn position(&self, name: &str) -> Result<usize, DataError> {
        let present = || self.columns().iter().map(|column| column.name.clone()).collect();
        let found = self.columns().iter().position(|column| column.name == name);
        found.ok_or_else(|| missing(self.path(), name, present()))
    }

    /// Returns a column.
    ///
    /// # Errors
    /// There is no column of that name.
    pub fn column(&self, name: &str) -> Result<&Column, DataError> {
        Ok(&self.columns()[self.position(name)?])
    }

    /// Reads all rows of a column, without random choices.
    ///
    /// # Errors
    /// There is no column of that name, or a row cannot be read.
    pub fn values(&self, name: &str) -> Result<Tensor, DataError> {
        let position = self.position(name)?;
        if let Some(tensor) = self.source.whole(position) {
            return Ok(tensor.clone());
        }
        let samples: Vec<Sample> = (0..self.rows()).map(Sample::of).collect();
        let mut read = self.source.read(&[position], &samples, Draw::Fixed)?;
        Ok(read.swap_remove(0))
    }
}

/// Returns the number of rows that all columns have.
///
/// # Errors
/// Two columns have different numbers of rows, or there are no rows.
pub fn same_rows(path: &Path, lengths: &[(&str, usize)]) -> Result<usize, DataError> {
    let path = path.to_path_buf();
    let Some((first, rows)) = lengths.first().copied() else { return Err(DataError::Empty { path }) };
    if let Some((second, second_rows)) = lengths.iter().find(|(_, other)| *other != rows) {
        let (first, second) = (first.to_string(), second.to_string());
        return Err(DataError::Lengths { path, first, first_rows: rows, second, second_rows: *second_rows });
    }
    if rows == 0 { Err(DataError::Empty { path }) } else { Ok(rows) }
}
