//! Reads a file into a [`Model`].

use super::tensor::{External, map};
use super::{OnnxError, TrainingInfo, proto, tensor, training_info};
use crate::graph::{Attribute, Attributes, Builder, DType, Dim, Fact, Model, Node, OpId, Origin, ValueId, check};
use bytes::Bytes;
use prost::Message;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// A model together with the bytes it came from, which [`OnnxFile::rewrite`] keeps.
#[derive(Clone, Debug)]
pub struct OnnxFile {
    /// Where the file lies.
    pub path: PathBuf,
    /// The whole file, mapped.
    pub bytes: Bytes,
    /// What it says.
    pub model: Model,
    /// The training steps that it carries.
    pub training: Vec<TrainingInfo>,
}

/// Reads a model. Weights are mapped from the file and its external files.
///
/// # Errors
/// The file cannot be read, is no ONNX model, is cut short, or is inconsistent.
pub fn read(path: &Path) -> Result<OnnxFile, OnnxError> {
    if path.is_dir() {
        let reason = "it is a folder".to_string();
        return Err(OnnxError::NotOnnx { path: path.to_path_buf(), reason });
    }
    let bytes = map(path).map_err(|source| OnnxError::Read { path: path.to_path_buf(), source })?;
    let (model, training) = import(path, bytes.clone())?;
    Ok(OnnxFile { path: path.to_path_buf(), bytes, model, training })
}

fn import(path: &Path, bytes: Bytes) -> Result<(Model, Vec<TrainingInfo>), OnnxError> {
    let not_onnx = |reason: String| OnnxError::NotOnnx { path: path.to_path_buf(), reason };
    if bytes.is_empty() {
        return Err(not_onnx("the file is empty".into()));
    }
    let size = bytes.len();
    let proto = proto::Model::decode(bytes)
        .map_err(|error| not_onnx(format!("its {size} bytes do not decode ({error}); is it cut short?")))?;
    let graph = proto.graph.as_ref().ok_or_else(|| not_onnx("it holds no graph".into()))?;
    if proto.ir_version.is_none() {
        return Err(not_onnx("it has no ir_version".into()));
    }
    let unsupported = |what: String| OnnxError::Unsupported { path: path.to_path_buf(), what };
    if !graph.sparse_initializer.is_empty() {
        return Err(unsupported("a sparse initializer".into()));
    }
    if let Some(function) = proto.functions.first() {
        return Err(unsupported(format!("the model-local function \"{}\"", function.name())));
    }
    let opsets = proto.opset_import.iter().map(|entry| (domain(entry.domain()), entry.version())).collect();
    let pairs = |entries: &[proto::StringStringEntry]| {
        entries.iter().map(|e| (e.key().to_string(), e.value().to_string())).collect()
    };
    let model = Model {
        graph: import_graph(path, graph)?,
        opsets,
        ir_version: proto.ir_version(),
        producer: format!("{} {}", proto.producer_name(), proto.producer_version()).trim().to_string(),
        metadata: pairs(&proto.metadata_props),
    };
    let training = training_info::import(path, &proto, &|graph| import_graph(path, graph))?;
    Ok((model, training))
}

fn domain(name: &str) -> String {
    if name == "ai.onnx" { String::new() } else { name.to_string() }
}

fn import_graph(path: &Path, proto: &proto::Graph) -> Result<crate::graph::Graph, OnnxError> {
    let mut external = External::default();
    let mut facts: HashMap<&str, Fact> = HashMap::new();
    for info in proto.value_info.iter().chain(&proto.input).chain(&proto.output) {
        facts.entry(info.name()).or_default();
        let merged = facts[info.name()].or(&fact(info.r#type.as_ref()));
        facts.insert(info.name(), merged);
    }
    let mut builder = Builder::new(proto.name());
    let mut ids: HashMap<&str, ValueId> = HashMap::new();
    let initialized: HashSet<&str> = proto.initializer.iter().map(proto::Tensor::name).collect();
    let duplicate = |value: &str| OnnxError::Duplicate { path: path.to_path_buf(), value: value.to_string() };
    for info in proto.input.iter().filter(|info| !initialized.contains(info.name())) {
        if ids.contains_key(info.name()) {
            return Err(duplicate(info.name()));
        }
        ids.insert(info.name(), builder.input(info.name(), facts[info.name()].clone()));
    }
    for initializer in &proto.initializer {
        if ids.contains_key(initializer.name()) {
            return Err(duplicate(initializer.name()));
        }
        let tensor = tensor::import(path, initializer, &mut external)?;
        ids.insert(initializer.name(), builder.initializer(initializer.name(), tensor));
    }
    for (index, node) in proto.node.iter().enumerate() {
        let missing = |value: &str| OnnxError::Graph {
            path: path.to_path_buf(),
            source: crate::graph::CheckError::ReadBeforeProduced {
                node: node.name().to_string(),
                op: node.op_type().to_string(),
                value: value.to_string(),
            },
        };
        let mut inputs = Vec::with_capacity(node.input.len());
        for name in &node.input {
            inputs.push(match name.as_str() {
                "" => None,
                name => Some(*ids.get(name).ok_or_else(|| missing(name))?),
            });
        }
        let mut outputs = Vec::with_capacity(node.output.len());
        for name in &node.output {
            if name.is_empty() {
                outputs.push(None);
                continue;
            }
            if ids.contains_key(name.as_str()) {
                return Err(duplicate(name));
            }
            let id = builder.declare(name, facts.get(name.as_str()).cloned().unwrap_or_default());
            ids.insert(name, id);
            outputs.push(Some(id));
        }
        let mut attributes = Attributes::none();
        for attribute in &node.attribute {
            attributes.set(attribute.name(), import_attribute(path, attribute, &mut external)?);
        }
        let name = match node.name() {
            "" => format!("{}_{index}", node.op_type()),
            name => name.to_string(),
        };
        builder.push_node(Node {
            name,
            op: OpId { domain: domain(node.domain()), name: node.op_type().to_string() },
            inputs,
            outputs,
            attributes,
            origin: Origin::Forward,
            metadata: node.metadata_props.iter().map(|e| (e.key().to_string(), e.value().to_string())).collect(),
        });
    }
    for info in &proto.output {
        let id = *ids.get(info.name()).ok_or_else(|| OnnxError::Graph {
            path: path.to_path_buf(),
            source: crate::graph::CheckError::NoOutput { value: info.name().to_string() },
        })?;
        builder.mark_output(id);
    }
    let graph = builder.finish();
    check(&graph).map_err(|source| OnnxError::Graph { path: path.to_path_buf(), source })?;
    Ok(graph)
}

fn fact(info: Option<&proto::Type>) -> Fact {
    let Some(proto::r#type::Value::TensorType(tensor)) = info.and_then(|info| info.value.as_ref()) else {
        return Fact::default();
    };
    let shape = tensor.shape.as_ref().map(|shape| {
        let dim = |dim: &proto::tensor_shape::Dimension| match &dim.value {
            Some(proto::tensor_shape::dimension::Value::DimValue(size)) => {
                usize::try_from(*size).map_or(Dim::Unknown, Dim::Known)
            }
            Some(proto::tensor_shape::dimension::Value::DimParam(name)) if !name.is_empty() => {
                Dim::Symbol(name.clone())
            }
            _ => Dim::Unknown,
        };
        shape.dim.iter().map(dim).collect()
    });
    let dtype = tensor.elem_type.filter(|code| *code != 0).map(DType::from_code);
    Fact { dtype, shape }
}

fn import_attribute(path: &Path, proto: &proto::Attribute, external: &mut External) -> Result<Attribute, OnnxError> {
    Ok(match proto.r#type() {
        1 => Attribute::Float(proto.f()),
        2 => Attribute::Int(proto.i()),
        3 => Attribute::String(proto.s.clone().unwrap_or_default()),
        4 => Attribute::Tensor(tensor::import(path, proto.t.as_ref().unwrap_or(&proto::Tensor::default()), external)?),
        6 => Attribute::Floats(proto.floats.clone()),
        7 => Attribute::Ints(proto.ints.clone()),
        8 => Attribute::Strings(proto.strings.clone()),
        _ => Attribute::Opaque { encoded: proto.encode_to_vec().into(), captures: captures(proto) },
    })
}

fn captures(attribute: &proto::Attribute) -> Vec<String> {
    let mut outer = Vec::new();
    for graph in attribute.g.iter().chain(&attribute.graphs) {
        let mut inner: HashSet<&str> = graph.input.iter().map(proto::ValueInfo::name).collect();
        inner.extend(graph.initializer.iter().map(proto::Tensor::name));
        inner.extend(graph.node.iter().flat_map(|node| node.output.iter().map(String::as_str)));
        let nested: Vec<String> = graph.node.iter().flat_map(|node| node.attribute.iter().flat_map(captures)).collect();
        let read = graph.node.iter().flat_map(|node| node.input.iter().cloned());
        let read = read.chain(nested).chain(graph.output.iter().map(|o| o.name().to_string()));
        outer.extend(read.filter(|name| !name.is_empty() && !inner.contains(name.as_str())));
    }
    outer.sort();
    outer.dedup();
    outer
}
