//! Normalization that a convolution applies while it reads its input.
//!
//! Where only convolutions read what a normalization gives, `y = activation(scale (x - mean) inv_std + bias)` is never
//! written: the normalization computes its statistics alone, or is gone where they are given, and
//! `Conv(x, w, b?, scale, bias, mean, spread)` and `ConvWeightGrad(x, dy, scale, bias, mean, spread)` take `x` itself.
//! Their attribute `activation` is `none`, `relu`, or `clip` with `min` and `max`; `spread` is `inv_std`, or the variance
//! where there is an attribute `epsilon`.

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
    let mut gone = vec![false; nodes.len()];
    for index in 0..nodes.len() {
        let node = &nodes[index];
        let Some(y) = node.output(0).filter(|y| is_plain(node) && !graph.outputs().contains(y)) else { continue };
        let fits = |readers: &&Vec<usize>| readers.iter().all(|at| takes(graph, &nodes[*at], y));
        let Some(readers) = readers.get(&y).filter(fits) else { continue };
        let statistics =
            if normalizes(node) { [node.output(1), node.output(3)] } else { [node.input(3), node.input(4)] };
        let from = [node.input(0), node.input(1), node.input(2), statistics[0], statistics[1]];
        let given = (!normalizes(node)).then(|| node.attributes.float("epsilon", 1e-5).unwrap_or(1e-5));
        let kept = ["activation", "min", "max"].map(|name| (name, node.attributes.get(name).cloned()));
        for reader in readers {
            let reader = &mut nodes[*reader];
            reader.inputs[0] = from[0];
            reader.inputs.resize(if is_own(reader, "Conv") { 3 } else { 2 }, None);
            reader.inputs.extend(&from[1..]);
            for (name, value) in &kept {
                if let Some(value) = value {
                    reader.attributes.set(name, value.clone());
                }
            }
            if let Some(epsilon) = given {
                reader.attributes.set("epsilon", epsilon);
            }
        }
        nodes[index].outputs[0] = None;
        gone[index] = given.is_some();
    }
    let mut gone = gone.into_iter();
    nodes.retain(|_| gone.next() != Some(true));
    nodes
}

/// Returns true for a normalization to which nothing is added.
fn is_plain(node: &Node) -> bool {
    let whole = node.outputs.iter().all(Option::is_some);
    let batch = normalizes(node) && node.inputs.len() == 3 && node.outputs.len() == 4;
    let given = is_own(node, "FixedNormalization") && node.inputs.len() == 5;
    whole && (batch || given) && node.attributes.get("activation").is_some()
}

/// Returns true for a convolution, or a gradient of its weights, that reads a value as its image alone and can
/// normalize it.
fn takes(graph: &Graph, node: &Node, value: ValueId) -> bool {
    let alone = node.inputs.iter().filter(|input| **input == Some(value)).count() == 1;
    let free = node.attributes.get("activation").is_none();
    let channels = |id: Option<ValueId>, axis: usize| graph.fact(id?).shape.as_ref()?.get(axis)?.known();
    let inputs = channels(Some(value), 1);
    let outputs = if is_own(node, "Conv") { channels(node.input(1), 0) } else { channels(node.input(1), 1) };
    let group = node.attributes.int("group", 1).ok().and_then(|group| usize::try_from(group).ok());
    let depthwise = group.is_some() && group == inputs && inputs == outputs;
    let convolves = is_own(node, "Conv") || is_own(node, "ConvWeightGrad");
    convolves && (group == Some(1) || depthwise) && alone && free && node.input(0) == Some(value)
}
