//! From a graph to the nodes of a [`CostModel`].

use super::flops::{NodeFlops, Uncounted, node_counts, node_flops};
use super::model::{Alias, CostModel, Edge, Fixed, Form, Input, Keeps, NodeCost, Source, Varies};
use super::products::{Shapes, batch_norm_of};
use super::stash::{self, Keep};
use super::whole::Whole;
use crate::graph::{DType, Graph, Node, NodeId, ValueId};
use crate::modules::uses::carries_gradient;
use std::collections::{HashMap, HashSet};

/// Returns the first dimension that the model's inputs share; 1 where they differ.
pub(super) fn batch(graph: &Graph) -> u64 {
    let mut sizes = graph.inputs().iter().filter_map(|id| graph.fact(*id).dim(0)?.known());
    let first = sizes.next().unwrap_or(1);
    if sizes.all(|size| size == first) { (first as u64).max(1) } else { 1 }
}

/// Reads a graph into the nodes of a [`CostModel`].
pub(super) struct Reader<'a> {
    graph: &'a Graph,
    parameters: &'a HashMap<ValueId, usize>,
    statistics: HashSet<ValueId>,
    inputs: HashSet<ValueId>,
    live: Vec<bool>,
    of_weights: Vec<bool>,
    /// What a value that is a view is a view of.
    views: HashMap<ValueId, ValueId>,
    /// The tensors that may be kept.
    kept: HashMap<ValueId, usize>,
    /// The group that a node is a part of.
    wholes: HashMap<NodeId, &'a Whole>,
}

impl<'a> Reader<'a> {
    /// Returns a reader of `graph` with its running statistics and the positions of its trainable parameters.
    pub(super) fn new(
        graph: &'a Graph,
        statistics: HashSet<ValueId>,
        parameters: &'a HashMap<ValueId, usize>,
    ) -> Reader<'a> {
        Reader {
            graph,
            parameters,
            statistics,
            inputs: graph.inputs().iter().copied().collect(),
            live: live(graph),
            of_weights: vec![false; graph.nodes().len()],
            views: HashMap::new(),
            kept: HashMap::new(),
            wholes: HashMap::new(),
        }
    }

    /// Returns the reader with the groups of nodes that are one operator.
    pub(super) fn with_wholes(mut self, wholes: &'a [Whole]) -> Reader<'a> {
        self.wholes = wholes.iter().flat_map(|whole| whole.parts.iter().map(move |part| (*part, whole))).collect();
        self
    }

    /// Appends the nodes to `costs`.
    pub(super) fn read(mut self, costs: &mut CostModel) {
        for (id, node) in self.graph.node_ids() {
            if let (Some(input), Some(output)) = (stash::viewed(self.graph, node), node.output(0)) {
                self.views.insert(output, self.source(input));
            }
            let captured = node.captured().next().is_some();
            self.of_weights[id.0] = !captured && node.inputs.iter().flatten().all(|value| self.is_of_weights(*value));
            let counted = node_flops(self.graph, node);
            let flops = counted.clone().unwrap_or_else(|reason| {
                costs.miss(node, reason);
                NodeFlops::none(node.inputs.len())
            });
            let keeps = match self.wholes.get(&id).copied() {
                Some(whole) if whole.root == id => self.keeps_of_whole(whole, node, costs),
                Some(_) => Vec::new(),
                None => self.keeps(node, costs, None),
            };
            let mut form = Form { flops, keeps };
            let mut fixed = None;
            let mut varies = match counted {
                Err(Uncounted::Operator | Uncounted::Subgraph) => Some(Varies::Unknown),
                _ => is_random(self.graph, node).then_some(Varies::Random),
            };
            let moving = node.input(3).filter(|mean| self.statistics.contains(mean));
            if let Some(mean) = moving.filter(|_| node.op.is("BatchNormalization")) {
                let affine = [1, 2].into_iter().filter_map(|index| node.input(index));
                let affine = affine.filter(|value| self.parameters.contains_key(value)).count() > 0;
                let unless = costs.stays(self.graph.value_name(mean));
                let shapes = Shapes { graph: self.graph, node };
                let in_form = |of_batch| batch_norm_of(&shapes, of_batch).map(|counts| node_counts(&shapes, &counts));
                let keeps = self.keeps(node, costs, Some(stash::BATCH_NORM));
                let of_batch = Form { flops: in_form(true).unwrap_or_else(|| form.flops.clone()), keeps };
                form.flops = in_form(false).unwrap_or(form.flops);
                fixed = Some(Fixed { form: std::mem::replace(&mut form, of_batch), unless, affine });
                varies = Some(Varies::Batch);
            }
            if let Some(y) = node.output(0).filter(|_| stash::is_random_dropout(self.graph, node)) {
                let unless = costs.stays(self.graph.value_name(y));
                let none = Form { flops: NodeFlops::none(node.inputs.len()), keeps: Vec::new() };
                fixed = Some(Fixed { form: none, unless, affine: false });
                let of = node.input(0).and_then(|x| self.tensor(x, costs));
                let tensor = self.tensor(y, costs);
                costs.aliases.extend(tensor.map(|tensor| Alias { tensor, of, unless }));
            }
            let inputs = node.inputs.iter().enumerate().map(|(index, value)| self.input(node, index, *value)).collect();
            costs.nodes.push(NodeCost {
                name: node.name.clone(),
                form,
                fixed,
                live: self.live[id.0],
                inputs,
                sources: self.sources(node),
                of_weights: self.of_weights[id.0],
                varies,
            });
        }
    }

    fn source(&self, value: ValueId) -> ValueId {
        self.views.get(&value).copied().unwrap_or(value)
    }

    fn is_of_weights(&self, value: ValueId) -> bool {
        match self.graph.producer(value) {
            Some(NodeId(producer)) => self.of_weights[producer],
            None => !self.inputs.contains(&value),
        }
    }

    fn input(&self, node: &Node, index: usize, value: Option<ValueId>) -> Input {
        let Some(value) = value else { return Input::Stop };
        let float = self.graph.fact(value).dtype.is_none_or(DType::is_float);
        if !float || !carries_gradient(node, index) {
            return Input::Stop;
        }
        match (self.parameters.get(&value), self.graph.producer(value)) {
            (Some(parameter), _) => Input::Parameter(*parameter),
            (None, Some(NodeId(by))) => Input::Made { by, weight: self.of_weights[by] },
            (None, None) => Input::Stop,
        }
    }

    fn sources(&self, node: &Node) -> Vec<Source> {
        let captured = node.captured().filter_map(|name| self.graph.find(name));
        let source = |value: ValueId| match (self.parameters.get(&value), self.graph.producer(value)) {
            (Some(parameter), _) => Some(Source::Parameter(*parameter)),
            (None, Some(NodeId(by))) => Some(Source::Node(by)),
            (None, None) => None,
        };
        node.inputs.iter().flatten().copied().chain(captured).filter_map(source).collect()
    }

    /// Returns what the gradients keep, by the stash table or as `table` says: one entry for each run of
    /// inputs whose gradients read the same.
    fn keeps(&mut self, node: &Node, costs: &mut CostModel, table: Option<&[&'static [Keep]]>) -> Vec<Keeps> {
        let reads = |index: usize| match table {
            Some(table) => table.get(index).or(table.last()).copied().unwrap_or_default(),
            None => stash::reads(self.graph, node, index),
        };
        let all: Vec<&[Keep]> = (0..node.inputs.len()).map(reads).collect();
        let mut own: HashMap<Keep, usize> = HashMap::new();
        let mut keeps = Vec::new();
        let mut first = 0;
        for same in all.chunk_by(|a, b| a == b) {
            let list = same.first().copied().unwrap_or_default();
            let tensors = list.iter().flat_map(|keep| self.tensors(*keep, node, &mut own, costs)).collect();
            keeps.push(Keeps { inputs: first..first + same.len(), tensors });
            first += same.len();
        }
        keeps
    }

    /// Returns what the gradients of a group keep, by the inputs of the node that gives its result.
    fn keeps_of_whole(&mut self, whole: &Whole, node: &Node, costs: &mut CostModel) -> Vec<Keeps> {
        let reads = whole.reads();
        let x = whole.inputs.first().copied().flatten();
        let own = x.and_then(|x| stash::bytes(self.graph, x));
        let rows = x.zip(whole.axis).and_then(|(x, axis)| stash::row_bytes(self.graph, x, axis));
        let mut tensors: Vec<usize> = (0..reads.own).map(|_| costs.keep(own)).collect();
        tensors.extend((0..reads.rows).map(|_| costs.keep(rows)));
        let values = [x.filter(|_| reads.input), node.output(0).filter(|_| reads.output)];
        tensors.extend(values.into_iter().flatten().filter_map(|value| self.tensor(value, costs)));
        let bias = |index: &usize| {
            let value = node.input(*index);
            value.is_some() && whole.inputs.get(2).copied().flatten() == value
        };
        let read = (0..node.inputs.len()).filter(|index| !bias(index));
        read.map(|index| Keeps { inputs: index..index + 1, tensors: tensors.clone() }).collect()
    }

    /// Returns the tensors that one thing which a gradient reads is; `own` are those of the node itself.
    fn tensors(
        &mut self,
        keep: Keep,
        node: &Node,
        own: &mut HashMap<Keep, usize>,
        costs: &mut CostModel,
    ) -> Vec<usize> {
        let values: Vec<ValueId> = match keep {
            Keep::Input(input) => node.input(input).into_iter().collect(),
            Keep::Output(output) => node.output(output).into_iter().collect(),
            Keep::Inputs => node.inputs.iter().flatten().copied().collect(),
            Keep::Rows(output) if node.output(output).is_some() => node.output(output).into_iter().collect(),
            Keep::Rows(_) => {
                let float32 = node.input(0).is_some_and(|x| self.graph.fact(x).dtype == Some(DType::F32));
                let bytes = stash::statistic_bytes(self.graph, node);
                return float32.then(|| *own.entry(keep).or_insert_with(|| costs.keep(bytes))).into_iter().collect();
            }
            Keep::Like(_) | Keep::Mask | Keep::Positions => {
                let elements = || node.output(0).and_then(|value| stash::elements(self.graph, value));
                let bytes = match keep {
                    Keep::Like(input) => node.input(input).and_then(|value| stash::bytes(self.graph, value)),
                    Keep::Positions => elements().and_then(|elements| elements.checked_mul(8)),
                    _ => elements(),
                };
                return vec![*own.entry(keep).or_insert_with(|| costs.keep(bytes))];
            }
        };
        values.into_iter().filter_map(|value| self.tensor(value, costs)).collect()
    }

    /// Returns the tensor that a value is or views; `None` for one that is there anyway.
    fn tensor(&mut self, value: ValueId, costs: &mut CostModel) -> Option<usize> {
        let source = self.source(value);
        if self.is_of_weights(source) || self.graph.producer(source).is_none() {
            return None;
        }
        let graph = self.graph;
        Some(*self.kept.entry(source).or_insert_with(|| costs.keep(stash::bytes(graph, source))))
    }
}

fn is_random(graph: &Graph, node: &Node) -> bool {
    let draws = ["RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"];
    stash::is_random_dropout(graph, node) || draws.into_iter().any(|op| node.op.is(op))
}

/// Returns what each node makes, and who reads it.
pub(super) fn edges(graph: &Graph) -> Vec<Edge> {
    let mut readers = graph.consumers();
    let outputs: HashSet<ValueId> = graph.outputs().iter().copied().collect();
    let mut edges = Vec::new();
    for (id, node) in graph.node_ids() {
        for output in node.outputs.iter().flatten() {
            let readers = readers.get_mut(output.0).map(std::mem::take).unwrap_or_default();
            let mut to: Vec<usize> = readers.into_iter().map(|reader| reader.0).collect();
            if outputs.contains(output) {
                to.push(usize::MAX);
            }
            edges.push(Edge { from: id.0, to, bytes: stash::bytes(graph, *output).unwrap_or(0) });
        }
    }
    edges
}

/// Returns for each node whether a gradient of a graph output can reach it.
fn live(graph: &Graph) -> Vec<bool> {
    let float = |value: &ValueId| graph.fact(*value).dtype.is_none_or(DType::is_float);
    let mut wanted: HashSet<ValueId> = graph.outputs().iter().copied().filter(float).collect();
    let mut live = vec![false; graph.nodes().len()];
    for (index, node) in graph.nodes().iter().enumerate().rev() {
        live[index] = node.outputs.iter().flatten().any(|output| wanted.contains(output));
        if live[index] {
            let inputs = node.inputs.iter().enumerate().filter(|(index, _)| carries_gradient(node, *index));
            wanted.extend(inputs.filter_map(|(_, value)| *value).filter(float));
        }
    }
    live
}
