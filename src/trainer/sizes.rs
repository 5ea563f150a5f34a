//! Sizes that a model leaves open: what costs are counted for, and what graphs are built for where a
//! gradient or a loss needs a fixed one.

use super::TrainerError;
use super::model::Note;
use crate::graph::{Dim, Graph, ValueId};
use crate::planner::{self, Loaded, PlannerError};
use std::collections::HashMap;

/// Sizes of a model's inputs.
#[derive(Clone, Debug, Default)]
pub struct Sizes {
    /// First size of the inputs without a shape.
    pub batch: Option<usize>,
    /// Shapes of inputs by name.
    pub shapes: Vec<(String, Vec<usize>)>,
}

impl Sizes {
    /// Returns the batch size, 1 by default.
    pub fn batch(&self) -> usize {
        self.batch.unwrap_or(1)
    }

    /// Returns a number for every named size of the inputs that one is given for.
    pub fn of(&self, graph: &Graph) -> Result<HashMap<String, usize>, PlannerError> {
        planner::sizes(graph, self.batch(), &self.shapes)
    }

    /// Returns these sizes without the shapes where one of them does not fit the model.
    pub fn that_fit(self, graph: &Graph) -> Sizes {
        if self.of(graph).is_ok() { self } else { Sizes { shapes: Vec::new(), ..self } }
    }

    /// Returns the shapes to fix an input to, `None` for sizes that stay open: first all but the batch,
    /// then the batch too. Those that fix nothing are left out.
    fn levels(&self, graph: &Graph) -> Vec<Vec<(String, Vec<Option<usize>>)>> {
        let level = |with_batch: bool| {
            let shape = |id: &ValueId| {
                let name = graph.value_name(*id);
                let given = self.shapes.iter().find(|(input, _)| input == name).map(|(_, shape)| shape);
                let rank = given.map(Vec::len).or(graph.fact(*id).rank())?;
                let size = |axis: usize| match axis {
                    0 if !with_batch => None,
                    0 => given.and_then(|shape| shape.first().copied()).or(self.batch),
                    axis => given?.get(axis).copied(),
                };
                Some((name.to_string(), (0..rank).map(size).collect::<Vec<_>>()))
            };
            graph.inputs().iter().filter_map(shape).collect::<Vec<_>>()
        };
        let fixes = |level: &Vec<(String, Vec<Option<usize>>)>| {
            let open = |name: &str, axis: usize| {
                let id = graph.inputs().iter().find(|id| graph.value_name(**id) == name);
                id.is_some_and(|id| graph.fact(*id).shape.is_none() || dim(graph, *id, axis).known().is_none())
            };
            let fixed = |(name, shape): &(String, Vec<Option<usize>>)| {
                shape.iter().enumerate().any(|(axis, size)| size.is_some() && open(name, axis))
            };
            level.iter().any(fixed)
        };
        let mut levels = vec![level(false), level(true)];
        levels.retain(fixes);
        levels.dedup();
        levels
    }

    /// Calls `attempt` with the model as it is and, where that needs sizes, with them fixed: all
    /// but the batch, then all. Says which were, `whose` they are, and why.
    pub fn fixed_where_needed<T>(
        &self,
        loaded: &mut Loaded,
        whose: &str,
        note: Note<'_>,
        attempt: impl Fn(&Loaded) -> Result<T, TrainerError>,
    ) -> Result<T, TrainerError> {
        let levels = self.levels(&loaded.analysis.model.graph);
        let first = match attempt(loaded) {
            Err(error) if error.is_open_size() => error,
            result => return result,
        };
        for level in levels {
            loaded.analysis = loaded.analysis.clone().with_shapes(&level);
            match attempt(loaded) {
                Err(error) if error.is_open_size() => {}
                result => {
                    let graph = &loaded.analysis.model.graph;
                    let inputs = graph.inputs().iter();
                    let inputs = inputs.map(|id| format!("{} {}", graph.value_name(*id), graph.fact(*id)));
                    let inputs = inputs.collect::<Vec<_>>().join(", ");
                    note(&format!("{first}; so the graphs are for the sizes {whose}: {inputs}"));
                    return result;
                }
            }
        }
        Err(first)
    }
}

fn dim(graph: &Graph, id: ValueId, axis: usize) -> Dim {
    i64::try_from(axis).ok().and_then(|axis| graph.fact(id).dim(axis).cloned()).unwrap_or(Dim::Unknown)
}

/// Returns how a person gives the sizes that the model's inputs leave open; `None` where there are none.
pub fn how_to_give(graph: &Graph) -> Option<String> {
    let open = |id: &&ValueId| graph.fact(**id).sizes().is_none();
    let inputs: Vec<&ValueId> = graph.inputs().iter().filter(open).collect();
    let rest =
        |id: &&&ValueId| graph.fact(***id).shape.as_ref().is_none_or(|s| s.iter().skip(1).any(|d| d.known().is_none()));
    let shown = |id: &ValueId| format!("--shape {}=D,D,.. ({})", graph.value_name(*id), graph.fact(*id));
    let shapes: Vec<String> = inputs.iter().filter(rest).map(|id| shown(id)).collect();
    match (inputs.is_empty(), shapes.is_empty()) {
        (true, _) => None,
        (_, true) => Some("fix the batch size with --batch N".into()),
        _ => Some(format!("fix the sizes with {}", shapes.join(" "))),
    }
}
