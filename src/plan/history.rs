//! What a run has measured, as plain data: all that an adaptive policy knows of it.

use crate::modules::Unit;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Something that a policy wants measured for each unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Signal {
    /// L1 norm of the sum of the unit's gradients over the steps of the interval.
    GradientSum,
    /// Mean over the steps of the interval of the sum of the unit's squared gradients: an estimate of the trace of
    /// its Fisher information.
    GradientSquare,
    /// Mean over the unit's elements of `|w_before - w| / |w_before|` in the last step of the interval.
    WeightChange,
    /// `-sum(gradient * update)` of a trial step with nothing frozen, the gradient taken after the step; the
    /// weights are put back.
    Importance,
    /// Similarity-preserving loss between the unit's output and that of its reference.
    SimilarityPreserving,
    /// Mean SVCCA coefficient of the unit's output and that of its reference.
    Svcca,
    /// Projection-weighted CCA of the same.
    Pwcca,
    /// Linear CKA of the same.
    Cka,
    /// Minibatch CKA (unbiased HSIC) of the same.
    MinibatchCka,
}

impl Signal {
    /// Returns true where the signal compares the outputs of units with those of a reference: the model as it was at
    /// an earlier point.
    pub fn compares(self) -> bool {
        matches!(
            self,
            Signal::SimilarityPreserving | Signal::Svcca | Signal::Pwcca | Signal::Cka | Signal::MinibatchCka
        )
    }
}

/// What a run has measured so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct History {
    /// One record per completed epoch, in order.
    pub epochs: Vec<EpochRecord>,
    /// One for each point at which the policy wanted to be asked, in order.
    pub observations: Vec<Observation>,
    /// Where the seconds of a step go, where that was measured before the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speeds: Option<Speeds>,
}

/// Where the seconds of a step go, measured on the machine that trains.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speeds {
    /// Seconds that no freeze removes: data, forward pass, loss.
    pub fixed: f64,
    /// Seconds for each flop of the backward pass.
    pub backward: f64,
    /// Seconds of the update for each byte of gradient.
    pub update: f64,
}

/// What one epoch measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EpochRecord {
    /// Metrics by name, such as `train_loss`; without those that are not finite.
    pub metrics: BTreeMap<String, f64>,
    /// Whether the epoch ended with an evaluation.
    #[serde(default)]
    pub evaluated: bool,
}

impl EpochRecord {
    /// Returns true where the epoch says something of a metric: a value, or by its absence from an evaluation that
    /// there is none.
    pub fn judges(&self, metric: &str) -> bool {
        self.evaluated || self.metrics.contains_key(metric)
    }
}

/// What was measured from one point to the next.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Observation {
    /// Steps of the run that were done.
    pub step: usize,
    /// Learning rate of the last of them, before factors of single units.
    pub lr: f64,
    /// Mean loss of the interval's steps.
    pub loss: f64,
    /// Which units were frozen in the interval: one truth value per unit.
    pub frozen: Vec<bool>,
    /// Of each signal one value per unit; none where the unit was frozen or has none.
    pub signals: BTreeMap<Signal, Vec<Option<f64>>>,
}

impl Observation {
    /// Returns an observation without signals.
    pub fn new(step: usize, lr: f64, loss: f64, frozen: Vec<bool>) -> Observation {
        Observation { step, lr, loss, frozen, signals: BTreeMap::new() }
    }

    /// Returns what was measured of a unit.
    pub fn value(&self, signal: Signal, unit: usize) -> Option<f64> {
        self.signals.get(&signal)?.get(unit).copied().flatten()
    }
}

/// What an observation says of one unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reading {
    /// A finite value.
    Value(f64),
    /// The unit trained, and there is no value or no finite one.
    Unknown,
    /// There is nothing to measure: the unit was frozen, or owns no parameter.
    Absent,
}

impl Reading {
    /// Returns the value, where there is one.
    pub fn value(self) -> Option<f64> {
        match self {
            Reading::Value(value) => Some(value),
            Reading::Unknown | Reading::Absent => None,
        }
    }
}

impl Observation {
    /// Returns what is known of each unit by a signal. A history that was written and read again reads the same,
    /// although a file holds no value that is not finite.
    pub fn readings(&self, signal: Signal, units: &[Unit]) -> Vec<Reading> {
        let frozen = |index: usize| self.frozen.get(index).copied().unwrap_or(false);
        let reading = |(index, unit): (usize, &Unit)| match self.value(signal, index) {
            Some(value) if value.is_finite() => Reading::Value(value),
            _ if frozen(index) || unit.parameters.is_empty() => Reading::Absent,
            _ => Reading::Unknown,
        };
        units.iter().enumerate().map(reading).collect()
    }
}
