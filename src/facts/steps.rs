//! `Scan` and `Loop`: what their bodies are given in every step, and what they give.

use super::branch::common;
use super::walk::Known;
use crate::graph::{Attribute, DType, Dim, Fact, Graph, Node, Subgraph, ValueId};

/// How deep bodies are followed into bodies: each is walked twice.
const DEEPEST: usize = 3;

/// Returns what is known of the outputs of a `Scan` or a `Loop`.
pub(super) fn outputs(known: &Known, graph: &Graph, node: &Node) -> Option<Vec<Fact>> {
    let Some(Attribute::Graph(body)) = node.attributes.get("body") else { return None };
    let (formal, given) = walk(known, graph, node, body)?;
    if node.op.is("Scan") {
        return scan(known, node, &formal, &given);
    }
    let states = formal.len() - 2;
    // A count of its own for every node of the main graph: one in a body runs more than once.
    let steps = if known.depth() == 0 { Dim::Symbol(format!("{}.steps", name(node))) } else { Dim::Unknown };
    let stacked = given.iter().skip(states + 1).map(|fact| stack(fact, 0, steps.clone()));
    Some(formal[2..].iter().cloned().chain(stacked).collect())
}

/// Returns what holds in every step of what a body is given.
pub(super) fn formal(known: &Known, graph: &Graph, node: &Node, body: &Subgraph) -> Option<Vec<Fact>> {
    walk(known, graph, node, body).map(|(formal, _)| formal)
}

/// Returns what holds in every step of what the body is given, and of what it gives.
fn walk(known: &Known, graph: &Graph, node: &Node, body: &Subgraph) -> Option<(Vec<Fact>, Vec<Fact>)> {
    if known.depth() >= DEEPEST || body.formal_inputs().len() != node.inputs.len() {
        return None;
    }
    let fact = |index: usize| node.input(index).map_or_else(Fact::default, |id| known.facts[id.0].clone());
    let inputs = 0..node.inputs.len();
    let results = |formal: &[Fact]| -> Option<Vec<Fact>> {
        let inner = known.inside(graph, body, formal)?;
        Some(body.graph.outputs().iter().map(|id| inner.facts[id.0].clone()).collect())
    };
    if node.op.is("Scan") {
        let scanned = usize::try_from(node.attributes.int("num_scan_inputs", 0).ok()?).ok()?;
        let states = node.inputs.len().checked_sub(scanned)?;
        let axes = node.attributes.ints("scan_input_axes").ok()?;
        let axis = |index: usize| axes.as_ref().and_then(|axes| axes.get(index).copied()).unwrap_or(0);
        let given = |index: usize| index.checked_sub(states).map_or(fact(index), |at| slice(&fact(index), axis(at)));
        let formal: Vec<Fact> = inputs.map(given).collect();
        let given = results(&formal)?;
        return Some((formal, given));
    }
    let [count, condition, ..] = body.formal_inputs() else { return None };
    let counter = |id: &ValueId, dtype: DType| {
        let shape = body.graph.fact(*id).shape.clone();
        Fact { dtype: Some(dtype), shape }
    };
    let mut formal: Vec<Fact> = [counter(count, DType::I64), counter(condition, DType::Bool)].to_vec();
    formal.extend(inputs.skip(2).map(fact));
    // What a step keeps of its states' facts holds in all of them.
    for _ in 0..2 {
        let given = results(&formal)?;
        let kept = formal.iter().skip(2).zip(given.get(1..)?).map(|(before, after)| common(before, after));
        let next: Vec<Fact> = formal[..2].iter().cloned().chain(kept).collect();
        if next == formal {
            return Some((formal, given));
        }
        formal = next;
    }
    None
}

fn scan(known: &Known, node: &Node, formal: &[Fact], given: &[Fact]) -> Option<Vec<Fact>> {
    let scanned = usize::try_from(node.attributes.int("num_scan_inputs", 0).ok()?).ok()?;
    let states = formal.len().checked_sub(scanned)?;
    let axis = |name: &str, index: usize| -> Option<i64> {
        Some(node.attributes.ints(name).ok()?.and_then(|axes| axes.get(index).copied()).unwrap_or(0))
    };
    let first = node.input(states)?;
    let steps = known.facts[first.0].dim(axis("scan_input_axes", 0)?).cloned().unwrap_or(Dim::Unknown);
    let output = |(index, fact): (usize, &Fact)| match index.checked_sub(states) {
        None => formal.get(index).cloned(),
        Some(at) => Some(stack(fact, axis("scan_output_axes", at)?, steps.clone())),
    };
    given.iter().enumerate().map(output).collect()
}

fn name(node: &Node) -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    format!("_{}", node.name.chars().map(word).collect::<String>())
}

fn slice(fact: &Fact, axis: i64) -> Fact {
    let shape = fact.shape.clone().and_then(|mut dims| {
        dims.remove(place(axis, dims.len())?);
        Some(dims)
    });
    Fact { dtype: fact.dtype, shape }
}

fn stack(fact: &Fact, axis: i64, steps: Dim) -> Fact {
    let shape = fact.shape.clone().and_then(|mut dims| {
        dims.insert(place(axis, dims.len() + 1)?, steps);
        Some(dims)
    });
    Fact { dtype: fact.dtype, shape }
}

fn place(axis: i64, rank: usize) -> Option<usize> {
    let count = i64::try_from(rank).ok()?;
    usize::try_from(if axis < 0 { axis + count } else { axis }).ok().filter(|axis| *axis < rank)
}
