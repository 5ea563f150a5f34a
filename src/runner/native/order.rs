//! Gradients of weights as early as they can be computed.
//!
//! ONNX Runtime runs a node when a later one needs it, and nothing needs the gradient of a weight: left alone, all of
//! them come last, and every gradient of an activation lives until then. An input that `ConvInputGrad(dy, w, dw)` does
//! not read makes it wait for the gradient of its own weight.

use super::is_own;
use crate::graph::{Node, ValueId};
use std::collections::HashMap;

/// Inputs of `ConvInputGrad` that it reads.
const READ: usize = 2;

/// Returns the inputs of a node that it reads, without one that it only waits for.
pub(in crate::runner) fn read(node: &Node) -> &[Option<ValueId>] {
    let count = if is_own(node, "ConvInputGrad") { READ } else { node.inputs.len() };
    &node.inputs[..count.min(node.inputs.len())]
}

/// Adds the inputs that order gradients.
pub(super) fn weights_first(nodes: &mut [Node]) {
    let gradient = |node: &Node| Some((node.input(1)?, node.output(0)?)).filter(|_| is_own(node, "ConvWeightGrad"));
    let gradients: HashMap<ValueId, ValueId> = nodes.iter().filter_map(gradient).collect();
    for node in nodes.iter_mut().filter(|node| is_own(node, "ConvInputGrad") && node.inputs.len() == READ) {
        let weight = node.input(0).and_then(|dy| gradients.get(&dy));
        node.inputs.extend(weight.map(|weight| Some(*weight)));
    }
}
