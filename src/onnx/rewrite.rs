//! Writes a loaded file back with some initializers and nodes replaced.
//!
//! This works on the encoded bytes: everything that is not replaced, known or unknown, in
//! whatever order the file has it, is copied as it stands.

use super::large::{Encoded, Store};
use super::{OnnxError, OnnxFile, proto};
use crate::graph::{Attribute, Tensor};
use bytes::Bytes;
use prost::Message;
use prost::encoding::{decode_varint, encode_varint};
use std::collections::{BTreeMap, BTreeSet, HashMap};

const MODEL_GRAPH: u64 = 7;
const MODEL_METADATA: u64 = 14;
const GRAPH_NODE: u64 = 1;
const GRAPH_INITIALIZER: u64 = 5;
const GRAPH_SPARSE_INITIALIZER: u64 = 15;
const MODEL_TRAINING_INFO: u64 = 20;
const LENGTH_DELIMITED: u64 = 2;
const EXTERNAL: i32 = 1;

/// What to change in a file.
#[derive(Clone, Debug, Default)]
pub struct Edits {
    /// New elements by initializer name; dtype and shape stay.
    pub initializers: HashMap<String, Tensor>,
    /// Changes of single nodes, by position in the model's graph.
    pub nodes: BTreeMap<usize, NodeEdit>,
    /// Nodes to leave out, by position in the model's graph.
    pub removed: BTreeSet<usize>,
    /// Initializers to add.
    pub added: Vec<(String, Tensor)>,
    /// New elements of initializers of training algorithms, by name; dtype and shape stay.
    pub training: HashMap<String, Tensor>,
    /// Entries of the model's `metadata_props` to leave out, by key.
    pub metadata: BTreeSet<String>,
    /// Move data of external files into the file, so that it can lie in another folder.
    pub embed_external: bool,
}

/// A change of one node.
#[derive(Clone, Debug, Default)]
pub struct NodeEdit {
    /// Attributes to set, or with `None` to remove.
    pub attributes: Vec<(String, Option<Attribute>)>,
    /// Keep only this many outputs.
    pub outputs: Option<usize>,
    /// Clear the input at this position.
    pub clear_input: Option<usize>,
    /// Values to read instead, by input.
    pub inputs: Vec<(usize, String)>,
}

impl OnnxFile {
    /// Returns the file's bytes with the edits applied. Without edits these are the file's bytes.
    /// Data that lay in an external file stays there unless it is replaced; what is replaced
    /// becomes raw data.
    ///
    /// # Errors
    /// An edit names no initializer of the file, or changes its dtype or shape.
    pub fn rewrite(&self, edits: &Edits) -> Result<Vec<u8>, OnnxError> {
        self.rewrite_with(edits, &mut Store::new("", false))
    }

    /// Returns the file with the edits applied as it is written, with a data file of the name
    /// `location` where the weights have more than `largest` bytes (see [`super::LARGEST`]).
    ///
    /// # Errors
    /// As [`OnnxFile::rewrite`].
    pub fn rewrite_encoded(&self, edits: &Edits, location: &str, largest: usize) -> Result<Encoded, OnnxError> {
        let total: usize = self.model.graph.initializers().map(|(.., tensor)| tensor.bytes().len()).sum();
        let mut store = Store::new(location, edits.embed_external && total > largest);
        Ok(Encoded { bytes: self.rewrite_with(edits, &mut store)?, pieces: store.pieces })
    }

    /// Returns the file's bytes without the entries of the model's `metadata_props` that have this key; the file's own
    /// bytes where there are none.
    pub fn without_metadata(&self, key: &str) -> Bytes {
        if self.model.metadata.iter().all(|entry| entry.0 != key) {
            return self.bytes.clone();
        }
        let is_entry = |content: &Bytes| self::key(content).is_some_and(|found| found == key);
        let mut out = Vec::with_capacity(self.bytes.len());
        for field in fields(self.bytes.clone()) {
            if field.number != MODEL_METADATA || !field.content.as_ref().is_some_and(is_entry) {
                out.extend_from_slice(&field.whole);
            }
        }
        out.into()
    }

    /// Returns the file's bytes with one entry of this key in the model's `metadata_props`, behind all else.
    pub fn with_metadata(&self, key: &str, value: &str) -> Vec<u8> {
        let mut out = self.without_metadata(key).to_vec();
        let entry = proto::StringStringEntry { key: Some(key.into()), value: Some(value.into()) };
        put(&mut out, MODEL_METADATA, &entry.encode_to_vec());
        out
    }

    /// Returns true when data of the model lie in other files.
    pub fn has_external_data(&self) -> bool {
        fn outside(tensor: &proto::Tensor) -> bool {
            tensor.data_location() == EXTERNAL
        }
        fn graph(graph: &proto::Graph) -> bool {
            graph.initializer.iter().any(outside) || graph.node.iter().any(node)
        }
        fn node(node: &proto::Node) -> bool {
            node.attribute.iter().any(|attribute| {
                attribute.t.iter().chain(&attribute.tensors).any(outside)
                    || attribute.g.iter().chain(&attribute.graphs).any(graph)
            })
        }
        let Ok(model) = proto::Model::decode(self.bytes.clone()) else { return false };
        model.graph.iter().any(graph) || model.functions.iter().flat_map(|function| &function.node).any(node)
    }

    fn rewrite_with(&self, edits: &Edits, store: &mut Store<'_>) -> Result<Vec<u8>, OnnxError> {
        for (name, tensor) in &edits.initializers {
            let id = self.model.graph.find(name);
            let old = id.and_then(|id| self.model.graph.value(id).initializer.as_ref());
            let old = old.ok_or_else(|| OnnxError::NoInitializer { name: name.clone() })?;
            if old.dtype() != tensor.dtype() || old.shape() != tensor.shape() {
                return Err(OnnxError::Mismatch {
                    name: name.clone(),
                    expected: format!("{}{:?}", old.dtype(), old.shape()),
                    found: format!("{}{:?}", tensor.dtype(), tensor.shape()),
                });
            }
        }
        let mut out = Vec::with_capacity(if store.splits() { 0 } else { self.bytes.len() });
        for field in fields(self.bytes.clone()) {
            match field {
                Field { number: MODEL_GRAPH, content: Some(graph), .. } => {
                    put(&mut out, MODEL_GRAPH, &self.rewrite_graph(graph, edits, store));
                }
                Field { number: MODEL_METADATA, content: Some(entry), .. }
                    if key(&entry).is_some_and(|key| edits.metadata.contains(&key)) => {}
                Field { number: MODEL_TRAINING_INFO, content: Some(info), .. } if !edits.training.is_empty() => {
                    put(&mut out, MODEL_TRAINING_INFO, &rewrite_training(info, edits, store));
                }
                field => out.extend_from_slice(&field.whole),
            }
        }
        Ok(out)
    }

    fn rewrite_graph(&self, graph: Bytes, edits: &Edits, store: &mut Store<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(if store.splits() { 0 } else { graph.len() });
        let in_file = |position: &usize| self.positions.get(*position).copied().flatten();
        let removed: BTreeSet<usize> = edits.removed.iter().filter_map(in_file).collect();
        let edited: BTreeMap<usize, &NodeEdit> =
            edits.nodes.iter().filter_map(|(position, edit)| Some((in_file(position)?, edit))).collect();
        let mut position = 0;
        for field in fields(graph) {
            let replacement = match (&field.content, field.number) {
                (Some(content), GRAPH_INITIALIZER) => self.replace_initializer(content.clone(), edits, store),
                (Some(content), GRAPH_SPARSE_INITIALIZER) => match dense(content, edits, store) {
                    Some(message) => {
                        put(&mut out, GRAPH_INITIALIZER, &message);
                        continue;
                    }
                    None => None,
                },
                (Some(content), GRAPH_NODE) => {
                    position += 1;
                    if removed.contains(&(position - 1)) {
                        continue;
                    }
                    edited.get(&(position - 1)).and_then(|edit| edit_node(content.clone(), edit))
                }
                _ => None,
            };
            match replacement {
                Some(message) => put(&mut out, field.number, &message),
                None => out.extend_from_slice(&field.whole),
            }
        }
        for (name, data) in &edits.added {
            put(&mut out, GRAPH_INITIALIZER, &store.export(name, data).encode_to_vec());
        }
        out
    }

    fn replace_initializer(&self, content: Bytes, edits: &Edits, store: &mut Store<'_>) -> Option<Vec<u8>> {
        let old = proto::Tensor::decode(content).ok()?;
        let data = match edits.initializers.get(old.name()) {
            Some(data) => data.clone(),
            None if store.splits() || edits.embed_external && old.data_location() == EXTERNAL => {
                let id = self.model.graph.find(old.name())?;
                self.model.graph.value(id).initializer.clone()?
            }
            None => return None,
        };
        let plain = store.export(old.name(), &data);
        let new = proto::Tensor { doc_string: old.doc_string, metadata_props: old.metadata_props, ..plain };
        Some(new.encode_to_vec())
    }
}

/// Returns the key of an entry of metadata.
fn key(entry: &Bytes) -> Option<String> {
    proto::StringStringEntry::decode(entry.clone()).ok().map(|entry| entry.key().to_string())
}

/// Returns the dense tensor that takes the place of a sparse initializer.
fn dense(content: &Bytes, edits: &Edits, store: &mut Store<'_>) -> Option<Vec<u8>> {
    let old = proto::SparseTensor::decode(content.clone()).ok()?;
    let name = super::sparse::name(&old);
    Some(store.export(name, edits.initializers.get(name)?).encode_to_vec())
}

fn rewrite_training(content: Bytes, edits: &Edits, store: &mut Store<'_>) -> Vec<u8> {
    let mut info = proto::TrainingInfo::decode(content).unwrap_or_default();
    for initializer in info.algorithm.iter_mut().flat_map(|algorithm| &mut algorithm.initializer) {
        if let Some(data) = edits.training.get(initializer.name()) {
            let plain = store.export(initializer.name(), data);
            let (doc_string, metadata_props) =
                (initializer.doc_string.take(), std::mem::take(&mut initializer.metadata_props));
            *initializer = proto::Tensor { doc_string, metadata_props, ..plain };
        }
    }
    info.encode_to_vec()
}

fn edit_node(content: Bytes, edit: &NodeEdit) -> Option<Vec<u8>> {
    let mut node = proto::Node::decode(content).ok()?;
    for (name, value) in &edit.attributes {
        node.attribute.retain(|attribute| attribute.name() != name);
        if let Some(value) = value {
            node.attribute.push(super::export::export_attribute(name, value));
        }
    }
    for (input, name) in &edit.inputs {
        node.input.get_mut(*input)?.clone_from(name);
    }
    if let Some(count) = edit.outputs {
        node.output.truncate(count);
    }
    if let Some(input) = edit.clear_input {
        node.input.truncate(input);
    }
    Some(node.encode_to_vec())
}

pub(super) struct Field {
    pub number: u64,
    pub whole: Bytes,
    pub content: Option<Bytes>,
}

/// Splits a message that decoded before into its fields.
pub(super) fn fields(message: Bytes) -> impl Iterator<Item = Field> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut cursor = rest.clone();
        let key = decode_varint(&mut cursor).ok()?;
        let header = rest.len() - cursor.len();
        let (start, end) = match key & 7 {
            0 => {
                decode_varint(&mut cursor).ok()?;
                (header, rest.len() - cursor.len())
            }
            1 => (header, header + 8),
            5 => (header, header + 4),
            LENGTH_DELIMITED => {
                let length = usize::try_from(decode_varint(&mut cursor).ok()?).ok()?;
                let start = rest.len() - cursor.len();
                (start, start + length)
            }
            _ => (header, rest.len()),
        };
        let content = (key & 7 == LENGTH_DELIMITED).then(|| rest.slice(start..end));
        let whole = rest.split_to(end);
        Some(Field { number: key >> 3, whole, content })
    })
}

pub(super) fn put(out: &mut Vec<u8>, number: u64, message: &[u8]) {
    encode_varint(number << 3 | LENGTH_DELIMITED, out);
    encode_varint(message.len() as u64, out);
    out.extend_from_slice(message);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::read;
    use std::path::{Path, PathBuf};

    fn fixtures() -> Vec<PathBuf> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        let entries = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
        let folders = entries.filter(|path| path.is_dir() && !path.ends_with("hostile"));
        let files = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
        let mut models: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|e| e == "onnx")).collect();
        models.sort();
        assert!(models.len() > 10, "fixtures are there");
        models
    }

    #[test]
    fn load_then_save_is_byte_identical() {
        for path in fixtures() {
            let file = read(&path).unwrap();
            assert!(file.rewrite(&Edits::default()).unwrap() == file.bytes, "{} by rewriting", path.display());
            let decoded = proto::Model::decode(file.bytes.clone()).unwrap();
            assert!(decoded.encode_to_vec() == file.bytes, "{} by decoding and encoding", path.display());
        }
    }

    #[test]
    fn what_we_do_not_know_survives_a_replaced_weight() {
        let path = &fixtures()[0];
        let folder = tempfile::tempdir().unwrap();
        let with_unknown = folder.path().join("unknown.onnx");
        let mut bytes = std::fs::read(path).unwrap();
        put(&mut bytes, 999, b"from the future");
        std::fs::write(&with_unknown, &bytes).unwrap();
        let file = read(&with_unknown).unwrap();
        let (_, value, tensor) = file.model.graph.initializers().find(|(_, _, t)| t.dtype().is_float()).unwrap();
        let zeros = Tensor::zeros(tensor.dtype(), tensor.shape());
        let edits = Edits { initializers: HashMap::from([(value.name.clone(), zeros.clone())]), ..Edits::default() };
        let result = file.rewrite(&edits).unwrap();
        assert!(result.ends_with(b"from the future"));
        std::fs::write(&with_unknown, &result).unwrap();
        let again = read(&with_unknown).unwrap().model;
        for (_, other, tensor) in again.graph.initializers() {
            let id = file.model.graph.find(&other.name).unwrap();
            let old = file.model.graph.value(id).initializer.as_ref().unwrap();
            assert!(tensor == if other.name == value.name { &zeros } else { old }, "{}", other.name);
        }
        assert_eq!(crate::graph::dump(&again.graph), crate::graph::dump(&file.model.graph));
    }

    #[test]
    fn an_entry_of_the_metadata_comes_and_goes_without_a_trace() {
        for path in fixtures() {
            let file = read(&path).unwrap();
            let with = crate::onnx::read_bytes(&path, file.with_metadata("own", "first").into()).unwrap();
            let twice = crate::onnx::read_bytes(&path, with.with_metadata("own", "second").into()).unwrap();
            assert_eq!(twice.model.metadata.len(), file.model.metadata.len() + 1, "{}", path.display());
            assert_eq!(twice.model.metadata.last(), Some(&("own".to_string(), "second".to_string())));
            assert!(twice.without_metadata("own") == file.bytes, "{}", path.display());
            assert!(twice.without_metadata("other") == twice.bytes, "{}", path.display());
            let outside = std::fs::read(&path).unwrap().windows(8).any(|window| window == b"location");
            assert_eq!(file.has_external_data(), outside, "{}", path.display());
        }
    }

    #[test]
    fn a_new_file_of_a_loaded_model_says_the_same() {
        for path in fixtures() {
            let model = read(&path).unwrap().model;
            let folder = tempfile::tempdir().unwrap();
            let copy = folder.path().join("copy.onnx");
            std::fs::write(&copy, crate::onnx::to_bytes(&model)).unwrap();
            let again = read(&copy).unwrap().model;
            assert_eq!(crate::graph::dump(&again.graph), crate::graph::dump(&model.graph), "{}", path.display());
            for (_, value, tensor) in model.graph.initializers() {
                let id = again.graph.find(&value.name).unwrap();
                assert!(again.graph.value(id).initializer.as_ref() == Some(tensor), "{}", value.name);
            }
        }
    }

    #[test]
    fn replacing_what_is_not_there_is_an_error() {
        let file = read(&fixtures()[0]).unwrap();
        let none = Tensor::scalar(0f32);
        let edits = Edits { initializers: HashMap::from([("no.such".into(), none)]), ..Edits::default() };
        let error = file.rewrite(&edits).unwrap_err();
        assert_eq!(error.to_string(), "the model has no initializer \"no.such\" to replace");
    }
}
