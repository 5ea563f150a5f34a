//! Evaluates shape arithmetic, sequences and known branches away.

use super::sequences::{From, PASSES, Sequences, makes_sequence, part_sizes};
use super::small::Small;
use super::walk::Known;
use crate::graph::{
    Attribute, Attributes, Builder, Graph, Model, Node, NodeId, OpId, Replaced, Subgraph, ValueId, prune, rebuild,
};
use std::collections::{HashMap, HashSet};

/// Returns the model in which every small value that follows from fixed shapes and constants is an
/// initializer under its own name, and in which a tensor taken out of a sequence of known length is
/// taken from where it was made: `SplitToSequence` becomes `Split`, `ConcatFromSequence` `Concat`.
/// An `If` of a known condition becomes the branch that it takes, and a list that a `Loop` fills a scan
/// output.
///
/// What depends on a named size stays as it is, and so does what follows from an initializer in
/// `keep`, which the caller wants to change. The model must have opset 18 or later.
pub fn fold(model: &Model, keep: &HashSet<&str>) -> Model {
    let listless = super::lists::stacked(model);
    let model = listless.as_ref().unwrap_or(model);
    let graph = &model.graph;
    let known = Known::of(model, &[], &[]);
    let moving = moving(graph, keep.iter().filter_map(|name| graph.find(name)).collect());
    let mut named: HashSet<ValueId> = graph.outputs().iter().copied().collect();
    named.extend(graph.nodes().iter().flat_map(|node| node.captured().filter_map(|name| graph.find(name))));
    let plan = Plan { graph, known: &known, gone: unread_sequences(graph, &known, &named), named };
    let mut places: HashMap<From, ValueId> = HashMap::new();
    let mut next = 0;
    let folded = rebuild(graph, |b, node, inputs| {
        let id = NodeId(next);
        next += 1;
        for (old, new) in node.inputs.iter().zip(inputs) {
            if let (Some(old), Some(new)) = (old, new) {
                places.insert(From::Value(*old), *new);
            }
        }
        if let Some(replaced) = plan.sequence(b, (id, node), inputs, &mut places) {
            return Some(replaced);
        }
        let outputs: Vec<ValueId> = node.outputs.iter().flatten().copied().collect();
        if has_subgraph(node) {
            let still = node.op.is("If") && !outputs.iter().any(|output| moving.contains(output));
            let inlined = if still { super::branch::inline(b, &known, graph, node) } else { None };
            return inlined.or_else(|| {
                let node = Node { attributes: subgraphs(&known, graph, node, &moving), ..node.clone() };
                Some(b.copy_node(graph, &node, inputs))
            });
        }
        if outputs.len() < node.outputs.len() {
            return None;
        }
        if outputs.iter().any(|output| plan.graph.outputs().contains(output) || moving.contains(output)) {
            return None;
        }
        let tensor = |output: &ValueId| known.small(graph, *output)?.tensor(known.facts[output.0].dtype?);
        let tensors = outputs.iter().map(tensor).collect::<Option<Vec<_>>>()?;
        let replaced =
            outputs.iter().zip(tensors).map(|(output, tensor)| b.initializer(graph.value_name(*output), tensor));
        Some(replaced.map(Some).collect())
    });
    model.with_graph(folded)
}

/// Returns the values that depend on some that will change.
fn moving(graph: &Graph, mut moving: HashSet<ValueId>) -> HashSet<ValueId> {
    for node in graph.nodes() {
        let captured = || node.captured().filter_map(|name| graph.find(name)).any(|id| moving.contains(&id));
        let reads = node.inputs.iter().flatten().any(|input| moving.contains(input)) || captured();
        if reads && !matches!(node.op.name.as_str(), "Shape" | "Size") {
            moving.extend(node.outputs.iter().flatten());
        }
    }
    moving
}

fn has_subgraph(node: &Node) -> bool {
    node.attributes.iter().any(|(_, value)| matches!(value, Attribute::Graph(_)))
}

/// Returns the attributes of a node with its subgraphs folded, their facts completed.
fn subgraphs(known: &Known, graph: &Graph, node: &Node, moving: &HashSet<ValueId>) -> Attributes {
    let mut attributes = node.attributes.clone();
    for (_, value) in attributes.iter_mut() {
        let Attribute::Graph(inner) = value else { continue };
        let formal = match node.op.name.as_str() {
            "If" => Some(Vec::new()),
            "Scan" | "Loop" => super::steps::formal(known, graph, node, inner),
            _ => None,
        };
        let found = formal.and_then(|formal| known.inside(graph, inner, &formal));
        if let Some(found) = found {
            **inner = folded(&found, graph, inner, moving);
        }
    }
    attributes
}

fn folded(known: &Known, outer: &Graph, inner: &Subgraph, moving: &HashSet<ValueId>) -> Subgraph {
    let graph = inner.graph.with_facts(known.facts.clone());
    let given = inner.formal_inputs();
    let moves = |id: &ValueId| outer.find(graph.value_name(*id)).is_some_and(|id| moving.contains(&id));
    let start = graph.inputs()[given.len()..].iter().filter(|id| moves(id)).chain(given).copied().collect();
    let moving = self::moving(&graph, start);
    let named: HashSet<&str> = graph.nodes().iter().flat_map(Node::captured).collect();
    let folded = rebuild(&graph, |b, node, inputs| {
        if has_subgraph(node) {
            let node = Node { attributes: subgraphs(known, &graph, node, &moving), ..node.clone() };
            return Some(b.copy_node(&graph, &node, inputs));
        }
        let outputs = node.outputs.iter().copied().collect::<Option<Vec<ValueId>>>()?;
        let stays =
            |id: &ValueId| graph.outputs().contains(id) || moving.contains(id) || named.contains(graph.value_name(*id));
        if outputs.iter().any(stays) {
            return None;
        }
        let tensor = |output: &ValueId| known.small(&graph, *output)?.tensor(known.facts[output.0].dtype?);
        let tensors = outputs.iter().map(tensor).collect::<Option<Vec<_>>>()?;
        let replaced = outputs.iter().zip(tensors).map(|(id, tensor)| b.initializer(graph.value_name(*id), tensor));
        Some(replaced.map(Some).collect())
    });
    reread(folded, given.len())
}

/// Returns a subgraph that captures only what it reads.
fn reread(mut graph: Graph, given: usize) -> Subgraph {
    graph = prune(&graph);
    let read: HashSet<ValueId> = graph
        .nodes()
        .iter()
        .flat_map(|node| {
            let captured = node.captured().filter_map(|name| graph.find(name));
            node.inputs.iter().flatten().copied().chain(captured).collect::<Vec<_>>()
        })
        .chain(graph.outputs().iter().copied())
        .collect();
    let inputs: Vec<ValueId> = graph.inputs().to_vec();
    let kept = inputs.iter().enumerate().filter(|(index, id)| *index < given || read.contains(id));
    graph.inputs = kept.map(|(_, id)| *id).collect();
    let captures = graph.inputs[given..].iter().map(|id| graph.value_name(*id).to_string()).collect();
    Subgraph { graph: prune(&graph), captures }
}

struct Plan<'a> {
    graph: &'a Graph,
    known: &'a Known,
    /// Sequences that nothing reads once what is taken out of them is known.
    gone: HashSet<ValueId>,
    /// Values that are found by their names.
    named: HashSet<ValueId>,
}

impl Plan<'_> {
    fn sequences(&self) -> &Sequences {
        &self.known.sequences
    }

    fn small(&self, value: ValueId) -> Option<Small> {
        self.known.small(self.graph, value)
    }

    /// Returns what takes the place of a node that makes or reads a sequence.
    fn sequence(
        &self,
        b: &mut Builder,
        (id, node): (NodeId, &Node),
        inputs: &[Option<ValueId>],
        places: &mut HashMap<From, ValueId>,
    ) -> Option<Replaced> {
        let output = node.output(0)?;
        if self.gone.contains(&output) {
            if node.op.is("SplitToSequence") {
                self.split(b, (id, node), inputs.first().copied().flatten()?, places)?;
            }
            return Some(vec![None; node.outputs.len()]);
        }
        if !reads(node) || !self.gone.contains(&node.input(0)?) {
            return None;
        }
        let made = match node.op.name.as_str() {
            "SequenceLength" => {
                let length = self.small(output)?.tensor(crate::graph::DType::I64)?;
                return Some(vec![Some(b.initializer(self.graph.value_name(output), length))]);
            }
            "SequenceAt" => {
                let item = self.sequences().at(node, &|id| self.small(id))?;
                let made = *places.get(&item.from)?;
                if !self.named.contains(&output) {
                    return Some(vec![Some(made)]);
                }
                b.op("Identity", &[made], Attributes::none())
            }
            _ => {
                let items = self.sequences().get(node.input(0)?)?;
                let mut parts = items.iter().map(|item| places.get(&item.from).copied()).collect::<Option<Vec<_>>>()?;
                let axis = node.attributes.int("axis", 0).ok()?;
                if node.attributes.int("new_axis", 0).ok()? == 1 {
                    parts = parts.into_iter().map(|part| b.unsqueeze(part, &[axis])).collect();
                }
                b.op("Concat", &parts, Attributes::none().with("axis", axis))
            }
        };
        b.rename(made, self.graph.value_name(output));
        b.refine(made, self.graph.fact(output));
        Some(vec![Some(made)])
    }

    fn split(
        &self,
        b: &mut Builder,
        (id, node): (NodeId, &Node),
        input: ValueId,
        places: &mut HashMap<From, ValueId>,
    ) -> Option<()> {
        let fact = self.graph.fact(node.input(0)?);
        let (axis, sizes, keep) = part_sizes(node, fact, &|id| self.small(id))?;
        let axis = i64::try_from(axis).ok()?;
        let lengths = sizes.iter().map(|size| i64::try_from(*size).ok()).collect::<Option<Vec<i64>>>()?;
        let split = b.ints("split", &lengths);
        let attributes = Attributes::none().with("axis", axis);
        let parts = b.ops(&OpId::standard("Split"), &[Some(input), Some(split)], attributes, sizes.len());
        for (index, part) in parts.into_iter().enumerate() {
            let part = if keep { part } else { b.squeeze(part, &[axis]) };
            places.insert(From::Part(id, index), part);
        }
        Some(())
    }
}

/// Returns true for the operators that take tensors out of a sequence.
fn reads(node: &Node) -> bool {
    node.op.domain.is_empty() && matches!(node.op.name.as_str(), "SequenceAt" | "SequenceLength" | "ConcatFromSequence")
}

/// Returns the sequences of known length of which every reader is known, and whose own sources are
/// such sequences or tensors.
fn unread_sequences(graph: &Graph, known: &Known, named: &HashSet<ValueId>) -> HashSet<ValueId> {
    let small = |id: ValueId| known.small(graph, id);
    let mut stays = named.clone();
    let mut made: Vec<ValueId> = Vec::new();
    for node in graph.nodes().iter().rev() {
        let sequence = |id: ValueId| known.sequences.get(id);
        let known_reader = match node.op.name.as_str() {
            "SequenceAt" => known.sequences.at(node, &small).is_some(),
            "ConcatFromSequence" => node.input(0).and_then(sequence).is_some_and(|items| !items.is_empty()),
            "SequenceLength" => true,
            name if name == "SequenceInsert" || name == "SequenceErase" || PASSES.contains(&name) => {
                node.output(0).is_some_and(|output| sequence(output).is_some() && !stays.contains(&output))
            }
            _ => false,
        };
        if !known_reader || !node.op.domain.is_empty() {
            stays.extend(node.inputs.iter().flatten().filter(|id| sequence(**id).is_some()));
        }
        let makes = makes_sequence(node) || PASSES.contains(&node.op.name.as_str());
        made.extend(node.output(0).filter(|output| makes && sequence(*output).is_some()));
    }
    // A sequence goes only with all that it is made of: nodes come in evaluation order here.
    let mut gone: HashSet<ValueId> = HashSet::new();
    for output in made.into_iter().rev().filter(|output| !stays.contains(output)) {
        let node = graph.producer(output).map(|id| graph.node(id));
        let sources = node.into_iter().flat_map(|node| node.inputs.iter().flatten());
        if sources.into_iter().all(|id| known.sequences.get(*id).is_none() || gone.contains(id)) {
            gone.insert(output);
        }
    }
    gone
}
