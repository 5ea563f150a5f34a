//! Which value of a model is the output of a unit.

use super::Unit;
use crate::graph::{DType, Graph, Node, NodeId, ValueId};
use std::collections::HashSet;

/// The output of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitOutput {
    /// The value.
    pub value: ValueId,
    /// Whether its neurons are axis 1, as in `[N, C, H, W]`; else they are the last axis, as in `[N, T, D]`.
    pub channels: bool,
}

/// Returns the output of each unit: the last value that leaves the nodes of its module, where `module` tells the path
/// of the module that runs a node. A module that runs more than once is looked at where it runs last. Where the
/// parameters are directly on a module with other units in it, or what leaves the module is the same whatever the
/// model's inputs, such as positions, it is the output of the last node that joins a parameter with the data. Outputs
/// are floating-point numbers that depend on the model's inputs; a unit without one has none.
pub fn outputs<'a>(graph: &Graph, units: &[Unit], module: impl Fn(NodeId) -> &'a str) -> Vec<Option<UnitOutput>> {
    let reader = Reader::new(graph);
    let paths: Vec<(NodeId, &str)> = graph.node_ids().map(|(id, _)| (id, module(id))).collect();
    let found = |unit: &Unit| {
        let holds_units = units.iter().any(|other| other.path != unit.path && is_within(&other.path, &unit.path));
        let nodes = paths.iter().filter(|(_, path)| is_within(path, &unit.path)).map(|(id, _)| *id);
        let scope: HashSet<NodeId> = nodes.filter(|_| !holds_units).collect();
        let value = reader.leaving(&scope).or_else(|| reader.joining(unit))?;
        Some(UnitOutput { value, channels: reader.channels(value) })
    };
    units.iter().map(found).collect()
}

fn is_within(path: &str, module: &str) -> bool {
    let rest = path.strip_prefix(module);
    module.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// A graph with what depends on its inputs.
struct Reader<'a> {
    graph: &'a Graph,
    consumers: Vec<Vec<NodeId>>,
    moving: HashSet<ValueId>,
}

impl<'a> Reader<'a> {
    fn new(graph: &'a Graph) -> Reader<'a> {
        let mut moving: HashSet<ValueId> = graph.inputs().iter().copied().collect();
        for node in graph.nodes().iter().filter(|node| !is_shape(node)) {
            let captured = node.captured().filter_map(|name| graph.find(name));
            if node.inputs.iter().flatten().copied().chain(captured).any(|input| moving.contains(&input)) {
                moving.extend(node.outputs.iter().flatten());
            }
        }
        Reader { graph, consumers: graph.consumers(), moving }
    }

    /// Returns the last output that some other node reads.
    fn leaving(&self, scope: &HashSet<NodeId>) -> Option<ValueId> {
        let outside = |reader: &NodeId| !scope.contains(reader) && !is_shape(self.graph.node(*reader));
        let leaves =
            |value: &ValueId| self.graph.outputs().contains(value) || self.consumers[value.0].iter().any(outside);
        let nodes = self.graph.node_ids().filter(|(id, _)| scope.contains(id));
        nodes.filter_map(|(_, node)| self.outputs(node).find(leaves)).last()
    }

    /// Returns the output of the last node that reads both a parameter, or what is computed of parameters alone, and
    /// what depends on the model's inputs.
    fn joining(&self, unit: &Unit) -> Option<ValueId> {
        let own = if unit.parameters.is_empty() { &unit.shared } else { &unit.parameters };
        let mut open: Vec<ValueId> = own.iter().filter_map(|name| self.graph.find(name)).collect();
        let (mut seen, mut joined) = (HashSet::new(), Vec::new());
        while let Some(value) = open.pop() {
            for reader in self.consumers[value.0].iter().filter(|reader| seen.insert(**reader)) {
                let node = self.graph.node(*reader);
                match self.outputs(node).next() {
                    Some(output) => joined.push((self.graph.position(*reader), output)),
                    None if is_shape(node) => {}
                    None => open.extend(node.outputs.iter().flatten()),
                }
            }
        }
        joined.into_iter().max_by_key(|(position, _)| *position).map(|(_, output)| output)
    }

    /// Returns the outputs of a node that a unit's output may be.
    fn outputs(&self, node: &'a Node) -> impl Iterator<Item = ValueId> {
        let float = |value: &ValueId| self.graph.fact(*value).dtype.is_none_or(DType::is_float);
        node.outputs.iter().flatten().copied().filter(move |value| self.moving.contains(value) && float(value))
    }

    /// Returns whether the neurons of a value are its axis 1: by the operator that made it, seen through those that
    /// leave the axes where they are; otherwise where it has four axes or more.
    fn channels(&self, value: ValueId) -> bool {
        let mut current = value;
        for _ in 0..self.graph.nodes().len() {
            let Some(producer) = self.graph.producer(current) else { break };
            let node = self.graph.node(producer);
            match node.op.name.as_str() {
                "Conv"
                | "ConvTranspose"
                | "DeformConv"
                | "BatchNormalization"
                | "InstanceNormalization"
                | "GroupNormalization"
                | "MaxPool"
                | "AveragePool"
                | "LRN" => return true,
                "MatMul" | "Gemm" | "LayerNormalization" | "RMSNormalization" | "Gather" | "LSTM" | "GRU" | "RNN"
                | "Attention" => return false,
                "Transpose" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Einsum" => break,
                _ => {}
            }
            let before = node.inputs.iter().flatten().find(|input| self.moving.contains(input));
            match before {
                Some(before) => current = *before,
                None => break,
            }
        }
        self.graph.fact(value).rank().is_some_and(|rank| rank >= 4)
    }
}

fn is_shape(node: &Node) -> bool {
    matches!(node.op.name.as_str(), "Shape" | "Size")
}
