//! The lines of a mapped file, found once and read one at a time.

use crate::data::{DataError, map};
use bytes::Bytes;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// A file of JSON objects, one a line. Blank lines are no rows.
#[derive(Debug)]
pub(super) struct Lines {
    path: PathBuf,
    data: Bytes,
    /// Where each row starts.
    starts: Vec<usize>,
}

impl Lines {
    /// Maps a file and finds its lines.
    pub fn open(path: &Path) -> Result<Lines, DataError> {
        let data = map(path).map_err(|source| DataError::Read { path: path.to_path_buf(), source })?;
        let mut starts = Vec::new();
        let mut start = if data.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        while start < data.len() {
            let length = data[start..].iter().position(|byte| *byte == b'\n').unwrap_or(data.len() - start);
            if !data[start..start + length].iter().all(u8::is_ascii_whitespace) {
                starts.push(start);
            }
            start += length + 1;
        }
        if starts.is_empty() {
            return Err(DataError::Empty { path: path.to_path_buf() });
        }
        Ok(Lines { path: path.to_path_buf(), data, starts })
    }

    /// Returns the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Reads a row.
    pub fn object(&self, row: usize) -> Result<Map<String, Value>, DataError> {
        let rest = &self.data[self.starts[row]..];
        let line = &rest[..rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())];
        serde_json::from_slice(line).map_err(|error| DataError::Format {
            path: self.path.clone(),
            format: ".jsonl",
            reason: format!("line {} is no JSON object: {error}", self.number(row)),
        })
    }

    /// Returns an error about a column of a row.
    pub fn wrong(&self, row: usize, column: &str, reason: String) -> DataError {
        DataError::Line { path: self.path.clone(), line: self.number(row), column: column.into(), reason }
    }

    /// Returns the number of the line of a row, from 1.
    fn number(&self, row: usize) -> u64 {
        self.data[..self.starts[row]].iter().filter(|byte| **byte == b'\n').count() as u64 + 1
    }
}
