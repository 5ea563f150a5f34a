//! `TrainingInfoProto`: the training steps that a file carries beside its inference graph.
//!
//! The standard defines a step as the inference graph and an `algorithm` graph joined: inputs,
//! initializers, nodes and outputs of the one, then of the other, run as one graph. A
//! [`TrainingInfo`] holds that joined graph, so whatever is wrong with either is found by the
//! same checks. After a step, each update binding assigns a value of it to an initializer.
//!
//! An algorithm input that has the name of a tensor of the inference graph is that tensor.
//! <https://github.com/onnx/onnx/blob/main/docs/IR.md>

use super::export::{entries, export_graph};
use super::rewrite::{fields, put};
use super::{OnnxError, proto, tensor};
use crate::graph::Graph;
use bytes::Bytes;
use prost::Message;
use std::collections::HashSet;
use std::path::Path;

const OPSET_IMPORT: u64 = 8;
const METADATA: u64 = 14;
const TRAINING_INFO: u64 = 20;

/// One training step of a file.
#[derive(Clone, Debug)]
pub struct TrainingInfo {
    /// The inference graph and the algorithm joined.
    pub step: Graph,
    /// Computes starting values; has no inputs.
    pub initialization: Option<Graph>,
    /// From an initializer to the output of `initialization` that it starts with.
    pub initialization_binding: Vec<(String, String)>,
    /// From an initializer to the value of `step` that it has after a step.
    pub update_binding: Vec<(String, String)>,
}

/// A training step to write into a file.
#[derive(Clone, Debug)]
pub struct NewTrainingInfo {
    /// The algorithm. Its inputs in `outer` are values of the inference graph.
    pub algorithm: Graph,
    /// Names of inputs of `algorithm` that the inference graph gives.
    pub outer: HashSet<String>,
    /// Computes starting values.
    pub initialization: Graph,
    /// See [`TrainingInfo::initialization_binding`].
    pub initialization_binding: Vec<(String, String)>,
    /// See [`TrainingInfo::update_binding`].
    pub update_binding: Vec<(String, String)>,
    /// Operator sets that the file must import, by domain.
    pub opsets: Vec<(String, i64)>,
    /// `metadata_props` to set in the file.
    pub metadata: Vec<(String, String)>,
}

/// Reads every training step of a model.
pub(super) fn import(
    path: &Path,
    model: &proto::Model,
    import_graph: &dyn Fn(&proto::Graph) -> Result<Graph, OnnxError>,
) -> Result<Vec<TrainingInfo>, OnnxError> {
    let inference = model.graph.clone().unwrap_or_default();
    let mut bound = HashSet::new();
    let mut found = Vec::with_capacity(model.training_info.len());
    for (index, info) in model.training_info.iter().enumerate() {
        let wrong = |reason: String| OnnxError::Training { path: path.to_path_buf(), number: index + 1, reason };
        let placed = |error: OnnxError| match error {
            OnnxError::Graph { source, .. } => wrong(source.to_string()),
            OnnxError::Duplicate { value, .. } => wrong(format!("value \"{value}\" is defined twice")),
            other => other,
        };
        let algorithm = info.algorithm.clone().unwrap_or_default();
        let step = import_graph(&joined(&inference, algorithm)).map_err(placed)?;
        let initialization = match &info.initialization {
            Some(graph) if !(graph.node.is_empty() && graph.initializer.is_empty()) => {
                if let Some(input) = graph.input.first() {
                    return Err(wrong(format!("the initialization has an input, \"{}\"", input.name())));
                }
                Some(import_graph(graph).map_err(placed)?)
            }
            _ => None,
        };
        let update_binding = pairs(&info.update_binding);
        let initialization_binding = pairs(&info.initialization_binding);
        for (key, value) in &update_binding {
            initializer(&step, key).map_err(wrong)?;
            if step.find(value).is_none() {
                return Err(wrong(format!("\"{key}\" is bound to \"{value}\", which no node produces")));
            }
            if !bound.insert(key.clone()) {
                return Err(wrong(format!("\"{key}\" is bound twice")));
            }
        }
        let mut started = HashSet::new();
        for (key, value) in &initialization_binding {
            initializer(&step, key).map_err(wrong)?;
            let gives = |graph: &Graph| graph.outputs().iter().any(|id| graph.value_name(*id) == value);
            if !initialization.as_ref().is_some_and(gives) {
                return Err(wrong(format!(
                    "\"{key}\" starts with \"{value}\", which is no output of the initialization"
                )));
            }
            if !started.insert(key) {
                return Err(wrong(format!("\"{key}\" has two starting values")));
            }
        }
        found.push(TrainingInfo { step, initialization, initialization_binding, update_binding });
    }
    Ok(found)
}

fn initializer(step: &Graph, name: &str) -> Result<(), String> {
    let found = step.find(name).is_some_and(|id| step.value(id).initializer.is_some());
    if found { Ok(()) } else { Err(format!("a binding names \"{name}\", which is no initializer")) }
}

fn pairs(entries: &[proto::StringStringEntry]) -> Vec<(String, String)> {
    entries.iter().map(|entry| (entry.key().to_string(), entry.value().to_string())).collect()
}

fn joined(inference: &proto::Graph, algorithm: proto::Graph) -> proto::Graph {
    let mut joined = inference.clone();
    let mut given: HashSet<&str> = inference.input.iter().map(proto::ValueInfo::name).collect();
    given.extend(inference.initializer.iter().map(proto::Tensor::name));
    given.extend(inference.node.iter().flat_map(|node| node.output.iter().map(String::as_str)));
    let outputs: HashSet<&str> = inference.output.iter().map(proto::ValueInfo::name).collect();
    joined.input.extend(algorithm.input.into_iter().filter(|input| !given.contains(input.name())));
    joined.output.extend(algorithm.output.into_iter().filter(|output| !outputs.contains(output.name())));
    joined.initializer.extend(algorithm.initializer);
    joined.sparse_initializer.extend(algorithm.sparse_initializer);
    joined.node.extend(algorithm.node);
    joined.value_info.extend(algorithm.value_info);
    joined
}

/// Returns the bytes of a model file with this training step in the place of those it has.
/// Everything else is copied as it stands.
pub fn with_training_info(model: Bytes, info: NewTrainingInfo) -> Vec<u8> {
    let mut out = Vec::with_capacity(model.len());
    let mut missing = info.opsets;
    for field in fields(model) {
        match (field.number, &field.content) {
            (TRAINING_INFO, _) => continue,
            (METADATA, Some(content)) => {
                let entry = proto::StringStringEntry::decode(content.clone()).unwrap_or_default();
                if info.metadata.iter().any(|(key, _)| key == entry.key()) {
                    continue;
                }
            }
            (OPSET_IMPORT, Some(content)) => {
                let known = proto::OperatorSetId::decode(content.clone()).unwrap_or_default();
                missing.retain(|(domain, _)| domain != known.domain());
            }
            _ => {}
        }
        out.extend_from_slice(&field.whole);
    }
    for (domain, version) in missing {
        let entry = proto::OperatorSetId { domain: Some(domain), version: Some(version) };
        put(&mut out, OPSET_IMPORT, &entry.encode_to_vec());
    }
    for entry in entries(&info.metadata) {
        put(&mut out, METADATA, &entry.encode_to_vec());
    }
    let mut algorithm = export_graph(&info.algorithm, 0, &mut tensor::export);
    algorithm.input.retain(|input| !info.outer.contains(input.name()));
    let message = proto::TrainingInfo {
        initialization: Some(export_graph(&info.initialization, 0, &mut tensor::export)),
        algorithm: Some(algorithm),
        initialization_binding: entries(&info.initialization_binding),
        update_binding: entries(&info.update_binding),
    };
    put(&mut out, TRAINING_INFO, &message.encode_to_vec());
    out
}
