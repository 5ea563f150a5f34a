//! The files of a dataset, as a job names them.
//!
//! - `"train.npz"`: one file or folder.
//! - `"shards/*.parquet"`: a pattern; the rows of the matching files follow each other in the order of their names.
//! - `["a.npz", "b.npz"]`: the rows of the files follow each other in this order; they have the same columns.
//! - `{ images = "x.npy", labels = "y.npy" }`: columns side by side, equally long. A file gives the column of that name,
//!   or the only one it has.

use super::DataError;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The files of a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Files {
    /// A path or a pattern.
    One(PathBuf),
    /// Paths or patterns, whose rows follow each other.
    Several(#[cfg_attr(feature = "schema", schemars(length(min = 1)))] Vec<PathBuf>),
    /// The file of each column.
    Columns(BTreeMap<String, PathBuf>),
}

impl Files {
    /// Returns the paths and patterns as they were given.
    pub fn paths(&self) -> Vec<&Path> {
        match self {
            Files::One(path) => vec![path],
            Files::Several(paths) => paths.iter().map(PathBuf::as_path).collect(),
            Files::Columns(columns) => columns.values().map(PathBuf::as_path).collect(),
        }
    }

    /// Returns the files there are now: patterns that cannot be looked up stand for themselves.
    pub fn found(&self) -> Vec<PathBuf> {
        let found = |path: &Path| matching(path).unwrap_or_else(|_| vec![path.to_path_buf()]);
        self.paths().into_iter().flat_map(found).collect()
    }

    /// Makes the paths relative to a folder.
    pub fn resolve(&mut self, base: &Path) {
        // Collecting the components drops `.` and doubled separators.
        let resolve = |path: &mut PathBuf| *path = base.join(&*path).components().collect();
        match self {
            Files::One(path) => resolve(path),
            Files::Several(paths) => paths.iter_mut().for_each(resolve),
            Files::Columns(columns) => columns.values_mut().for_each(resolve),
        }
    }

    /// Returns why these cannot be files.
    pub fn problem(&self) -> Option<&'static str> {
        let paths = self.paths();
        if paths.is_empty() {
            return Some("names no file");
        }
        paths.iter().any(|path| path.as_os_str().is_empty()).then_some("is an empty path")
    }
}

impl From<PathBuf> for Files {
    fn from(path: PathBuf) -> Files {
        Files::One(path)
    }
}

impl From<&Path> for Files {
    fn from(path: &Path) -> Files {
        Files::One(path.to_path_buf())
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<String> = self.paths().iter().map(|path| path.display().to_string()).collect();
        f.write_str(&paths.join(", "))
    }
}

/// Returns the files that a path stands for: itself, or where there is no such file those that match it as a pattern,
/// sorted by name.
///
/// # Errors
/// It is a pattern that is wrong or that nothing matches, or a folder cannot be read.
pub(super) fn matching(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    let text = path.to_string_lossy();
    if !text.contains(['*', '?', '[']) || path.exists() {
        return Ok(vec![path.to_path_buf()]);
    }
    let fail = |reason: String| DataError::Pattern { path: path.to_path_buf(), reason };
    let found = glob::glob(&text).map_err(|error| fail(format!("is no pattern: {error}")))?;
    let found = found.collect::<Result<Vec<PathBuf>, _>>().map_err(|error| fail(format!("cannot be read: {error}")))?;
    if found.is_empty() { Err(fail("matches no file".into())) } else { Ok(found) }
}

impl<'de> Deserialize<'de> for Files {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Files, D::Error> {
        deserializer.deserialize_any(Read)
    }
}

struct Read;

impl<'de> Visitor<'de> for Read {
    type Value = Files;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path, an array of paths, or a table of a path for each column")
    }

    fn visit_str<E: Error>(self, path: &str) -> Result<Files, E> {
        Ok(Files::One(path.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Files, A::Error> {
        let mut paths = Vec::new();
        while let Some(path) = seq.next_element::<PathBuf>()? {
            paths.push(path);
        }
        Ok(Files::Several(paths))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Files, A::Error> {
        let mut columns = BTreeMap::new();
        while let Some((name, path)) = map.next_entry::<String, PathBuf>()? {
            columns.insert(name, path);
        }
        Ok(Files::Columns(columns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_the_files_that_match_it_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.npy", "a.npy", "c.txt", "[x].npy"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let names = |pattern: &str| -> Result<Vec<String>, String> {
            let found = matching(&folder.path().join(pattern)).map_err(|error| error.to_string())?;
            Ok(found.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect())
        };
        assert_eq!(names("?.npy").unwrap(), ["a.npy", "b.npy"]);
        assert_eq!(names("[x].npy").unwrap(), ["[x].npy"]);
        assert_eq!(names("absent.npy").unwrap(), ["absent.npy"]);
        assert!(names("*.csv").unwrap_err().ends_with("*.csv matches no file"));
        assert!(names("***").unwrap_err().contains("is no pattern: "));
        let mut files: Files = serde_json::from_str(r#"{"x": "./a.npy", "y": "b//c.npy"}"#).unwrap();
        files.resolve(Path::new("/base"));
        assert_eq!(files.to_string(), "/base/a.npy, /base/b/c.npy");
        assert_eq!(serde_json::to_string(&files).unwrap(), r#"{"x":"/base/a.npy","y":"/base/b/c.npy"}"#);
        assert_eq!(Files::Several(vec![]).problem(), Some("names no file"));
        assert!(serde_json::from_str::<Files>("3").unwrap_err().to_string().contains("expected a path, an array"));
    }
}
