//! `If`: what its branches give, and the branch that a known condition takes.

use super::small::Small;
use super::walk::Known;
use crate::graph::{Attribute, Attributes, Builder, Dim, Fact, Graph, Node, Subgraph, ValueId};
use std::collections::HashMap;

/// How deep branches are followed into branches.
pub(super) const DEEPEST: usize = 12;

/// Returns what is known of the outputs of an `If`.
pub(super) fn outputs(known: &Known, graph: &Graph, node: &Node) -> Option<Vec<(Fact, Option<Small>)>> {
    let branches: Vec<Vec<(Fact, Option<Small>)>> =
        taken(known, graph, node)?.into_iter().map(|branch| given(known, graph, branch)).collect::<Option<_>>()?;
    branches.into_iter().reduce(|a, b| {
        let both = a
            .into_iter()
            .zip(b)
            .map(|((a, first), (b, second))| (common(&a, &b), first.filter(|first| Some(first) == second.as_ref())));
        both.collect()
    })
}

/// Returns the branches that may be taken: one where the condition is known.
fn taken<'a>(known: &Known, graph: &Graph, node: &'a Node) -> Option<Vec<&'a Subgraph>> {
    let branch = |name: &str| match node.attributes.get(name) {
        Some(Attribute::Graph(branch)) => Some(branch.as_ref()),
        _ => None,
    };
    let condition = known.small(graph, node.input(0)?).and_then(|small| small.data().first()?.fixed());
    match condition {
        Some(0) => Some(vec![branch("else_branch")?]),
        Some(_) => Some(vec![branch("then_branch")?]),
        None => Some(vec![branch("then_branch")?, branch("else_branch")?]),
    }
}

fn given(known: &Known, graph: &Graph, branch: &Subgraph) -> Option<Vec<(Fact, Option<Small>)>> {
    let inner = known.inside(graph, branch, &[])?;
    let output = |id: &ValueId| (inner.facts[id.0].clone(), inner.small(&branch.graph, *id));
    Some(branch.graph.outputs().iter().map(output).collect())
}

/// Returns what holds of a value that is one of two.
pub(super) fn common(a: &Fact, b: &Fact) -> Fact {
    let shape = a
        .shape
        .as_ref()
        .zip(b.shape.as_ref())
        .filter(|(a, b)| a.len() == b.len())
        .map(|(a, b)| a.iter().zip(b).map(|(a, b)| if a.same(b) { a.clone() } else { Dim::Unknown }).collect());
    Fact { dtype: a.dtype.filter(|dtype| Some(*dtype) == b.dtype), shape }
}

/// Appends the branch that a known condition takes in the place of an `If`; `None` when the
/// condition is not known or the branch holds further subgraphs.
pub(super) fn inline(b: &mut Builder, known: &Known, graph: &Graph, node: &Node) -> Option<Vec<Option<ValueId>>> {
    let [branch] = taken(known, graph, node)?[..] else { return None };
    let inner = &branch.graph;
    let nested = inner.nodes().iter().any(|node| {
        node.attributes.iter().any(|(_, value)| matches!(value, Attribute::Graph(_) | Attribute::Opaque { .. }))
    });
    if nested || inner.outputs().len() != node.outputs.len() {
        return None;
    }
    let facts = known.inside(graph, branch, &[])?.facts;
    let mut map: HashMap<ValueId, ValueId> = HashMap::new();
    for id in inner.inputs() {
        map.insert(*id, b.graph().find(inner.value_name(*id))?);
    }
    b.enter(node.origin.clone(), &node.name);
    for (id, value, tensor) in inner.initializers() {
        map.insert(id, b.constant(&value.name, tensor.clone()));
    }
    let place = |id: ValueId| inner.outputs().iter().position(|output| *output == id);
    for part in inner.nodes() {
        for id in part.outputs.iter().flatten() {
            let name = match place(*id).and_then(|index| node.output(index)) {
                Some(output) => graph.value_name(output).to_string(),
                None => b.unique(inner.value_name(*id)),
            };
            map.insert(*id, b.declare(&name, facts[id.0].clone()));
        }
        let mapped = |ids: &[Option<ValueId>]| ids.iter().map(|id| map.get(&(*id)?).copied()).collect();
        let (inputs, outputs) = (mapped(&part.inputs), mapped(&part.outputs));
        let (name, origin) = (b.unique(&part.name), node.origin.clone());
        b.push_node(Node { name, inputs, outputs, origin, ..part.clone() });
    }
    let mut replaced = Vec::new();
    for (id, output) in inner.outputs().iter().zip(&node.outputs) {
        let Some(output) = output else {
            replaced.push(None);
            continue;
        };
        let made = *map.get(id)?;
        let name = graph.value_name(*output);
        if b.graph().value_name(made) == name {
            replaced.push(Some(made));
            continue;
        }
        let copy = b.op("Identity", &[made], Attributes::none());
        b.rename(copy, name);
        replaced.push(Some(copy));
    }
    b.enter(crate::graph::Origin::Forward, "");
    Some(replaced)
}
