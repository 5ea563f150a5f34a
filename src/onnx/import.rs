//! Reads a file into a [`Model`].

use super::external::{External, Source, map};
use super::import_graph::{Importer, Parts, Read};
use super::scan::scan;
use super::{OnnxError, TrainingInfo, proto, training_info};
use crate::graph::{Attributes, Function, FunctionId, Model, READABLE_OPSETS, inline};
use bytes::Bytes;
use prost::Message;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Oldest and newest IR version that is read.
const IR_VERSIONS: (i64, i64) = (3, 13);

/// Most training algorithms that are read from a file; each may hold as many nodes as the model.
const MOST_TRAININGS: usize = 4;

/// A model together with the bytes it came from, which [`OnnxFile::rewrite`] keeps.
#[derive(Clone, Debug)]
pub struct OnnxFile {
    /// Where the file lies.
    pub path: PathBuf,
    /// The whole file, mapped.
    pub bytes: Bytes,
    /// What it says, with functions inlined.
    pub model: Model,
    /// The training steps that it carries, with functions inlined.
    pub training: Vec<TrainingInfo>,
    /// Where in the file's graph each node of the model's graph stands; none for the nodes of
    /// inlined functions.
    pub(super) positions: Vec<Option<usize>>,
}

/// Reads a model. Weights are mapped from the file and its external files.
///
/// # Errors
/// The file cannot be read, is no ONNX model, is cut short, or is inconsistent.
pub fn read(path: &Path) -> Result<OnnxFile, OnnxError> {
    let cannot = |source: std::io::Error| OnnxError::Read { path: path.to_path_buf(), source };
    let metadata = std::fs::metadata(path).map_err(cannot)?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() { "it is a folder" } else { "it is no ordinary file" };
        return Err(OnnxError::NotOnnx { path: path.to_path_buf(), reason: what.to_string() });
    }
    read_bytes(path, map(path).map_err(cannot)?)
}

/// Reads a model from the bytes of a file. `path` is for messages, and its folder holds the
/// external files.
///
/// # Errors
/// As [`read`].
pub fn read_bytes(path: &Path, bytes: Bytes) -> Result<OnnxFile, OnnxError> {
    read_from(path, bytes, External::default())
}

/// Reads a model from the bytes of a file where there are no folders. `path` is for messages; `source` gives the data of
/// tensors that lie in other files, as many bytes as it is asked for.
///
/// # Errors
/// As [`read`], where `source` fails or gives another number of bytes.
pub fn read_bytes_with(path: &Path, bytes: Bytes, source: Box<Source>) -> Result<OnnxFile, OnnxError> {
    read_from(path, bytes, External::from(source))
}

fn read_from(path: &Path, bytes: Bytes, external: External) -> Result<OnnxFile, OnnxError> {
    let (model, order, training) = import(path, bytes.clone(), external)?;
    let inlined = inline(model).map_err(|source| OnnxError::Inline { path: path.to_path_buf(), source })?;
    let in_file = |position: usize| order.get(position).copied().unwrap_or(position);
    let positions = inlined.positions.into_iter().map(|position| position.map(in_file)).collect();
    Ok(OnnxFile { path: path.to_path_buf(), bytes, model: inlined.model, training, positions })
}

fn import(path: &Path, bytes: Bytes, external: External) -> Result<(Model, Vec<usize>, Vec<TrainingInfo>), OnnxError> {
    let not_onnx = |reason: String| OnnxError::NotOnnx { path: path.to_path_buf(), reason };
    if bytes.is_empty() {
        return Err(not_onnx("the file is empty".into()));
    }
    scan(&bytes).map_err(not_onnx)?;
    let proto = proto::Model::decode(bytes).map_err(|error| not_onnx(error.to_string()))?;
    let graph = proto.graph.as_ref().ok_or_else(|| not_onnx("it holds no graph".into()))?;
    if proto.ir_version.is_none() {
        return Err(not_onnx("it has no ir_version".into()));
    }
    check_versions(path, &proto)?;
    let trainings = proto.training_info.len();
    if trainings > MOST_TRAININGS {
        return Err(not_onnx(format!("it holds {trainings} training algorithms, at most {MOST_TRAININGS} are read")));
    }
    let importer = Importer::new(path, external);
    let graph_metadata = pairs(&graph.metadata_props);
    let Read { graph, order, .. } = importer.graph(&Parts::of_graph(graph), None)?;
    let functions = proto.functions.iter().map(|function| import_function(&importer, function));
    let model = Model {
        graph,
        functions: functions.collect::<Result<_, _>>()?,
        opsets: opsets(&proto.opset_import),
        ir_version: proto.ir_version(),
        producer: format!("{} {}", proto.producer_name(), proto.producer_version()).trim().to_string(),
        metadata: pairs(&proto.metadata_props),
        graph_metadata,
    };
    let training = training_info::import(path, &proto, &|graph| {
        let Read { graph, .. } = importer.graph(&Parts::of_graph(graph), None)?;
        let whole = model.with_graph(graph);
        let inlined = inline(whole).map_err(|source| OnnxError::Inline { path: path.to_path_buf(), source })?;
        Ok(inlined.model.graph)
    })?;
    Ok((model, order, training))
}

/// Checks the versions that say what the rest of the file means.
fn check_versions(path: &Path, proto: &proto::Model) -> Result<(), OnnxError> {
    let within = |what: &'static str, found: i64, (from, to): (i64, i64)| match (from..=to).contains(&found) {
        true => Ok(()),
        false => Err(OnnxError::Version { path: path.to_path_buf(), what, found, from, to }),
    };
    within("IR version", proto.ir_version(), IR_VERSIONS)?;
    let mut known: BTreeMap<String, i64> = BTreeMap::new();
    for entry in &proto.opset_import {
        let (domain, version) = (domain(entry.domain()), entry.version());
        if domain.is_empty() {
            within("opset", version, READABLE_OPSETS)?;
        }
        if let Some(other) = known.insert(domain.clone(), version).filter(|other| *other != version) {
            let reason = format!("it imports the operators of \"{domain}\" at versions {other} and {version}");
            return Err(OnnxError::NotOnnx { path: path.to_path_buf(), reason });
        }
    }
    if known.is_empty() {
        let reason = "it does not say the version of its operators".to_string();
        return Err(OnnxError::NotOnnx { path: path.to_path_buf(), reason });
    }
    Ok(())
}

fn import_function(importer: &Importer<'_>, function: &proto::Function) -> Result<Function, OnnxError> {
    let id = FunctionId {
        domain: domain(function.domain()),
        name: function.name().to_string(),
        overload: function.overload().to_string(),
    };
    let within = |source: OnnxError| OnnxError::Function { function: id.to_string(), source: Box::new(source) };
    let graph = importer.graph(&Parts::of_function(function), None).map_err(within)?.graph;
    let mut defaults = Attributes::none();
    for attribute in &function.attribute_proto {
        defaults.set(attribute.name(), importer.attribute(attribute, None)?);
    }
    Ok(Function { id, graph, defaults, opsets: opsets(&function.opset_import) })
}

fn opsets(entries: &[proto::OperatorSetId]) -> BTreeMap<String, i64> {
    entries.iter().map(|entry| (domain(entry.domain()), entry.version())).collect()
}

pub(super) fn pairs(entries: &[proto::StringStringEntry]) -> Vec<(String, String)> {
    entries.iter().map(|e| (e.key().to_string(), e.value().to_string())).collect()
}

/// Returns a domain's name in this program: the default domain is the empty string.
pub(super) fn domain(name: &str) -> String {
    if name == "ai.onnx" { String::new() } else { name.to_string() }
}
