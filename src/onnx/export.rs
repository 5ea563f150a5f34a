//! Writes a [`Model`] as a new file.

use super::{proto, tensor};
use crate::graph::{Attribute, Dim, Fact, Graph, Model, Node};
use prost::Message;

/// Returns the ONNX file of a model, with every initializer as raw data inside it and the facts
/// of every value as `value_info`. The same model gives the same bytes.
pub fn to_bytes(model: &Model) -> Vec<u8> {
    let (name, version) = model.producer.split_once(' ').unwrap_or((&model.producer, ""));
    let proto = proto::Model {
        ir_version: Some(model.ir_version),
        producer_name: Some(name.to_string()),
        producer_version: Some(version.to_string()),
        graph: Some(export_graph(&model.graph)),
        opset_import: model
            .opsets
            .iter()
            .map(|(domain, version)| proto::OperatorSetId { domain: Some(domain.clone()), version: Some(*version) })
            .collect(),
        metadata_props: entries(&model.metadata),
        ..proto::Model::default()
    };
    proto.encode_to_vec()
}

/// Returns the message of a graph, its initializers as raw data.
pub(super) fn export_graph(graph: &Graph) -> proto::Graph {
    let info = |id| value_info(graph.value_name(id), graph.fact(id));
    let declared: std::collections::HashSet<_> = graph.inputs().iter().chain(graph.outputs()).copied().collect();
    let known = graph.values().filter(|(id, value)| {
        value.initializer.is_none()
            && !declared.contains(id)
            && value.fact.dtype.is_some()
            && value.fact.shape.is_some()
    });
    proto::Graph {
        name: Some(graph.name().to_string()),
        node: graph.nodes().iter().map(|node| export_node(graph, node)).collect(),
        initializer: graph.initializers().map(|(_, value, data)| tensor::export(&value.name, data)).collect(),
        input: graph.inputs().iter().map(|id| info(*id)).collect(),
        output: graph.outputs().iter().map(|id| info(*id)).collect(),
        value_info: known.map(|(id, _)| info(id)).collect(),
        ..proto::Graph::default()
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
    let names = |ids: &[Option<crate::graph::ValueId>]| {
        ids.iter().map(|id| id.map_or(String::new(), |id| graph.value_name(id).to_string())).collect()
    };
    proto::Node {
        input: names(&node.inputs),
        output: names(&node.outputs),
        name: Some(node.name.clone()),
        op_type: Some(node.op.name.clone()),
        attribute: node.attributes.iter().map(|(name, value)| export_attribute(name, value)).collect(),
        domain: Some(node.op.domain.clone()),
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
    let tensor = proto::r#type::TensorType { elem_type: fact.dtype.map(|dtype| dtype.code()), shape };
    proto::ValueInfo {
        name: Some(name.to_string()),
        r#type: Some(proto::Type { value: Some(proto::r#type::Value::TensorType(tensor)), denotation: None }),
        ..proto::ValueInfo::default()
    }
}
