//! The outputs of units in inference form.

use super::forward::{Mode, forward};
use super::step::{as_model, finish};
use super::{Objective, Prepared, TrainingError};
use crate::graph::{Model, NodeId, ValueId, prune};
use crate::modules::{self, Unit};
use std::collections::{HashMap, HashSet};

/// A graph whose outputs are those of units.
#[derive(Clone, Debug)]
pub struct UnitOutputs {
    /// The model in inference form; parameters and statistics are inputs.
    pub model: Model,
    /// Of each unit the position among the outputs of the model and whether its neurons are axis 1, where it has an
    /// output.
    pub units: Vec<Option<(usize, bool)>>,
}

impl Objective<'_> {
    /// Builds the graph that gives the outputs of units.
    ///
    /// # Errors
    /// A node cannot be brought into inference form.
    pub fn outputs(&self, prepared: &Prepared, units: &[Unit]) -> Result<UnitOutputs, TrainingError> {
        let mut whole = prepared.model.graph.clone();
        if let Objective::Stage { stage, .. } = self {
            whole.outputs = vec![stage.loss()];
        }
        let whole = prune(&whole);
        let path = |id: NodeId| module(prepared, &whole.node(id).name);
        let found = modules::outputs(&whole, units, path);
        let mut part = whole.clone();
        let mut seen = HashSet::new();
        part.outputs = found.iter().flatten().map(|output| output.value).filter(|id| seen.insert(*id)).collect();
        let wanted: Vec<String> = part.outputs.iter().map(|id| part.value_name(*id).to_string()).collect();
        let mut part = prune(&part);
        let read: HashSet<ValueId> = part
            .consumers()
            .iter()
            .enumerate()
            .filter(|(_, readers)| !readers.is_empty())
            .map(|(index, _)| ValueId(index))
            .collect();
        part.inputs.retain(|id| read.contains(id));
        let parameters: HashSet<&str> = prepared.trainable().into_iter().collect();
        let statistics: HashSet<&str> = prepared.statistics().into_iter().collect();
        let mut f = forward(&part, "outputs", &Mode::Eval, &statistics, &parameters)?;
        let mut positions: HashMap<&str, usize> = HashMap::new();
        for (position, wanted) in wanted.iter().enumerate() {
            let value = f.map[&part.find(wanted).expect("invariant: the part keeps its outputs")];
            let name = f.b.unique("output");
            f.b.output(value, &name);
            positions.insert(wanted, position);
        }
        let place =
            |output: modules::UnitOutput| Some((*positions.get(whole.value_name(output.value))?, output.channels));
        let units = found.into_iter().map(|output| output.and_then(place)).collect();
        Ok(UnitOutputs { model: as_model(prepared, finish(f.b.finish(), "outputs", prepared.form)?), units })
    }
}

/// Returns the module that runs a node. One that stands for a part of another has the other's name before a slash.
fn module<'a>(prepared: &'a Prepared, node: &str) -> &'a str {
    let mut name = node;
    loop {
        match (prepared.modules.get(name), name.rsplit_once('/')) {
            (Some(path), _) => return path,
            (None, Some((front, _))) => name = front,
            // No module has this path.
            (None, None) => return "/",
        }
    }
}
