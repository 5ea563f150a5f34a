//! The last resort: one module for each node that reads parameters, in the order of use.
//!
//! A bias or scale that is added to the output of a linear node belongs to that node's module.

use crate::graph::{Graph, Node, NodeId};
use crate::modules::uses::{Use, source};

/// Returns the node that a parameter's first reader makes a module of.
pub(super) fn node(graph: &Graph, reader: Use) -> NodeId {
    linear_before(graph, graph.node(reader.node), reader.input).unwrap_or(reader.node)
}

fn linear_before(graph: &Graph, node: &Node, input: usize) -> Option<NodeId> {
    if !matches!(node.op.name.as_str(), "Add" | "Sub" | "Mul" | "Div") || input > 1 {
        return None;
    }
    let id = graph.producer(source(graph, node.input(1 - input)?))?;
    let before = graph.node(id);
    let linear = matches!(before.op.name.as_str(), "Conv" | "ConvTranspose" | "Gemm" | "MatMul" | "Einsum");
    let weighted = before.inputs.iter().flatten().any(|id| is_fixed(graph, source(graph, *id)));
    (linear && weighted).then_some(id)
}

fn is_fixed(graph: &Graph, value: crate::graph::ValueId) -> bool {
    let made = graph.producer(value).map(|id| graph.node(id));
    graph.value(value).initializer.is_some() || made.is_some_and(|node| node.op.is("Constant"))
}
