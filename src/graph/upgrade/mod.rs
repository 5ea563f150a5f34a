//! Brings a model to the opsets that the rest of the program knows.
//!
//! A model of opset 7 to 17 becomes one of opset 18 with the same meaning, 18 to 21 stays as it
//! is, and 22 to 24 is labelled 21 where every operator means the same there. Names of nodes and
//! values stay. Operators of other domains are not touched: their domains keep their versions.
//!
//! An operator passes only when `list.rs` knows it as unchanged or `convert.rs` converts it.

mod convert;
mod list;

use super::{AttrError, Attribute, Builder, Graph, Model, Node, NodeId, ValueId};
use crate::error::ErrorKind;
use std::collections::{HashMap, HashSet};

/// Opset that older models are brought to.
const TARGET: i64 = 18;
/// Newest opset whose operators the rest of the program knows.
const NEWEST: i64 = 21;
/// Oldest and newest opset that can be brought into that range.
pub(crate) const READABLE_OPSETS: (i64, i64) = (7, 24);
/// Oldest IR version of a model of opset 18.
const IR_VERSION: i64 = 8;

/// A model that cannot be brought to a known opset.
#[derive(Debug, thiserror::Error, PartialEq)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum UpgradeError {
    #[error("the model has opset {opset}, opsets {from} to {to} can be read")]
    Opset { opset: i64, from: i64, to: i64 },
    #[error("node \"{node}\": operator {op} of opset {opset} is not known to mean the same at opset {target}")]
    Unknown { node: String, op: String, opset: i64, target: i64 },
    #[error("node \"{node}\": operator {op} of opset {opset} has no equal at opset {target}: {reason}")]
    Convert { node: String, op: String, opset: i64, target: i64, reason: String },
    #[error("node \"{node}\": operator {op} of opset {opset}")]
    Attribute { node: String, op: String, opset: i64, source: AttrError },
}

impl UpgradeError {
    /// Returns the group this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        match self {
            UpgradeError::Attribute { .. } => ErrorKind::BadInput,
            _ => ErrorKind::Unsupported,
        }
    }
}

/// Returns the model at an opset in 18 to 21.
///
/// # Errors
/// The model's opset is out of range, or names the first node whose operator has no equal.
pub fn upgrade(model: &Model) -> Result<Model, UpgradeError> {
    let (from, to) = READABLE_OPSETS;
    match model.opset() {
        opset if is_known(opset) => Ok(model.clone()),
        opset if opset < from || opset > to => Err(UpgradeError::Opset { opset, from, to }),
        opset => {
            let (target, ir_version) =
                if opset < TARGET { (TARGET, model.ir_version.max(IR_VERSION)) } else { (NEWEST, model.ir_version) };
            Ok(Model { graph: graph_to_known(&model.graph, opset)?, ir_version, ..relabelled(model, target) })
        }
    }
}

/// Returns true for an opset that is left as it is.
pub(super) fn is_known(opset: i64) -> bool {
    (TARGET..=NEWEST).contains(&opset)
}

/// Returns a graph of another opset in the form that the known opsets share.
pub(super) fn graph_to_known(graph: &Graph, opset: i64) -> Result<Graph, UpgradeError> {
    let (from, to) = READABLE_OPSETS;
    if opset < from || opset > to {
        return Err(UpgradeError::Opset { opset, from, to });
    }
    if opset < TARGET {
        return rebuild(graph, opset);
    }
    check_newer(graph, opset)?;
    Ok(graph.clone())
}

fn check_newer(graph: &Graph, opset: i64) -> Result<(), UpgradeError> {
    for node in &graph.nodes {
        if node.op.domain.is_empty() {
            newer(node, opset)?;
        }
        for (_, value) in node.attributes.iter() {
            if let Attribute::Graph(inner) = value {
                check_newer(&inner.graph, opset)?;
            }
        }
    }
    Ok(())
}

fn relabelled(model: &Model, opset: i64) -> Model {
    let mut model = model.clone();
    model.opsets.insert(String::new(), opset);
    model
}

/// Checks that a node of an opset above 21 means the same at 21.
fn newer(node: &Node, opset: i64) -> Result<(), UpgradeError> {
    let fail = |reason: String| UpgradeError::Convert {
        node: node.name.clone(),
        op: node.op.to_string(),
        opset,
        target: NEWEST,
        reason,
    };
    if !list::known(&node.op.name, NEWEST) && !list::CONVERTED.contains(&node.op.name.as_str()) {
        let (node, op) = (node.name.clone(), node.op.to_string());
        return Err(UpgradeError::Unknown { node, op, opset, target: NEWEST });
    }
    let added = list::ADDED_AFTER_21.iter().filter(|(op, _)| node.op.is(op));
    if let Some((_, name)) = added.into_iter().find(|(_, name)| node.attributes.get(name).is_some()) {
        return Err(fail(format!("attribute \"{name}\" came later")));
    }
    match node.attributes.get("to") {
        Some(Attribute::Int(code)) if *code > list::NEWEST_DTYPE => {
            Err(fail(format!("it casts to dtype {code}, which came later")))
        }
        _ => Ok(()),
    }
}

/// Returns the graph of an opset below 18 at opset 18.
fn rebuild(graph: &Graph, opset: i64) -> Result<Graph, UpgradeError> {
    let mut read: HashSet<ValueId> = graph.outputs.iter().copied().collect();
    for node in &graph.nodes {
        read.extend(node.inputs.iter().flatten());
        read.extend(node.captured().filter_map(|name| graph.find(name)));
    }
    let mut builder = Builder::new(&graph.name);
    reserve(&mut builder, graph);
    let mut map: HashMap<ValueId, ValueId> = HashMap::new();
    for id in &graph.inputs {
        map.insert(*id, builder.input(graph.value_name(*id), graph.fact(*id).clone()));
    }
    for (id, ..) in graph.initializers() {
        map.insert(id, builder.copy_value(graph, id));
    }
    for (id, node) in graph.node_ids() {
        let inputs = node.inputs.iter().map(|input| input.map(|id| map[&id])).collect();
        builder.enter(node.origin.clone(), &scope(node, id));
        let mut node = convert::node(&mut builder, node, inputs, &read, opset)?;
        for (_, value) in node.attributes.iter_mut() {
            if let Attribute::Graph(inner) = value {
                inner.graph = rebuild(&inner.graph, opset)?;
            }
        }
        let outputs = builder.copy_node(graph, &node, &node.inputs);
        map.extend(node.outputs.iter().zip(outputs).filter_map(|(old, new)| Some(((*old)?, new?))));
    }
    let mut result = builder.finish();
    result.outputs = graph.outputs.iter().map(|id| map[id]).collect();
    Ok(result)
}

/// Keeps names that the graph uses away from what conversions add before they are copied.
fn reserve(builder: &mut Builder, graph: &Graph) {
    builder.reserve(graph.values.iter().map(|value| value.name.clone()));
    builder.reserve(graph.nodes.iter().map(|node| node.name.clone()));
}

fn scope(node: &Node, id: NodeId) -> String {
    if node.name.is_empty() { format!("{}_{}", node.op.name, id.0) } else { node.name.clone() }
}

#[cfg(test)]
mod tests;
