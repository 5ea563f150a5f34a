//! What a policy sees and what it answers.

use super::{History, Signal, StepCosts};
use crate::cost::UnitCost;
use crate::modules::Unit;
use std::collections::HashSet;

/// Decides which units are frozen.
///
/// The same moment gives the same decision: a policy keeps no state, so a resumed run decides as
/// one that did not stop.
pub trait Policy: Send + Sync {
    /// Returns the name that is written to the plan file.
    fn name(&self) -> &str;

    /// Returns what is frozen from this moment on.
    fn decide(&self, at: &Moment<'_>) -> Decision;

    /// Returns the knobs by name, for the plan file.
    fn settings(&self) -> serde_json::Map<String, serde_json::Value> {
        serde_json::Map::new()
    }

    /// Returns after how many steps of the run it is asked, beside the starts of the epochs. Steps outside the
    /// run are not looked at. Signals are measured from one of these points to the next.
    fn points(&self, _run: Run, _units: usize) -> Vec<usize> {
        Vec::new()
    }

    /// Returns what it must know of the run; with none, what it decides follows from the model alone.
    fn signals(&self) -> Vec<Signal> {
        Vec::new()
    }

    /// Returns true where what it decides depends on the history.
    fn is_adaptive(&self) -> bool {
        !self.signals().is_empty()
    }

    /// Returns how outputs are compared, for signals that compare them.
    fn reference(&self) -> Reference {
        Reference::default()
    }

    /// Returns the factor on the learning rate of each unit in the step that begins now; `None` where all are 1 in
    /// all steps.
    fn lr_scale(&self, _at: &Moment<'_>) -> Option<Vec<f64>> {
        None
    }

    /// Returns true where the factors of [`Policy::lr_scale`] are a schedule by themselves, from step to step.
    fn anneals(&self) -> bool {
        false
    }

    /// Returns what it takes for granted before anything is measured, for the notes of a plan made ahead.
    fn assumed(&self) -> Option<String> {
        None
    }

    /// Refuses what does not fit the units, such as a pattern that matches none.
    ///
    /// # Errors
    /// What does not fit.
    fn check(&self, _units: &[Unit]) -> Result<(), super::PlanError> {
        Ok(())
    }

    /// Refuses what does not fit the length of the run, such as an epoch after the last one.
    ///
    /// # Errors
    /// What does not fit.
    fn check_run(&self, _run: Run) -> Result<(), super::PlanError> {
        Ok(())
    }
}

/// How long a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Epochs, at least 1.
    pub epochs: usize,
    /// Steps of an epoch, at least 1. 1 where the data are not known: then whatever happens within an epoch is
    /// decided at the start of the next one.
    pub steps_per_epoch: usize,
}

impl Run {
    /// Returns the steps of the whole run.
    pub fn steps(&self) -> usize {
        self.epochs.saturating_mul(self.steps_per_epoch)
    }
}

/// What the outputs of units are compared with, and on what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Observations after which the reference becomes the model as it is then, at least 1.
    pub refresh: usize,
    /// Samples of the training data that outputs are taken of.
    pub samples: usize,
}

impl Default for Reference {
    fn default() -> Reference {
        Reference { refresh: 1, samples: 256 }
    }
}

/// When a policy is asked, and about what.
#[derive(Clone, Copy)]
pub struct Moment<'a> {
    /// The units, from the input side.
    pub units: &'a [Unit],
    /// What each unit costs.
    pub costs: &'a [UnitCost],
    /// What a step costs with some parameters frozen.
    pub step_costs: &'a dyn StepCosts,
    /// Epochs of the whole run, at least 1.
    pub epochs: usize,
    /// Epochs that have ended, from 0 to `epochs`.
    pub completed: usize,
    /// Steps of an epoch, at least 1; see [`Run`].
    pub steps_per_epoch: usize,
    /// Steps of the epoch after those that have ended, from 0.
    pub step: usize,
    /// What was measured; empty while a plan is only previewed.
    pub history: &'a History,
}

impl std::fmt::Debug for Moment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Moment { epochs, completed, steps_per_epoch, step, .. } = self;
        let units: Vec<&str> = self.units.iter().map(|unit| unit.path.as_str()).collect();
        f.debug_struct("Moment")
            .field("units", &units)
            .field("epochs", epochs)
            .field("completed", completed)
            .field("steps_per_epoch", steps_per_epoch)
            .field("step", step)
            .finish_non_exhaustive()
    }
}

impl Moment<'_> {
    /// Returns how long the run is.
    pub fn run(&self) -> Run {
        Run { epochs: self.epochs, steps_per_epoch: self.steps_per_epoch }
    }

    /// Returns the steps of the run that are done.
    pub fn steps(&self) -> usize {
        self.completed.saturating_mul(self.steps_per_epoch).saturating_add(self.step)
    }

    /// Returns the fraction of the run that is done, in [0, 1].
    pub fn elapsed(&self) -> f64 {
        self.steps() as f64 / self.run().steps().max(1) as f64
    }
}

/// What a policy answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Which units are frozen.
    pub frozen: FrozenSet,
    /// The schedule's value before it is turned into a count, in [0, 1].
    pub fraction: f64,
}

impl Decision {
    /// Returns the decision for a set; its fraction is the share of the units that are frozen.
    pub fn of(frozen: FrozenSet) -> Decision {
        let fraction = frozen.count() as f64 / frozen.units().max(1) as f64;
        Decision { frozen, fraction }
    }
}

/// Which units are frozen: one truth value per unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrozenSet(Vec<bool>);

impl FrozenSet {
    /// Returns the set that holds no unit of `units`.
    pub fn none(units: usize) -> FrozenSet {
        FrozenSet(vec![false; units])
    }

    /// Returns the first `depth` of `units` units; all of them when `depth` is larger.
    pub fn prefix(units: usize, depth: usize) -> FrozenSet {
        FrozenSet((0..units).map(|index| index < depth).collect())
    }

    /// Returns whether the unit at `index` is frozen.
    pub fn contains(&self, index: usize) -> bool {
        self.0.get(index).copied().unwrap_or(false)
    }

    /// Returns how many units are frozen.
    pub fn count(&self) -> usize {
        self.0.iter().filter(|frozen| **frozen).count()
    }

    /// Returns the parameters that are frozen with the set: those of its units that no other unit uses.
    pub fn parameters<'a>(&self, units: &'a [Unit]) -> HashSet<&'a str> {
        let training = units.iter().enumerate().filter(|(index, _)| !self.contains(*index));
        let in_use: HashSet<&str> = training.flat_map(|(_, unit)| unit.shared.iter().map(String::as_str)).collect();
        let frozen = units.iter().enumerate().filter(|(index, _)| self.contains(*index));
        let names = frozen.flat_map(|(_, unit)| unit.parameters.iter().map(String::as_str));
        names.filter(|name| !in_use.contains(name)).collect()
    }

    /// Returns how many units the set speaks about.
    pub fn units(&self) -> usize {
        self.0.len()
    }
}

impl From<Vec<bool>> for FrozenSet {
    fn from(frozen: Vec<bool>) -> FrozenSet {
        FrozenSet(frozen)
    }
}
