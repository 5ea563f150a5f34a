//! What the graphs of a phase are built from, apart from the run, so that another thread can build them.

use super::engine::Engine;
use super::estimate::{MemoryEstimate, Sizes};
use super::run::Run;
use super::train::RunError;
use crate::graph::Tensor;
use crate::losses::LossSpec;
use crate::optim::OptimizerSpec;
use crate::training::{Objective, Own, Prepared, Rate, Recompute, TrainStep, TrainingError};
use std::collections::{BTreeMap, BTreeSet};

/// How the frozen parameters and statistics of a phase enter its train graph.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Form {
    /// As constants, which an engine folds and packs.
    Constants,
    /// As inputs: the graph holds for any values of them.
    Inputs,
    /// Those of these names as inputs, the others as constants.
    Mixed(BTreeSet<String>),
}

impl Form {
    /// Returns the form in which a phase begins: of one that comes back, or in which these freeze newly.
    pub(super) fn of(recurs: bool, fresh: BTreeSet<String>) -> Form {
        match (recurs, fresh.is_empty()) {
            (true, _) => Form::Inputs,
            (false, true) => Form::Constants,
            (false, false) => Form::Mixed(fresh),
        }
    }
}

/// What the graphs of a phase are built from, with a loss and an optimizer of ours.
pub(super) struct Recipe {
    pub(super) held: BTreeSet<String>,
    pub(super) form: Form,
    /// The constants of the form.
    values: BTreeMap<String, Tensor>,
    prepared: Prepared,
    loss: LossSpec,
    output: Option<String>,
    optimizer: OptimizerSpec,
    how: How,
}

/// What all phases of a run share.
struct How {
    rates: Vec<(String, Rate)>,
    initial: BTreeMap<String, Tensor>,
    seed: u64,
    /// `None` where the engine cannot.
    recompute: Option<Recompute>,
    accumulate: usize,
    sizes: Sizes,
}

/// The graphs of a phase.
pub(super) struct Graphs {
    pub(super) step: TrainStep,
    /// Modules that are recomputed.
    pub(super) recomputed: Vec<String>,
    /// What the phase takes where its frozen prefix is a part of the train graph.
    pub(super) memory: MemoryEstimate,
}

impl Recipe {
    /// Builds the graphs.
    ///
    /// # Errors
    /// See [`crate::training::build`].
    pub(super) fn build(&self) -> Result<Graphs, TrainingError> {
        let Recipe { loss, output, optimizer, .. } = self;
        let objective = Objective::Own(Own { loss, output: output.as_deref(), optimizer });
        self.how.build(&objective, &self.prepared, &self.held, &self.form, &self.values)
    }
}

impl How {
    fn of(run: &Run<'_>, engine: &dyn Engine) -> How {
        let setup = run.setup;
        How {
            rates: run.rates.rates().into_iter().map(|(name, rate)| (name.to_string(), rate)).collect(),
            initial: run.initial.clone(),
            seed: setup.seed,
            recompute: engine.info().recomputes.then(|| setup.recompute.clone()),
            accumulate: setup.accumulate,
            sizes: Sizes::of(setup, engine),
        }
    }

    fn build(
        &self,
        objective: &Objective<'_>,
        prepared: &Prepared,
        held: &BTreeSet<String>,
        form: &Form,
        values: &BTreeMap<String, Tensor>,
    ) -> Result<Graphs, TrainingError> {
        let mut with_values = prepared.clone();
        for (name, tensor) in values {
            let graph = std::mem::take(&mut with_values.model.graph);
            with_values.model.graph = graph.with_initializer(name, tensor.clone());
        }
        let prepared = &with_values;
        let rates = self.rates.iter().map(|(name, rate)| (name.as_str(), *rate)).collect();
        let frozen = held.iter().map(String::as_str).collect();
        let mut step = objective.build(prepared, frozen, *form != Form::Constants, rates, self.seed)?;
        let recomputed = match &self.recompute {
            Some(recompute) => step.recompute(prepared, recompute)?,
            None => Vec::new(),
        };
        if self.accumulate > 1 {
            step = objective.accumulating(step)?;
        }
        if let Form::Mixed(inputs) = form {
            bake(&mut step, values.iter().filter(|(name, _)| held.contains(*name) && !inputs.contains(*name)));
        }
        for slot in &mut step.slots {
            slot.initial = self.initial.get(&slot.name).unwrap_or(&slot.initial).clone();
        }
        let memory = MemoryEstimate::of(&step, None, &self.sizes.assumed(prepared));
        Ok(Graphs { step, recomputed, memory })
    }
}

/// Makes inputs of the train graph its constants.
fn bake<'a>(step: &mut TrainStep, values: impl Iterator<Item = (&'a String, &'a Tensor)>) {
    for (name, tensor) in values {
        let graph = &step.train.graph;
        if graph.find(name).is_some_and(|id| graph.inputs().contains(&id)) {
            let graph = std::mem::take(&mut step.train.graph);
            step.train.graph = graph.with_constant(name, tensor.clone());
        }
    }
}

impl Run<'_> {
    /// Builds the graphs of a phase with the frozen values as they are now.
    pub(super) fn build(&self, engine: &dyn Engine, held: &BTreeSet<String>, form: &Form) -> Result<Graphs, RunError> {
        let values = self.constants(engine, held, &BTreeMap::new())?;
        Ok(How::of(self, engine).build(&self.setup.objective, &self.prepared, held, form, &values)?)
    }

    /// As [`Run::build`], with other modules recomputed.
    pub(super) fn build_recomputing(
        &self,
        engine: &dyn Engine,
        held: &BTreeSet<String>,
        recompute: Recompute,
    ) -> Result<Graphs, RunError> {
        let values = self.constants(engine, held, &BTreeMap::new())?;
        let how = How { recompute: Some(recompute), ..How::of(self, engine) };
        Ok(how.build(&self.setup.objective, &self.prepared, held, &Form::Constants, &values)?)
    }

    /// Returns what another thread builds the graphs of a phase from; `None` for a training step of the file. Values
    /// that are in `known` are not read again.
    pub(super) fn recipe(
        &self,
        engine: &dyn Engine,
        held: BTreeSet<String>,
        form: Form,
        values: BTreeMap<String, Tensor>,
    ) -> Option<Recipe> {
        let Objective::Own(Own { loss, output, optimizer }) = self.setup.objective else { return None };
        Some(Recipe {
            held,
            form,
            values,
            prepared: self.prepared.clone(),
            loss: loss.clone(),
            output: output.map(str::to_string),
            optimizer: optimizer.clone(),
            how: How::of(self, engine),
        })
    }

    /// Returns the values of what does not train with `held` frozen, those in `known` without reading them.
    pub(super) fn constants(
        &self,
        engine: &dyn Engine,
        held: &BTreeSet<String>,
        known: &BTreeMap<String, Tensor>,
    ) -> Result<BTreeMap<String, Tensor>, RunError> {
        let trainable = self.prepared.trainable();
        let fixed = self.state.values().filter(|(name, _)| held.contains(*name) || !trainable.contains(name));
        let value = |(name, buffer): (&str, _)| {
            let tensor = known.get(name).cloned().map_or_else(|| engine.read(buffer), Ok)?;
            Ok((name.to_string(), tensor))
        };
        fixed.map(value).collect()
    }
}
