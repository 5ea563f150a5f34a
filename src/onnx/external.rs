//! Files beside the model that hold the data of its tensors.
//!
//! A location must name an ordinary file inside the model's folder, also once links are followed.
//! Where the model itself is a link, the folder of the file that it leads to counts as well: in the
//! cache of a model hub both the model and its data are links to one folder of blobs.

use super::{OnnxError, proto};
use crate::graph::DType;
use bytes::Bytes;
use memmap2::Mmap;
use std::collections::HashMap;
use std::fs::File;
use std::path::{Component, Path, PathBuf};

/// Most memory that the dense forms of all sparse tensors of a model may take, in bytes.
pub(super) const MOST_DENSE: usize = 1 << 30;

/// Data of a tensor that lie in another file than the model's.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Outside<'a> {
    /// Name of the tensor.
    pub tensor: &'a str,
    /// Its element type.
    pub dtype: DType,
    /// How many elements it has.
    pub elements: u64,
    /// The file, relative to the model's folder and inside of it.
    pub location: &'a str,
    /// Where in the file the data begin, in bytes.
    pub offset: u64,
    /// How many bytes they are.
    pub length: u64,
}

/// Gives the data of tensors that lie in other files; see [`read_bytes_with`](super::read_bytes_with).
pub type Source = dyn Fn(&Outside<'_>) -> std::io::Result<Bytes>;

/// What the tensors of one model take beside its file: external files, each mapped once, and the
/// memory of sparse tensors made dense.
#[derive(Default)]
pub(super) struct External {
    maps: HashMap<String, (PathBuf, Bytes)>,
    dense: usize,
    source: Option<Box<Source>>,
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
    /// Returns one that asks for data instead of looking for files.
    pub fn from(source: Box<Source>) -> External {
        External { source: Some(source), ..External::default() }
    }

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
        let unreadable = |file: PathBuf, source| OnnxError::External {
            path: path.to_path_buf(),
            tensor: tensor.name().to_string(),
            file,
            source,
        };
        if let Some(source) = &self.source {
            inside(location, &fail)?;
            let dtype = DType::from_code(tensor.data_type());
            let product = |size: u64, dim: &i64| size.checked_mul(u64::try_from(*dim).ok()?);
            let elements = tensor.dims.iter().try_fold(1, product);
            let needed = elements.and_then(|elements| Some(elements.checked_mul(dtype.bits() as u64)?.div_ceil(8)));
            let (elements, needed) =
                elements.zip(needed).ok_or_else(|| fail(format!("it has too many elements: {:?}", tensor.dims)))?;
            let length = length.unwrap_or(needed);
            let outside = Outside { tensor: tensor.name(), dtype, elements, location, offset, length };
            return source(&outside).map_err(|source| unreadable(location.into(), source));
        }
        if !self.maps.contains_key(location) {
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

/// Refuses a location that leads out of the model's folder by its text alone.
fn inside(location: &str, fail: &dyn Fn(String) -> OnnxError) -> Result<(), OnnxError> {
    let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    match Path::new(location).components().all(inside) {
        true => Ok(()),
        false => Err(fail(format!("external location \"{location}\" leads out of the model's folder"))),
    }
}

/// Returns the ordinary file that a location names, without links.
fn resolve(
    model: &Path,
    location: &str,
    fail: &dyn Fn(String) -> OnnxError,
    unreadable: &dyn Fn(PathBuf, std::io::Error) -> OnnxError,
) -> Result<PathBuf, OnnxError> {
    inside(location, fail)?;
    let folder = model.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = folder.join(location);
    let found = file.canonicalize().map_err(|source| unreadable(file.clone(), source))?;
    let real_model = model.canonicalize().ok();
    let folders = [folder.canonicalize().ok(), real_model.and_then(|model| Some(model.parent()?.to_path_buf()))];
    if !folders.iter().flatten().any(|folder| found.starts_with(folder)) {
        let to = found.display();
        let text = format!("external location \"{location}\" leads out of the model's folder through a link, to {to}");
        return Err(fail(text));
    }
    let metadata = found.metadata().map_err(|source| unreadable(file.clone(), source))?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() { "a folder" } else { "no ordinary file" };
        return Err(fail(format!("external location \"{location}\" is {what}")));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, ErrorKind};

    #[test]
    fn a_source_is_asked_for_what_lies_inside_of_the_folder() {
        struct Case {
            location: &'static str,
            dims: [i64; 2],
            length: Option<&'static str>,
            expected: &'static str,
        }
        let cases = [
            Case { location: "sub/w", dims: [4, 3], length: None, expected: "float16 12 sub/w 8 24" },
            Case { location: "w", dims: [4, 3], length: Some("20"), expected: "float16 12 w 8 20" },
            Case { location: "../w", dims: [4, 3], length: None, expected: "leads out of the model's folder" },
            Case { location: "w", dims: [i64::MAX, 4], length: None, expected: "too many elements" },
            Case { location: "absent", dims: [4, 3], length: None, expected: "lies in the external file absent" },
        ];
        for Case { location, dims, length, expected } in cases {
            let entry =
                |key: &str, value: &str| proto::StringStringEntry { key: Some(key.into()), value: Some(value.into()) };
            let entries = [entry("location", location), entry("offset", "8")].into_iter();
            let tensor = proto::Tensor {
                dims: dims.to_vec(),
                data_type: Some(DType::F16.code()),
                external_data: entries.chain(length.map(|length| entry("length", length))).collect(),
                ..proto::Tensor::default()
            };
            let source = |asked: &Outside<'_>| match asked.location {
                "absent" => Err(Error::from(ErrorKind::NotFound)),
                location => {
                    let (dtype, elements) = (asked.dtype, asked.elements);
                    Ok(format!("{dtype} {elements} {location} {} {}", asked.offset, asked.length).into())
                }
            };
            let found = match External::from(Box::new(source)).data(Path::new("model.onnx"), &tensor) {
                Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Err(error) => error.to_string(),
            };
            assert!(found.contains(expected), "{location}: {found}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_location_stays_in_the_folder_of_the_model_or_of_what_it_links_to() {
        use std::os::unix::fs::symlink;
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
