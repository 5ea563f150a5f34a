//! Normalization that a convolution applies while it reads its input.
//!
//! Where only convolutions read what a normalization gives, `y = activation(scale (x - mean) inv_std + bias)` is never
//! written: the normalization computes its statistics, and `Conv(x, w, b?, scale, bias, mean, inv_std)` and
//! `ConvWeightGrad(x, dy, scale, bias, mean, inv_std)` with an attribute `activation` (`none` or `relu`) take `x` itself.

use super::{is_own, normalizes};
use crate::graph::{Graph, Node, ValueId};
use std::collections::HashMap;

/// Returns the nodes with normalizations absorbed by the convolutions that follow.
pub(super) fn absorb(graph: &Graph, mut nodes: Vec<Node>) -> Vec<Node> {
    let mut readers: HashMap<ValueId, Vec<usize>> = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        let captured = node.captured().filter_map(|name| graph.find(name));
        for input in node.inputs.iter().flatten().copied().chain(captured) {
            readers.entry(input).or_default().push(index);
        }
    }
    for index in 0..nodes.len() {
        let node = &nodes[index];
        let Some(y) = node.output(0).filter(|y| is_plain(node) && !graph.outputs().contains(y)) else { continue };
        let Some(readers) = readers.get(&y).filter(|readers| readers.iter().all(|at| takes(&nodes[*at], y))) else {
            continue;
        };
        let Some(activation) = node.attributes.get("activation").cloned() else { continue };
        let from = [node.input(0), node.input(1), node.input(2), node.output(1), node.output(3)];
        for reader in readers {
            let reader = &mut nodes[*reader];
            reader.inputs[0] = from[0];
            reader.inputs.resize(if is_own(reader, "Conv") { 3 } else { 2 }, None);
            reader.inputs.extend(&from[1..]);
            reader.attributes.set("activation", activation.clone());
        }
        nodes[index].outputs[0] = None;
    }
    nodes
}

/// Returns true for a normalization by the batch's statistics with at most a Relu.
fn is_plain(node: &Node) -> bool {
    let kind = node.attributes.text("activation", "").unwrap_or_default();
    let whole = node.outputs.len() == 4 && node.outputs.iter().all(Option::is_some);
    normalizes(node) && node.inputs.len() == 3 && whole && (kind == "none" || kind == "relu")
}

/// Returns true for a convolution, or a gradient of its weights, that reads a value as its image alone and can
/// normalize it.
fn takes(node: &Node, value: ValueId) -> bool {
    let whole = node.attributes.int("group", 1) == Ok(1);
    let alone = node.inputs.iter().filter(|input| **input == Some(value)).count() == 1;
    let free = node.attributes.get("activation").is_none();
    let convolves = is_own(node, "Conv") || is_own(node, "ConvWeightGrad");
    convolves && whole && alone && free && node.input(0) == Some(value)
}
