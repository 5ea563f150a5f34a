//! Batch normalization, a residual and an activation as one operator, forward and backward.
//!
//! `BatchNormalization(x, scale, bias, residual?) -> y, mean, var, inv_std` computes
//! `y = activation(normalized x + residual)`; `BatchNormalizationGrad(dy, dy2?, y?, x, scale, bias, mean,
//! inv_std) -> dx, dscale, dbias, dresidual?` starts from `dz = (dy + dy2) * activation'(y)`, which is also `dresidual`;
//! without `y` the activation is judged by what `x` gives. The attribute `activation` is `none`, `relu`, or `clip` with
//! `min` and `max`. With given statistics they are `FixedNormalization(x, scale, bias, mean, var, residual?) -> y` and
//! `FixedNormalizationGrad(dy, dy2?, y?, x, scale, bias, mean, var) -> dx, dscale, dbias, dresidual?`.

use super::absorb::absorb;
use super::order::weights_first;
use super::running::statistics;
use super::{Target, applies_statistics, convolution, in_order, is_own, normalizes};
use crate::autodiff::own;
use crate::graph::{Attributes, Builder, Graph, Node, NodeId, Origin, ValueId};
use std::collections::{HashMap, HashSet};

/// Returns the graph with chains fused, convolutions of images in our operator, and without outputs of our operators that nobody reads.
pub(super) fn fuse(graph: &Graph, target: Target) -> Graph {
    let view = View::of(graph);
    let mut nodes: Vec<Option<Node>> = graph.nodes().iter().cloned().map(Some).collect();
    let mut taken: HashSet<NodeId> = HashSet::new();
    statistics(graph, &view, &mut nodes);
    for (id, node) in graph.node_ids() {
        if normalizes(node) || applies_statistics(graph, node) {
            forward(graph, &view, id, &mut nodes, &mut taken);
        }
    }
    for (id, node) in graph.node_ids() {
        if is_own(node, "BatchNormalizationGrad") || is_own(node, "FixedNormalizationGrad") {
            backward(graph, &view, id, &mut nodes, &mut taken);
        }
    }
    let ours = |node: Node| convolution(graph, &node).unwrap_or(node);
    let nodes = nodes.into_iter().flatten().map(ours).collect();
    let mut nodes = if target == Target::Processor { absorb(graph, nodes) } else { nodes };
    let read: HashSet<ValueId> = nodes.iter().flat_map(|node| node.inputs.iter().flatten().copied()).collect();
    for node in nodes.iter_mut().filter(|node| node.op.domain == crate::graph::INTERNAL_DOMAIN) {
        for output in &mut node.outputs {
            *output = output.filter(|id| read.contains(id) || graph.outputs().contains(id));
        }
    }
    weights_first(&mut nodes);
    rebuilt(graph, in_order(graph, nodes))
}

/// What reads what.
pub(super) struct View {
    pub(super) readers: Vec<Vec<NodeId>>,
    pub(super) outputs: HashSet<ValueId>,
}

impl View {
    fn of(graph: &Graph) -> View {
        View { readers: graph.consumers(), outputs: graph.outputs().iter().copied().collect() }
    }

    /// Returns the only reader of a value that is no output of the graph.
    pub(super) fn only_reader(&self, value: ValueId) -> Option<NodeId> {
        match self.readers[value.0].as_slice() {
            [one] if !self.outputs.contains(&value) => Some(*one),
            _ => None,
        }
    }
}

/// Returns the attributes of an activation node.
fn activation(graph: &Graph, node: &Node) -> Option<Attributes> {
    if node.op.is("Relu") || is_own(node, "ReluGrad") {
        return Some(Attributes::none().with("activation", "relu"));
    }
    let (mut min, mut max) = (f32::NEG_INFINITY, f32::INFINITY);
    if is_own(node, "ClipGrad") {
        min = node.attributes.float("min", min).ok()?;
        max = node.attributes.float("max", max).ok()?;
    } else if node.op.is("Clip") && node.attributes.iter().next().is_none() {
        for (index, bound) in [(1, &mut min), (2, &mut max)] {
            if let Some(value) = node.input(index) {
                *bound = *graph.constant(value)?.to_f64s()?.first()? as f32;
            }
        }
    } else {
        return None;
    }
    Some(Attributes::none().with("activation", "clip").with("min", min).with("max", max))
}

fn forward(graph: &Graph, view: &View, id: NodeId, nodes: &mut [Option<Node>], taken: &mut HashSet<NodeId>) {
    let node = graph.node(id);
    let Some(mut y) = node.output(0) else { return };
    let (mut at, mut residual, mut attributes) = (id, None, Attributes::none().with("activation", "none"));
    if let Some(next) = view.only_reader(y) {
        let add = graph.node(next);
        let fact = graph.fact(y);
        let other = add.inputs.iter().flatten().find(|input| **input != y);
        let other = other.filter(|other| add.op.is("Add") && same(graph, y, **other) && !taken.contains(&next));
        let sum = add.output(0).filter(|sum| graph.fact(*sum).rank() == fact.rank());
        if let (Some(other), Some(sum)) = (other, sum) {
            taken.insert(next);
            (residual, y, at) = (Some(*other), sum, next);
        }
    }
    if let Some(next) = view.only_reader(y) {
        let last = graph.node(next);
        if let (Some(found), Some(output)) = (activation(graph, last), last.output(0))
            && last.input(0) == Some(y)
            && last.op.domain.is_empty()
        {
            (attributes, y, at) = (found, output, next);
            if let Some(sum) = residual.and(last.input(0)).and_then(|sum| graph.producer(sum)) {
                nodes[sum.0] = None;
            }
        }
    }
    for (name, value) in node.attributes.iter() {
        attributes.set(name, value.clone());
    }
    let mut inputs = node.inputs.clone();
    inputs.truncate(if normalizes(node) { 3 } else { 5 });
    inputs.extend(residual.map(Some));
    let (op, outputs) = if normalizes(node) {
        (node.op.clone(), vec![Some(y), node.output(1), node.output(2), node.output(4)])
    } else {
        (own("FixedNormalization"), vec![Some(y)])
    };
    nodes[id.0] = None;
    nodes[at.0] = Some(Node { op, inputs, outputs, attributes, ..node.clone() });
}

/// Returns true where two values have one shape.
fn same(graph: &Graph, a: ValueId, b: ValueId) -> bool {
    let (a, b) = (&graph.fact(a).shape, &graph.fact(b).shape);
    a.as_ref().zip(b.as_ref()).is_some_and(|(a, b)| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b)))
}

fn backward(graph: &Graph, view: &View, id: NodeId, nodes: &mut [Option<Node>], taken: &mut HashSet<NodeId>) {
    let node = graph.node(id);
    let Some((normal, rest)) = parameters(graph, view, node) else { return };
    let (Some(dz), Some(x)) = (node.input(0), node.input(1)) else { return };
    let (mut dys, mut y, mut attributes) = ([Some(dz), None], None, Attributes::none().with("activation", "none"));
    let mut outputs = node.outputs.clone();
    let masked = graph.producer(dz).filter(|id| !taken.contains(id));
    if let Some((mask, found)) = masked.and_then(|id| Some((id, activation(graph, graph.node(id))?))) {
        let masked = graph.node(mask);
        if masked.op.domain == crate::graph::INTERNAL_DOMAIN {
            taken.insert(mask);
            nodes[mask.0] = None;
            attributes = found;
            (dys, y) = ([masked.input(0), None], masked.input(1).filter(|y| !follows(graph, normal, *y)));
            let read_by_others = view.readers[dz.0].len() > 1 || view.outputs.contains(&dz);
            outputs.push(Some(dz).filter(|_| read_by_others));
        }
    }
    let sum = dys[0].filter(|dy| view.only_reader(*dy).is_some()).and_then(|dy| graph.producer(dy));
    if let Some(sum) = sum.filter(|sum| graph.node(*sum).op.is("Sum") && graph.node(*sum).inputs.len() == 2) {
        let parts = &graph.node(sum).inputs;
        let fits = |part: &Option<ValueId>| part.is_some_and(|part| same(graph, part, x));
        if parts.iter().all(fits) {
            dys = [parts[0], parts[1]];
            nodes[sum.0] = None;
        }
    }
    let inputs = [vec![dys[0], dys[1], y, Some(x)], rest].concat();
    attributes.set("epsilon", node.attributes.float("epsilon", 1e-5).unwrap_or(1e-5));
    nodes[id.0] = Some(Node { inputs, outputs, attributes, ..node.clone() });
}

/// Returns the normalization that a gradient is of, with scale, bias and statistics.
fn parameters<'g>(graph: &'g Graph, view: &View, node: &Node) -> Option<(&'g Node, Vec<Option<ValueId>>)> {
    if is_own(node, "BatchNormalizationGrad") {
        let normal = graph.node(graph.producer(node.input(3)?)?);
        let rest = vec![node.input(2), normal.input(2), node.input(3), node.input(4)];
        return normalizes(normal).then_some((normal, rest));
    }
    let same = |of: &&Node| applies_statistics(graph, of) && of.inputs[1..] == node.inputs[2..];
    let mut readers = view.readers[node.input(1)?.0].iter().map(|id| graph.node(*id));
    Some((readers.find(same)?, node.inputs[2..].to_vec()))
}

/// Returns true where a value is an activation of what a normalization gives, with nothing added to it.
fn follows(graph: &Graph, normal: &Node, value: ValueId) -> bool {
    let producer = graph.producer(value).map(|id| graph.node(id));
    producer.is_some_and(|node| node.input(0).is_some() && node.input(0) == normal.output(0))
}

/// Returns a graph of these nodes.
pub(super) fn rebuilt(graph: &Graph, nodes: Vec<Node>) -> Graph {
    let mut b = Builder::new(graph.name());
    b.reserve(graph.values().map(|(_, value)| value.name.clone()));
    let mut map: HashMap<ValueId, ValueId> = HashMap::new();
    for id in graph.inputs() {
        map.insert(*id, b.input(graph.value_name(*id), graph.fact(*id).clone()));
    }
    for (id, ..) in graph.initializers() {
        map.insert(id, b.copy_value(graph, id));
    }
    for node in &nodes {
        b.enter(Origin::Forward, &node.name);
        let inputs: Vec<Option<ValueId>> = node.inputs.iter().map(|input| input.map(|id| map[&id])).collect();
        let outputs = b.copy_node(graph, node, &inputs);
        map.extend(node.outputs.iter().zip(outputs).filter_map(|(old, new)| Some(((*old)?, new?))));
    }
    for output in graph.outputs() {
        b.mark_output(map[output]);
    }
    b.finish()
}
