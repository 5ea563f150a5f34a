//! Control flow, as far as the facts in its subgraphs say: symbols inside of one are not those outside.

use super::{Attribute, Call, Dim, Fact};
use crate::graph::Subgraph;

pub(super) fn infer(call: &Call) -> Option<Vec<Fact>> {
    match call.name() {
        "If" => branches(call),
        "Loop" => repeated(call),
        "Scan" => scan(call),
        _ => None,
    }
}

fn subgraph<'a>(call: &Call<'a>, name: &str) -> Option<&'a Subgraph> {
    match call.attributes.get(name)? {
        Attribute::Graph(graph) => Some(graph),
        _ => None,
    }
}

fn outputs(graph: &Subgraph) -> Vec<Fact> {
    let fixed = |dim: &Dim| dim.known().map_or(Dim::Unknown, Dim::Known);
    let fact = |fact: &Fact| Fact {
        dtype: fact.dtype,
        shape: fact.shape.as_ref().map(|dims| dims.iter().map(fixed).collect()),
    };
    graph.graph.outputs().iter().map(|id| fact(graph.graph.fact(*id))).collect()
}

fn branches(call: &Call) -> Option<Vec<Fact>> {
    let (then, other) = (outputs(subgraph(call, "then_branch")?), outputs(subgraph(call, "else_branch")?));
    call.give(then.iter().zip(&other).map(|(a, b)| common(a, b)))
}

/// Returns what holds of a value that is one of two.
fn common(a: &Fact, b: &Fact) -> Fact {
    let shape = a
        .shape
        .as_ref()
        .zip(b.shape.as_ref())
        .filter(|(a, b)| a.len() == b.len())
        .map(|(a, b)| a.iter().zip(b).map(|(a, b)| if a.same(b) { a.clone() } else { Dim::Unknown }).collect());
    Fact { dtype: a.dtype.filter(|dtype| Some(*dtype) == b.dtype), shape }
}

/// A state of Loop may change its shape from step to step.
fn repeated(call: &Call) -> Option<Vec<Fact>> {
    let given = outputs(subgraph(call, "body")?);
    let states = call.inputs.len().checked_sub(2)?;
    let facts = given.iter().skip(1).enumerate().map(|(index, fact)| {
        if index < states { common(call.fact(index + 2), fact) } else { stacked(fact, 0, Dim::Unknown) }
    });
    call.give(facts)
}

fn scan(call: &Call) -> Option<Vec<Fact>> {
    let given = outputs(subgraph(call, "body")?);
    let scanned = usize::try_from(call.int("num_scan_inputs", 0)?).ok()?;
    let states = call.inputs.len().checked_sub(scanned)?;
    let axis = |list: Option<Vec<i64>>, index: usize| list.and_then(|list| list.get(index).copied()).unwrap_or(0);
    let first = axis(call.ints("scan_input_axes")?, 0);
    let steps = call.fact(states).dim(first).cloned().unwrap_or(Dim::Unknown);
    let axes = call.ints("scan_output_axes")?;
    let facts = given.iter().enumerate().map(|(index, fact)| match index.checked_sub(states) {
        None => call.fact(index).clone(),
        Some(index) => stacked(fact, axis(axes.clone(), index), steps.clone()),
    });
    call.give(facts)
}

fn stacked(fact: &Fact, axis: i64, steps: Dim) -> Fact {
    let shape = fact.shape.clone().and_then(|mut dims| {
        let at = super::axis_of(axis, dims.len() + 1)?;
        dims.insert(at, steps);
        Some(dims)
    });
    Fact { dtype: fact.dtype, shape }
}
