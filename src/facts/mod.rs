//! Completes what is known of every value: dtypes and shapes, with named sizes where they can be
//! followed.
//!
//! Sources, in the order in which they are asked, each only when a gap is left that somebody may
//! need (a floating-point value that depends on the data or a weight):
//!
//! 1. the file's `value_info` and the operators' own rules, with the arithmetic of shapes evaluated
//!    on the way, named sizes included;
//! 2. tract's analysis of the part of the graph around the gaps (feature `tract`);
//! 3. a run of the model at several sizes, by a [`Probe`] that the caller gives.
//!
//! Sources that say different things of a value are listed as [`Contradiction`]s; a run is believed
//! before our own inference, that before tract, that before the file. Everything is linear in the
//! size of the graph, and no weight is read.
//!
//! What this module does not do: run anything itself.

mod agree;
mod branch;
mod fold;
mod gaps;
mod lists;
mod probe;
mod sequences;
mod small;
mod steps;
#[cfg(feature = "tract")]
mod tract;
mod walk;

pub use crate::graph::{FactError, require};
pub use agree::{Contradiction, Source};
pub use fold::fold;
pub use gaps::Gap;
pub use probe::{MOST_WEIGHTS, Probe};
#[doc(hidden)]
#[cfg(feature = "tract")]
pub use tract::THREAD as TRACT_THREAD;

use crate::graph::{Dim, Fact, Model, ValueId};
use std::collections::HashMap;
use walk::{Evidence, Known};

/// A model with completed facts.
#[derive(Clone, Debug)]
pub struct Completed {
    /// The same model, knowing more.
    pub model: Model,
    sources: Vec<Source>,
    /// What the sources disagree about, in evaluation order.
    pub contradictions: Vec<Contradiction>,
    /// What stays unknown, in evaluation order.
    pub gaps: Vec<Gap>,
    /// What a person should know of this.
    pub notes: Vec<String>,
}

impl Completed {
    /// Returns where most of a value's fact comes from.
    pub fn source(&self, value: ValueId) -> Source {
        self.sources.get(value.0).copied().unwrap_or(Source::Nothing)
    }
}

/// Returns the model with every fact that can be had without running it.
pub fn complete(model: &Model) -> Completed {
    complete_with(model, &HashMap::new(), None)
}

/// Returns the model with every fact that can be had, with a probing run where gaps remain that
/// somebody may need. `sizes` gives numbers for named sizes in that run; the facts keep the names.
pub fn complete_with(model: &Model, sizes: &HashMap<String, usize>, probe: Option<&mut dyn Probe>) -> Completed {
    let graph = &model.graph;
    let mut notes = Vec::new();
    let mut known = Known::of(model, &[], &[]);
    let mut gaps = gaps::gaps(graph, &known.facts);
    let mut below = Vec::new();
    if gaps.iter().any(|gap| gap.needed) {
        let found = ask_tract(model, &known, &gaps, &mut notes);
        if !found.facts.is_empty() {
            below.push(found);
            known = Known::of(model, &[], &below);
            gaps = gaps::gaps(graph, &known.facts);
        }
    }
    if let Some(probe) = probe
        && gaps.iter().any(|gap| gap.needed)
    {
        let sized = model.with_graph(graph.with_facts(known.facts.clone()));
        match probe::ask(&sized, &gaps, sizes, probe) {
            Ok(facts) if facts.is_empty() => {}
            Ok(facts) => {
                known = Known::of(model, &[Evidence { source: Source::Probe, facts }], &below);
                gaps = gaps::gaps(graph, &known.facts);
            }
            Err(reason) => notes.push(format!("no probing run: {reason}")),
        }
    }
    let needed = gaps.iter().filter(|gap| gap.needed).count();
    match gaps.iter().find(|gap| gap.needed) {
        Some(first) if needed == 1 => notes.push(first.to_string()),
        Some(first) => notes.push(format!("of {needed} values something is not known; first, {first}")),
        None => notes.clear(),
    }
    if let Some(first) = known.contradictions.first() {
        let more = known.contradictions.len() - 1;
        let rest = if more > 0 { format!(" ({more} more values like this)") } else { String::new() };
        notes.push(format!("{first}{rest}"));
    }
    Completed {
        model: model.with_graph(graph.with_facts(known.facts)),
        sources: known.sources,
        contradictions: known.contradictions,
        gaps,
        notes,
    }
}

/// Returns a completed model with named sizes as numbers, and what follows from them.
pub fn with_sizes(model: &Model, sizes: &HashMap<String, usize>) -> Model {
    let graph = model.graph.with_sizes(sizes);
    let open = graph.nodes().iter().flat_map(|node| node.outputs.iter().flatten());
    if open.into_iter().any(|id| graph.fact(*id).sizes().is_none()) {
        let sized = model.with_graph(graph);
        let facts = Known::of(&sized, &[], &[]).facts;
        return Model { graph: sized.graph.with_facts(facts), ..sized };
    }
    model.with_graph(graph)
}

/// Returns a completed model whose inputs have these shapes, and what follows from them. What a shape
/// leaves open stays as it is, as does an input of another rank.
pub fn with_shapes(model: &Model, shapes: &[(String, Vec<Option<usize>>)]) -> Model {
    let graph = &model.graph;
    let mut sizes = HashMap::new();
    let mut facts: Vec<Fact> = graph.values().map(|(_, value)| value.fact.clone()).collect();
    for (name, shape) in shapes {
        let Some(id) = graph.inputs().iter().find(|id| graph.value_name(**id) == name) else { continue };
        let dims = facts[id.0].shape.get_or_insert_with(|| vec![Dim::Unknown; shape.len()]);
        if dims.len() != shape.len() {
            continue;
        }
        for (dim, size) in dims.iter_mut().zip(shape) {
            match (&dim, size) {
                (Dim::Symbol(symbol), Some(size)) => {
                    sizes.insert(symbol.clone(), *size);
                }
                (Dim::Unknown, Some(size)) => *dim = Dim::Known(*size),
                _ => {}
            }
        }
    }
    with_sizes(&model.with_graph(graph.with_facts(facts)), &sizes)
}

#[cfg(feature = "tract")]
fn ask_tract(model: &Model, known: &Known, gaps: &[Gap], notes: &mut Vec<String>) -> Evidence {
    let sized = model.with_graph(model.graph.with_facts(known.facts.clone()));
    let found = tract::analyse(&sized, gaps);
    notes.extend(found.note);
    Evidence { source: Source::Tract, facts: found.facts }
}

#[cfg(not(feature = "tract"))]
fn ask_tract(_: &Model, _: &Known, _: &[Gap], _: &mut Vec<String>) -> Evidence {
    Evidence { source: Source::Tract, facts: HashMap::new() }
}

#[cfg(test)]
mod tests;
