//! Gives back their own initializer to parameters that an exporter merged.
//!
//! PyTorch's TorchScript exporter keeps one of several initializers of equal value and puts an
//! `Identity` with the parameter's name in the place of each other one. In a fresh model that makes
//! every BatchNorm bias and running mean one tensor, which training would then move as one.
//!
//! Merged are tensors that hold a single number throughout, as fresh scales, biases and statistics
//! do, and those that are a weight under one name and a running statistic under another. An
//! `Identity` of any other initializer is a tie of the model's author and stays.

use super::names::{MAX_LEVELS, is_state_name};
use super::shared::with_identities;
use super::uses::Uses;
use crate::graph::{Builder, Graph, Model, NodeId, Tensor, ValueId};
use std::collections::{BTreeSet, HashMap, HashSet};

/// A model without merged parameters.
#[derive(Clone, Debug)]
pub struct Untied {
    /// The same model, with more initializers and fewer nodes.
    pub model: Model,
    /// Names of the initializers that were added. The file has none of these.
    pub names: Vec<String>,
}

/// Returns the model with merged parameters separated. New initializers stand where they would in
/// registration order: behind the relative that is used last before them.
pub fn untie(model: &Model) -> Untied {
    let model = &with_identities(model);
    let graph = &model.graph;
    let uses = Uses::new(graph);
    let merged: HashMap<NodeId, ValueId> =
        graph.node_ids().filter_map(|(id, _)| Some((id, merged(graph, &uses, id)?))).collect();
    if merged.is_empty() {
        return Untied { model: model.clone(), names: Vec::new() };
    }
    let computed = first_uses(graph, &uses);
    let first_use = |value: ValueId| {
        let readers = uses.direct(value).iter().filter(|reader| !merged.contains_key(&reader.node));
        readers.map(|reader| computed.get(&reader.node).copied().unwrap_or((reader.node, reader.input))).min()
    };
    let mut order = Order::default();
    for (id, ..) in graph.initializers() {
        order.push(graph.value_name(id), first_use(id), id);
    }
    let mut added: Vec<(ValueId, ValueId)> =
        merged.iter().filter_map(|(node, source)| Some((graph.node(*node).output(0)?, *source))).collect();
    added.sort_by_key(|(value, _)| first_use(*value));
    for (value, _) in &added {
        order.place(graph.value_name(*value), first_use(*value), *value);
    }
    let order = order.finish();
    let sources: HashMap<ValueId, ValueId> = added.iter().copied().collect();
    let names = added.iter().map(|(value, _)| graph.value_name(*value).to_string()).collect();
    Untied { model: model.with_graph(rebuild(graph, &order, &sources)), names }
}

/// Returns for each node that computes with weights alone where its result first meets data: exporters put
/// such nodes anywhere before that.
fn first_uses(graph: &Graph, uses: &Uses) -> HashMap<NodeId, (NodeId, usize)> {
    let mut of_data: HashSet<ValueId> = graph.inputs().iter().copied().collect();
    let mut alone: Vec<NodeId> = Vec::new();
    for (id, node) in graph.node_ids() {
        if node.captured().next().is_some() || node.inputs.iter().flatten().any(|value| of_data.contains(value)) {
            of_data.extend(node.outputs.iter().flatten());
        } else {
            alone.push(id);
        }
    }
    let unmet: HashSet<NodeId> = alone.iter().copied().collect();
    let mut first: HashMap<NodeId, (NodeId, usize)> = HashMap::new();
    for id in alone.into_iter().rev() {
        let readers = graph.node(id).outputs.iter().flatten().flat_map(|output| uses.direct(*output));
        let met = readers.filter_map(|reader| match unmet.contains(&reader.node) {
            true => first.get(&reader.node).copied(),
            false => Some((reader.node, reader.input)),
        });
        if let Some(least) = met.min() {
            first.insert(id, least);
        }
    }
    first
}

/// Returns the initializer that a node stands in for, where it is an artefact of the exporter.
fn merged(graph: &Graph, uses: &Uses, id: NodeId) -> Option<ValueId> {
    let node = graph.node(id);
    let (source, output) = (node.input(0)?, node.output(0)?);
    let tensor = graph.value(source).initializer.as_ref()?;
    let name = graph.value_name(output);
    let of_author = name.contains('.') && is_state_name(name);
    if !node.op.is("Identity") || !tensor.dtype().is_float() || !(of_author || name.starts_with("onnx::")) {
        return None;
    }
    let statistic = |value: ValueId| {
        let is_statistic = |reader: &super::uses::Use| {
            graph.node(reader.node).op.is("BatchNormalization") && (reader.input == 3 || reader.input == 4)
        };
        uses.through_views(graph, value).iter().filter(|reader| is_statistic(reader)).count()
    };
    let readers = uses.through_views(graph, source).len();
    let both = statistic(source) > 0 && statistic(source) < readers;
    (is_uniform(tensor) || both).then_some(source)
}

/// Returns true for one number throughout, without looking beyond the first that differs.
fn is_uniform(tensor: &Tensor) -> bool {
    let mut elements = tensor.bytes().chunks_exact(tensor.dtype().size().max(1));
    let first = elements.next();
    elements.all(|element| Some(element) == first)
}

/// Initializers in the order of registration, found by the front of their names and by first use.
#[derive(Default)]
struct Order<'a> {
    relatives: HashMap<&'a str, BTreeSet<(FirstUse, ValueId)>>,
    first: Option<ValueId>,
    last: Option<ValueId>,
    next: HashMap<ValueId, ValueId>,
    before: HashMap<ValueId, ValueId>,
    names: HashMap<ValueId, &'a str>,
}

type FirstUse = Option<(NodeId, usize)>;

impl<'a> Order<'a> {
    fn push(&mut self, name: &'a str, first_use: FirstUse, value: ValueId) {
        self.insert(self.last, value);
        self.remember(name, first_use, value);
    }

    /// Puts a value behind the relative that is used last before it, else in front of the first; a
    /// relative of another child of their common module counts with that whole child.
    fn place(&mut self, name: &'a str, first_use: FirstUse, value: ValueId) {
        let front = fronts(name).rev().find(|front| self.relatives.contains_key(front)).unwrap_or_default();
        let relatives = self.relatives.get(front);
        let behind = relatives.and_then(|all| all.range(..(first_use, value)).next_back());
        let first = relatives.and_then(|all| all.first());
        match (behind, first) {
            (Some((_, behind)), _) => self.insert(Some(self.end(front, *behind, &self.next)), value),
            (None, Some((_, first))) => {
                let first = self.end(front, *first, &self.before);
                self.insert(self.before.get(&first).copied(), value);
            }
            (None, None) => self.insert(self.last, value),
        }
        self.remember(name, first_use, value);
    }

    /// Returns the last of the values from `value` on, in one direction, that are of the same child of
    /// the module `front`.
    fn end(&self, front: &str, value: ValueId, direction: &HashMap<ValueId, ValueId>) -> ValueId {
        let child = |value: &ValueId| {
            let below = self.names.get(value)?.strip_prefix(front)?;
            let (child, _) = below.strip_prefix('.').unwrap_or(below).split_once('.')?;
            Some(child)
        };
        let own = child(&value);
        let next = |value: &ValueId| direction.get(value).copied().filter(|next| own.is_some() && child(next) == own);
        std::iter::successors(Some(value), next).last().unwrap_or(value)
    }

    fn insert(&mut self, behind: Option<ValueId>, value: ValueId) {
        let next = match behind {
            Some(behind) => self.next.insert(behind, value),
            None => self.first.replace(value),
        };
        match next {
            Some(next) => {
                self.next.insert(value, next);
                self.before.insert(next, value);
            }
            None => self.last = Some(value),
        }
        behind.and_then(|behind| self.before.insert(value, behind));
    }

    fn remember(&mut self, name: &'a str, first_use: FirstUse, value: ValueId) {
        self.names.insert(value, name);
        for front in fronts(name) {
            self.relatives.entry(front).or_default().insert((first_use, value));
        }
    }

    fn finish(self) -> Vec<ValueId> {
        std::iter::successors(self.first, |value| self.next.get(value).copied()).collect()
    }
}

/// Returns the fronts of a dotted name that end at a dot, the empty one first.
fn fronts(name: &str) -> impl DoubleEndedIterator<Item = &str> {
    let dots: Vec<usize> = name.match_indices('.').map(|(at, _)| at).take(MAX_LEVELS).collect();
    std::iter::once("").chain(dots.into_iter().map(move |at| &name[..at]))
}

fn rebuild(graph: &Graph, order: &[ValueId], sources: &HashMap<ValueId, ValueId>) -> Graph {
    let mut builder = Builder::new(graph.name());
    let mut map: HashMap<ValueId, ValueId> = HashMap::new();
    for id in graph.inputs() {
        map.insert(*id, builder.input(graph.value_name(*id), graph.fact(*id).clone()));
    }
    for id in order {
        let tensor = graph.value(*sources.get(id).unwrap_or(id)).initializer.clone();
        let tensor = tensor.expect("invariant: the source of a merged parameter is an initializer");
        map.insert(*id, builder.initializer(graph.value_name(*id), tensor));
    }
    for node in graph.nodes() {
        if node.output(0).is_some_and(|output| sources.contains_key(&output)) {
            continue;
        }
        let inputs: Vec<Option<ValueId>> = node.inputs.iter().map(|input| input.map(|id| map[&id])).collect();
        let outputs = builder.copy_node(graph, node, &inputs);
        map.extend(node.outputs.iter().zip(outputs).filter_map(|(old, new)| Some(((*old)?, new?))));
    }
    for id in graph.outputs() {
        builder.mark_output(map[id]);
    }
    builder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_goes_before_or_behind_the_whole_child_beside_it() {
        let at = |node: usize| Some((NodeId(node), 0));
        let mut order = Order::default();
        order.push("b.attn.table", at(5), ValueId(0));
        order.push("b.attn.qkv.weight", at(3), ValueId(1));
        order.push("b.attn.proj.weight", at(6), ValueId(2));
        order.push("b.fc.weight", at(9), ValueId(3));
        order.place("b.norm1.weight", at(2), ValueId(4));
        order.place("b.norm2.weight", at(5), ValueId(5));
        let names = ["table", "qkv", "proj", "fc", "norm1", "norm2"];
        let found: Vec<&str> = order.finish().into_iter().map(|id| names[id.0]).collect();
        assert_eq!(found, ["norm1", "table", "qkv", "proj", "norm2", "fc"]);
    }
}
