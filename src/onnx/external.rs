//! Files beside the model that hold the data of its tensors.
//!
//! A location must name an ordinary file inside the model's folder, also once links are followed.
//! Where the model itself is a link, the folder of the file that it leads to counts as well: in the
//! cache of a model hub both the model and its data are links to one folder of blobs.

use super::{OnnxError, proto};
use bytes::Bytes;
use memmap2::Mmap;
use std::collections::HashMap;
use std::fs::File;
use std::path::{Component, Path, PathBuf};

/// Most memory that the dense forms of all sparse tensors of a model may take, in bytes.
pub(super) const MOST_DENSE: usize = 1 << 30;

/// What the tensors of one model take beside its file: external files, each mapped once, and the
/// memory of sparse tensors made dense.
#[derive(Default)]
pub(super) struct External {
    maps: HashMap<String, (PathBuf, Bytes)>,
    dense: usize,
}

/// Maps a whole file; an empty file gives no bytes.
pub(crate) fn map(path: &Path) -> std::io::Result<Bytes> {
    let file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the mapping is private and read-only; like every reader of mapped files this
    // assumes that nobody truncates the file while it is in use.
    Ok(Bytes::from_owner(unsafe { Mmap::map(&file)? }))
}

impl External {
    /// Counts the dense form of a sparse tensor; false when there are too many bytes of them.
    pub fn reserve(&mut self, bytes: usize) -> bool {
        self.dense = self.dense.saturating_add(bytes);
        self.dense <= MOST_DENSE
    }

    /// Returns the data of a tensor of the model at `path`.
    ///
    /// # Errors
    /// The location leads out of the folder or is no ordinary file, or the file is too short.
    pub fn data(&mut self, path: &Path, tensor: &proto::Tensor) -> Result<Bytes, OnnxError> {
        let fail =
            |reason: String| OnnxError::Tensor { path: path.to_path_buf(), tensor: tensor.name().to_string(), reason };
        let entry = |key: &str| tensor.external_data.iter().find(|e| e.key() == key).map(|e| e.value());
        let location = entry("location").ok_or_else(|| fail("external data without a location".into()))?;
        let number = |key: &str| -> Result<Option<u64>, OnnxError> {
            let expected = |text| fail(format!("external {key} is \"{text}\", expected a number from 0 to 2^64 - 1"));
            entry(key).map(|text| text.parse().map_err(|_| expected(text))).transpose()
        };
        let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
        if !self.maps.contains_key(location) {
            let unreadable = |file: PathBuf, source| OnnxError::External {
                path: path.to_path_buf(),
                tensor: tensor.name().to_string(),
                file,
                source,
            };
            let file = resolve(path, location, &fail, &unreadable)?;
            let bytes = map(&file).map_err(|source| unreadable(file.clone(), source))?;
            self.maps.insert(location.to_string(), (file, bytes));
        }
        let (file, bytes) = &self.maps[location];
        let held = bytes.len() as u64;
        let end = length.map_or(Some(offset.max(held)), |length| offset.checked_add(length));
        match end.filter(|end| *end <= held) {
            Some(end) => Ok(bytes.slice(offset as usize..end as usize)),
            None => Err(fail(format!(
                "{} holds {held} bytes, expected {} from byte {offset} on",
                file.display(),
                length.map_or("data".to_string(), |length| format!("{length} bytes")),
            ))),
        }
    }
}

/// Returns the ordinary file that a location names, without links.
fn resolve(
    model: &Path,
    location: &str,
    fail: &dyn Fn(String) -> OnnxError,
    unreadable: &dyn Fn(PathBuf, std::io::Error) -> OnnxError,
) -> Result<PathBuf, OnnxError> {
    let leaves = |how: &str| fail(format!("external location \"{location}\" leads out of the model's folder{how}"));
    let relative = Path::new(location);
    if relative.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(leaves(""));
    }
    let folder = model.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = folder.join(relative);
    let found = file.canonicalize().map_err(|source| unreadable(file.clone(), source))?;
    let real_model = model.canonicalize().ok();
    let folders = [folder.canonicalize().ok(), real_model.and_then(|model| Some(model.parent()?.to_path_buf()))];
    if !folders.iter().flatten().any(|folder| found.starts_with(folder)) {
        return Err(leaves(&format!(" through a link, to {}", found.display())));
    }
    let metadata = found.metadata().map_err(|source| unreadable(file.clone(), source))?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() { "a folder" } else { "no ordinary file" };
        return Err(fail(format!("external location \"{location}\" is {what}")));
    }
    Ok(found)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_location_stays_in_the_folder_of_the_model_or_of_what_it_links_to() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for folder in ["blobs", "snapshot", "other"] {
            std::fs::create_dir(at(folder)).unwrap();
        }
        for file in ["blobs/model", "blobs/data", "other/data", "snapshot/plain.onnx", "snapshot/own"] {
            std::fs::write(at(file), [0; 8]).unwrap();
        }
        symlink("../blobs/model", at("snapshot/linked.onnx")).unwrap();
        symlink("../blobs/data", at("snapshot/data")).unwrap();
        symlink("../other/data", at("snapshot/elsewhere")).unwrap();
        symlink("loop", at("snapshot/loop")).unwrap();
        let cases = [
            ("linked.onnx", "data", ""),
            ("linked.onnx", "own", ""),
            ("linked.onnx", "elsewhere", "leads out of the model's folder through a link"),
            ("plain.onnx", "own", ""),
            ("plain.onnx", "./own", ""),
            ("plain.onnx", "data", "leads out of the model's folder through a link"),
            ("plain.onnx", "../other/data", "leads out of the model's folder"),
            ("plain.onnx", "loop", "cannot be read"),
            ("plain.onnx", "", "is a folder"),
        ];
        for (model, location, expected) in cases {
            let entry = proto::StringStringEntry { key: Some("location".into()), value: Some(location.into()) };
            let tensor = proto::Tensor { external_data: vec![entry], ..proto::Tensor::default() };
            let found = External::default().data(&at("snapshot").join(model), &tensor);
            let error = found.as_ref().err().map(OnnxError::to_string).unwrap_or_default();
            assert!(error.contains(expected) && error.is_empty() == expected.is_empty(), "{model} {location}: {error}");
            assert_eq!(found.map_or(8, |bytes| bytes.len()), 8);
        }
    }
}
