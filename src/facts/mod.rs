//! Completes what is known of every value: dtypes and shapes.
//!
//! In this order, each filling only what the ones before left open: the file's `value_info`; our
//! own inference over the operators that `graph` knows, with the integer arithmetic of fixed
//! shapes; tract's analysis (feature `tract`), which also follows a named batch size through such
//! arithmetic; our own inference again.
//!
//! Shapes with a batch of a fixed size are known more often than with a named one: callers who
//! need numbers apply [`Graph::with_sizes`](crate::graph::Graph::with_sizes) first.
//!
//! What this module does not do: run anything, or change a node.

mod fold;
mod integers;
#[cfg(feature = "tract")]
mod tract;

pub use fold::fold;

use crate::graph::{Builder, Fact, Graph, Model, Node, facts_with};
use integers::Integers;

/// A model with completed facts.
#[derive(Clone, Debug)]
pub struct Completed {
    /// The same model, knowing more.
    pub model: Model,
    /// What could not be found out, for a person.
    pub notes: Vec<String>,
}

/// Returns the model with every fact that can be had.
pub fn complete(model: &Model) -> Completed {
    let graph = walk(model.graph.clone());
    let (graph, mut notes) = if open(&graph).next().is_some() { ask_tract(model, graph) } else { (graph, Vec::new()) };
    let left: Vec<&str> = open(&graph).collect();
    if let Some(first) = left.first() {
        notes.push(format!("{} values have no known shape or dtype, the first is \"{first}\"", left.len()));
    }
    Completed { model: Model { graph, ..model.clone() }, notes }
}

#[cfg(feature = "tract")]
fn ask_tract(model: &Model, graph: Graph) -> (Graph, Vec<String>) {
    let found = tract::analyse(&Model { graph: graph.clone(), ..model.clone() });
    let mut builder = Builder::extend(graph);
    for (value, fact) in &found.facts {
        builder.refine(*value, fact);
    }
    (walk(builder.finish()), found.note.into_iter().collect())
}

#[cfg(not(feature = "tract"))]
fn ask_tract(_: &Model, graph: Graph) -> (Graph, Vec<String>) {
    (graph, Vec::new())
}

/// Returns the names of node outputs of which dtype or rank is not known.
fn open(graph: &Graph) -> impl Iterator<Item = &str> {
    let outputs = graph.nodes().iter().flat_map(|node| node.outputs.iter().flatten());
    let open = outputs.filter(|value| {
        let fact = graph.fact(**value);
        fact.dtype.is_none() || fact.shape.is_none()
    });
    open.map(|value| graph.value_name(*value))
}

fn walk(graph: Graph) -> Graph {
    let nodes: Vec<Node> = graph.nodes().to_vec();
    let mut builder = Builder::extend(graph);
    let mut integers = Integers::default();
    for node in &nodes {
        let graph = builder.graph();
        let known = |value| integers.get(graph, value);
        let facts = facts_with(graph, &node.op, &node.inputs, &node.attributes, node.outputs.len(), &known);
        for (output, fact) in node.outputs.iter().zip(facts) {
            // Without a shape the dtype is a guess of an operator that inference does not know.
            if let (Some(output), Fact { shape: Some(_), .. }) = (output, &fact) {
                builder.refine(*output, &fact);
            }
        }
        integers.learn(builder.graph(), node);
    }
    builder.finish()
}

#[cfg(test)]
mod tests;
