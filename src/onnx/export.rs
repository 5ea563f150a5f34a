//! Writes a [`Model`] as a new file.

use super::{OnnxFile, proto, tensor};
use crate::graph::{Attribute, Dim, Fact, Function, Graph, Model, Node, Tensor, ValueId};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

impl OnnxFile {
    /// Returns the file that a model made by this program would have at `path`.
    pub fn of(path: &Path, model: Model) -> OnnxFile {
        let positions = (0..model.graph.nodes().len()).map(Some).collect();
        OnnxFile { path: path.to_path_buf(), bytes: to_bytes(&model).into(), model, training: Vec::new(), positions }
    }
}

/// Returns the ONNX file of a model, with every initializer as raw data inside it and the facts
/// of every value as `value_info`. The same model gives the same bytes.
pub fn to_bytes(model: &Model) -> Vec<u8> {
    model_proto(model, &mut tensor::export).encode_to_vec()
}

/// Exports an initializer.
type ExportTensor<'a> = &'a mut dyn FnMut(&str, &Tensor) -> proto::Tensor;

/// Returns the message of a model whose initializers are written by `export`.
pub(super) fn model_proto(model: &Model, export: ExportTensor<'_>) -> proto::Model {
    let (name, version) = model.producer.split_once(' ').unwrap_or((&model.producer, ""));
    proto::Model {
        ir_version: Some(model.ir_version),
        producer_name: Some(name.to_string()),
        producer_version: Some(version.to_string()),
        graph: Some(proto::Graph {
            metadata_props: entries(&model.graph_metadata),
            ..export_graph(&model.graph, 0, export)
        }),
        functions: model.functions.iter().map(export_function).collect(),
        opset_import: opsets(&model.opsets),
        metadata_props: entries(&model.metadata),
        ..proto::Model::default()
    }
}

fn opsets(versions: &BTreeMap<String, i64>) -> Vec<proto::OperatorSetId> {
    let entry = |(domain, version): (&String, &i64)| proto::OperatorSetId {
        domain: Some(domain.clone()),
        version: Some(*version),
    };
    versions.iter().map(entry).collect()
}

/// Returns the message of a graph whose last `captured` inputs stand for outer values.
pub(super) fn export_graph(graph: &Graph, captured: usize, export: ExportTensor<'_>) -> proto::Graph {
    let info = |id| value_info(graph.value_name(id), graph.fact(id));
    let declared: HashSet<ValueId> = graph.inputs().iter().chain(graph.outputs()).copied().collect();
    let known = graph.values().filter(|(id, value)| {
        value.initializer.is_none()
            && !declared.contains(id)
            && value.fact.dtype.is_some()
            && value.fact.shape.is_some()
    });
    let formal = graph.inputs().len() - captured;
    proto::Graph {
        name: Some(graph.name().to_string()),
        node: graph.nodes().iter().map(|node| export_node(graph, node)).collect(),
        initializer: graph.initializers().map(|(_, value, data)| export(&value.name, data)).collect(),
        input: graph.inputs()[..formal].iter().map(|id| info(*id)).collect(),
        output: graph.outputs().iter().map(|id| info(*id)).collect(),
        value_info: known.map(|(id, _)| info(id)).collect(),
        ..proto::Graph::default()
    }
}

fn export_function(function: &Function) -> proto::Function {
    let graph = &function.graph;
    let names = |ids: &[ValueId]| ids.iter().map(|id| graph.value_name(*id).to_string()).collect();
    let mut open = BTreeSet::new();
    references(graph, &mut open);
    proto::Function {
        name: Some(function.id.name.clone()),
        domain: Some(function.id.domain.clone()),
        overload: Some(function.id.overload.clone()).filter(|overload| !overload.is_empty()),
        input: names(graph.inputs()),
        output: names(graph.outputs()),
        attribute: open.into_iter().filter(|name| function.defaults.get(name).is_none()).collect(),
        attribute_proto: function.defaults.iter().map(|(name, value)| export_attribute(name, value)).collect(),
        node: graph.nodes().iter().map(|node| export_node(graph, node)).collect(),
        opset_import: opsets(&function.opsets),
        ..proto::Function::default()
    }
}

/// Collects the attributes of the call that a body reads.
fn references(graph: &Graph, names: &mut BTreeSet<String>) {
    for (_, value) in graph.nodes().iter().flat_map(|node| node.attributes.iter()) {
        match value {
            Attribute::Reference { attribute, .. } => drop(names.insert(attribute.clone())),
            Attribute::Graph(inner) => references(&inner.graph, names),
            _ => {}
        }
    }
}

pub(super) fn entries(pairs: &[(String, String)]) -> Vec<proto::StringStringEntry> {
    let entry = |(key, value): &(String, String)| proto::StringStringEntry {
        key: Some(key.clone()),
        value: Some(value.clone()),
    };
    pairs.iter().map(entry).collect()
}

fn export_node(graph: &Graph, node: &Node) -> proto::Node {
    let names = |ids: &[Option<ValueId>]| {
        ids.iter().map(|id| id.map_or(String::new(), |id| graph.value_name(id).to_string())).collect()
    };
    proto::Node {
        input: names(&node.inputs),
        output: names(&node.outputs),
        name: Some(node.name.clone()),
        op_type: Some(node.op.name.clone()),
        attribute: node.attributes.iter().map(|(name, value)| export_attribute(name, value)).collect(),
        domain: Some(node.op.domain.clone()),
        overload: Some(node.overload.clone()).filter(|overload| !overload.is_empty()),
        metadata_props: entries(&node.metadata),
        ..proto::Node::default()
    }
}

pub(super) fn export_attribute(name: &str, value: &Attribute) -> proto::Attribute {
    let base = |code: i32| proto::Attribute {
        name: Some(name.to_string()),
        r#type: Some(code),
        ..proto::Attribute::default()
    };
    match value {
        Attribute::Float(value) => proto::Attribute { f: Some(*value), ..base(1) },
        Attribute::Int(value) => proto::Attribute { i: Some(*value), ..base(2) },
        Attribute::String(value) => proto::Attribute { s: Some(value.clone()), ..base(3) },
        Attribute::Tensor(value) => proto::Attribute { t: Some(tensor::export("", value)), ..base(4) },
        Attribute::Floats(values) => proto::Attribute { floats: values.clone(), ..base(6) },
        Attribute::Ints(values) => proto::Attribute { ints: values.clone(), ..base(7) },
        Attribute::Strings(values) => proto::Attribute { strings: values.clone(), ..base(8) },
        Attribute::Graph(inner) => proto::Attribute {
            g: Some(export_graph(&inner.graph, inner.captures.len(), &mut tensor::export)),
            ..base(5)
        },
        Attribute::Reference { attribute, kind } => {
            proto::Attribute { ref_attr_name: Some(attribute.clone()), ..base(*kind) }
        }
        Attribute::Opaque { encoded, .. } => {
            proto::Attribute::decode(encoded.clone()).expect("invariant: encoded by this module")
        }
    }
}

fn value_info(name: &str, fact: &Fact) -> proto::ValueInfo {
    let shape = fact.shape.as_ref().map(|shape| {
        let dim = |dim: &Dim| proto::tensor_shape::Dimension {
            value: match dim {
                Dim::Known(size) => Some(proto::tensor_shape::dimension::Value::DimValue(*size as i64)),
                Dim::Symbol(name) => Some(proto::tensor_shape::dimension::Value::DimParam(name.clone())),
                Dim::Unknown => None,
            },
            denotation: None,
        };
        proto::TensorShape { dim: shape.iter().map(dim).collect() }
    });
    // A type without a dtype is refused by readers; one that is left out is inferred.
    let tensor = fact.dtype.map(|dtype| proto::r#type::TensorType { elem_type: Some(dtype.code()), shape });
    let tensor_type = |tensor| proto::Type { value: Some(proto::r#type::Value::TensorType(tensor)), denotation: None };
    proto::ValueInfo { name: Some(name.to_string()), r#type: tensor.map(tensor_type), ..proto::ValueInfo::default() }
}
