//! What a policy sees and what it answers.

use crate::cost::UnitCost;
use crate::modules::Unit;
use std::collections::BTreeMap;

/// Decides which units are frozen.
///
/// The same moment gives the same decision: a policy keeps no state, so a resumed run decides as
/// one that did not stop.
pub trait Policy {
    /// Returns the name that is written to the plan file.
    fn name(&self) -> &str;

    /// Returns what is frozen after `at.completed` epochs, that is in epoch `at.completed + 1`.
    fn decide(&self, at: &Moment<'_>) -> Decision;

    /// Returns the knobs by name, for the plan file.
    fn settings(&self) -> serde_json::Map<String, serde_json::Value> {
        serde_json::Map::new()
    }
}

/// When a policy is asked, and about what.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// The units, from the input side.
    pub units: &'a [Unit],
    /// What each unit costs.
    pub costs: &'a [UnitCost],
    /// Epochs of the whole run, at least 1.
    pub epochs: usize,
    /// Epochs that have ended, from 0 to `epochs`.
    pub completed: usize,
    /// What those epochs measured; empty while a plan is only previewed.
    pub history: &'a History,
}

/// What a run has measured so far.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct History {
    /// One record per completed epoch, in order.
    pub epochs: Vec<EpochRecord>,
}

/// What one epoch measured.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct EpochRecord {
    /// Metrics by name, such as `train_loss`.
    pub metrics: BTreeMap<String, f64>,
}

/// What a policy answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Which units are frozen.
    pub frozen: FrozenSet,
    /// The schedule's value before it is turned into a count, in [0, 1].
    pub fraction: f64,
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
