//! The last resort: one module for each node that reads parameters, in the order of use.
//!
//! A bias or scale that is added to the output of a linear node belongs to that node's module.

use crate::graph::{Graph, Node};
use crate::modules::uses::{Use, source};

/// Returns the path of the module that a parameter's first reader makes: the name of a node.
pub(super) fn path(graph: &Graph, reader: Use) -> String {
    let node = graph.node(reader.node);
    linear_before(graph, node, reader.input).unwrap_or(node).name.clone()
}

fn linear_before<'a>(graph: &'a Graph, node: &Node, input: usize) -> Option<&'a Node> {
    if !matches!(node.op.name.as_str(), "Add" | "Sub" | "Mul" | "Div") || input > 1 {
        return None;
    }
    let before = graph.node(graph.producer(source(graph, node.input(1 - input)?))?);
    let linear = matches!(before.op.name.as_str(), "Conv" | "ConvTranspose" | "Gemm" | "MatMul" | "Einsum");
    let weighted = before.inputs.iter().flatten().any(|id| graph.constant(source(graph, *id)).is_some());
    (linear && weighted).then_some(before)
}
