//! The plan as data: the file `freeze-plan/1`.

use crate::cost::Flops;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// What the field `format` of a plan file says.
pub const FORMAT: &str = "freeze-plan/1";

/// Which parameters are frozen in which epoch, and what that is predicted to save.
///
/// The order of the fields is the order in the file. Fields are only ever added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FreezePlan {
    /// [`FORMAT`].
    pub format: String,
    /// The model that is planned for.
    pub model: ModelInfo,
    /// The units, from the input side.
    pub units: Vec<PlannedUnit>,
    /// Who decided.
    pub policy: PolicyRecord,
    /// What the costs are counted for.
    #[serde(default)]
    pub assumed: Assumed,
    /// One entry per epoch, from epoch 1.
    pub epochs: Vec<EpochPlan>,
    /// The decision after the last epoch, which trains nothing.
    #[serde(rename = "final")]
    pub last: FinalDecision,
    /// The plan as a whole.
    pub summary: Summary,
}

/// Which model a plan is for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ModelInfo {
    /// File name.
    pub file: String,
    /// SHA-256 of the file in lowercase hexadecimal; see [`sha256_hex`]. Empty until somebody needs it.
    pub sha256: String,
    /// Version of the default domain's operators.
    pub opset: i64,
    /// Name and version of the program that wrote the file.
    pub exporter: String,
    /// Elements of all trainable initializers.
    pub parameters: u64,
    /// Bytes of all trainable initializers.
    pub bytes: u64,
}

/// A unit and what it costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PlannedUnit {
    /// Position, from 0.
    pub index: usize,
    /// Module path.
    pub path: String,
    /// Class of the module, or operator.
    pub class: String,
    /// Names of its initializers.
    pub parameters: Vec<String>,
    /// Names of initializers of other units that it uses too; they freeze with the last of their users.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<String>,
    /// Elements of those.
    pub elements: u64,
    /// Flops of one step with nothing frozen.
    pub flops: Flops,
    /// Bytes of gradients and optimizer slots while it trains.
    pub state_bytes: u64,
    /// What remains of its backward pass, one entry for each epoch from which on it differs; the
    /// first is epoch 1. Empty in files that do not say.
    #[serde(default)]
    pub backward: Vec<Remaining>,
}

/// The backward pass of a unit from one epoch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Remaining {
    /// First epoch, from 1.
    pub from_epoch: usize,
    /// Flops of a step for gradients with respect to the data inputs of the unit's nodes.
    pub input_grad: u64,
    /// Flops of a step for gradients with respect to its parameters.
    pub weight_grad: u64,
}

/// What costs are counted for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Assumed {
    /// The first dimension that all inputs share; 0 where they do not, or where the file does not say.
    pub batch: usize,
    /// Shapes of the model's inputs, as far as they are fixed.
    pub inputs: BTreeMap<String, Vec<usize>>,
    /// Tensors that the optimizer keeps for each parameter.
    pub slots: u64,
    /// Steps of an epoch; 0 where they are not known. Then what a policy would do within an epoch it does at the
    /// start of the next one.
    #[serde(default)]
    pub steps_per_epoch: usize,
}

/// The policy and its knobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PolicyRecord {
    /// Name.
    pub name: String,
    /// Knobs by name.
    #[serde(flatten)]
    pub settings: serde_json::Map<String, serde_json::Value>,
}

impl PolicyRecord {
    /// Returns the patterns that were given under a name, such as `freeze` or `buffer`.
    pub fn patterns(&self, name: &str) -> Vec<String> {
        let listed = self.settings.get(name).and_then(|value| value.as_array());
        listed.into_iter().flatten().filter_map(|pattern| pattern.as_str().map(String::from)).collect()
    }
}

/// What is frozen while one epoch trains, or from some step of it on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EpochPlan {
    /// Epoch, from 1.
    pub epoch: usize,
    /// Steps of the epoch that come before; 0 but for entries of `changes`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub after: usize,
    /// Units of which every parameter is frozen.
    pub frozen_units: usize,
    /// The schedule's value in [0, 1], before it is turned into a count.
    pub fraction: f64,
    /// Names of the frozen initializers, in the order of the units.
    pub frozen: Vec<String>,
    /// Names of the running statistics that stay and are used in place of those of the batch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub statistics: Vec<String>,
    /// Names of the outputs of Dropout nodes that pass their input on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropout_off: Vec<String>,
    /// Factors on the learning rate by initializer name; 1 where absent. Of a policy that anneals those of the first
    /// step.
    pub lr_scale: BTreeMap<String, f64>,
    /// What a step is predicted to cost.
    pub predicted: Predicted,
    /// What is frozen instead from later steps of the epoch on, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<EpochPlan>,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl EpochPlan {
    /// Returns the entry of the epoch's start and those of its changes.
    pub fn stretches(&self) -> impl Iterator<Item = &EpochPlan> {
        std::iter::once(self).chain(&self.changes)
    }

    /// Returns the entry that holds after `after` steps of the epoch.
    pub fn at(&self, after: usize) -> &EpochPlan {
        self.changes.iter().rev().find(|change| change.after <= after).unwrap_or(self)
    }

    /// Returns the entries of [`EpochPlan::stretches`], each with the fraction of the epoch's steps in which it holds.
    pub fn shares(&self, steps_per_epoch: usize) -> Vec<(&EpochPlan, f64)> {
        if self.changes.is_empty() || steps_per_epoch == 0 {
            return vec![(self, 1.0)];
        }
        let ends = self.changes.iter().map(|change| change.after).chain([steps_per_epoch]);
        let share = |(stretch, end): (&'_ EpochPlan, usize)| end.saturating_sub(stretch.after) as f64;
        let parts = self.stretches().zip(ends);
        parts.map(|part| (part.0, share(part) / steps_per_epoch as f64)).collect()
    }

    /// Returns a predicted number, averaged over the steps of the epoch.
    pub fn mean(&self, steps_per_epoch: usize, number: impl Fn(&Predicted) -> f64) -> f64 {
        if self.changes.is_empty() || steps_per_epoch == 0 {
            return number(&self.predicted);
        }
        self.shares(steps_per_epoch).into_iter().map(|(stretch, share)| number(&stretch.predicted) * share).sum()
    }

    /// Returns the names of all that is frozen: parameters, statistics, outputs of Dropout nodes.
    pub fn held(&self) -> impl Iterator<Item = &str> {
        self.frozen.iter().chain(&self.statistics).chain(&self.dropout_off).map(String::as_str)
    }

    /// Returns true where the same is frozen and learns at the same rates as in another entry, step by step.
    pub fn acts_as(&self, other: &EpochPlan) -> bool {
        let same = |(a, b): (&EpochPlan, &EpochPlan)| a.after == b.after && a.holds_as(b) && a.lr_scale == b.lr_scale;
        self.changes.len() == other.changes.len() && self.stretches().zip(other.stretches()).all(same)
    }

    pub(super) fn holds_as(&self, other: &EpochPlan) -> bool {
        (&self.frozen, &self.statistics, &self.dropout_off) == (&other.frozen, &other.statistics, &other.dropout_off)
    }
}

/// Where the seconds of a step go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StepSeconds {
    /// Making the batches.
    pub data: f64,
    /// The train graph with everything frozen: forward pass and loss.
    pub forward: f64,
    /// What the train graph takes beyond that.
    pub backward: f64,
    /// The optimizer.
    pub update: f64,
    /// What is left of the whole step.
    pub rest: f64,
}

impl StepSeconds {
    /// Returns the seconds of a step.
    pub fn total(&self) -> f64 {
        self.data + self.forward + self.backward + self.update + self.rest
    }
}

/// What the predicted seconds of a plan were measured on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Measured {
    /// Name and version of the engine.
    pub engine: String,
    /// Threads within one operator.
    pub threads: usize,
    /// Whether the predictions are sums over nodes that were timed one by one; otherwise they go by flops.
    pub by_node: bool,
    /// Predicted seconds of a step with nothing frozen.
    pub nothing: StepSeconds,
    /// Mean over the epochs of the predicted seconds of a step, relative to nothing frozen.
    pub cost_ratio: f64,
}

/// What a step is predicted to cost.
///
/// The fields after `state_bytes` are 0 when a file does not have them, `cached_step_cost` then is
/// `step_cost`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Predicted {
    /// Flops of a step relative to one with nothing frozen.
    pub step_cost: f64,
    /// Flops of the backward pass of one step.
    pub backward_flops: u64,
    /// Bytes of gradients and optimizer slots.
    pub state_bytes: u64,
    /// Flops of the forward pass of one step.
    #[serde(default)]
    pub forward_flops: u64,
    /// Flops of the gradients with respect to data.
    #[serde(default)]
    pub input_grad_flops: u64,
    /// Flops of the gradients with respect to parameters.
    #[serde(default)]
    pub weight_grad_flops: u64,
    /// Bytes of gradients.
    #[serde(default)]
    pub gradient_bytes: u64,
    /// Bytes of optimizer slots.
    #[serde(default)]
    pub slot_bytes: u64,
    /// Bytes that the forward pass makes and the backward pass reads.
    #[serde(default)]
    pub activation_bytes: u64,
    /// As `step_cost`, when the output of what was frozen already in the epoch before comes from a
    /// cache. What it takes to fill and to read the cache is not in it.
    #[serde(default = "missing")]
    pub cached_step_cost: f64,
    /// Bytes for each sample that a cache of what is frozen holds; 0 when there is nothing to
    /// cache.
    #[serde(default)]
    pub cut_bytes: u64,
    /// Seconds of a step, where they were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<StepSeconds>,
}

fn missing() -> f64 {
    f64::NAN
}

/// The decision after the last epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FinalDecision {
    /// Units of which every parameter is frozen.
    pub frozen_units: usize,
    /// The schedule's value in [0, 1].
    pub fraction: f64,
    /// Names of the frozen initializers.
    pub frozen: Vec<String>,
}

/// The plan as a whole.
///
/// The cached numbers are those without a cache when a file does not have them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Summary {
    /// Mean of `step_cost` over the epochs.
    pub cost_ratio: f64,
    /// The largest speedup this can give: `1 / cost_ratio`.
    pub ceiling: f64,
    /// Mean of `cached_step_cost` over the epochs.
    #[serde(default = "missing")]
    pub cached_cost_ratio: f64,
    /// The largest speedup with a cached prefix: `1 / cached_cost_ratio`.
    #[serde(default = "missing")]
    pub cached_ceiling: f64,
    /// Whether the schedule can pay: it saves 2 % of the compute or more, a cached prefix included.
    #[serde(default)]
    pub pays: bool,
    /// What the schedule can save at most, or why it cannot pay, in one sentence.
    #[serde(default)]
    pub verdict: String,
    /// Nodes of the model.
    #[serde(default)]
    pub nodes: usize,
    /// Nodes of which the cost is not known: with any, all costs are partial estimates.
    #[serde(default)]
    pub uncounted_nodes: usize,
    /// Names of trainable parameters that keep the backward pass alive below frozen ones.
    pub keeps_backward_alive: Vec<String>,
    /// What `cost_ratio` would be with these frozen as well, where that is less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_alive: Option<f64>,
    /// What the seconds of steps were measured on, where they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
    /// Sentences for a person.
    pub notes: Vec<String>,
}

impl FreezePlan {
    /// Replaces what an older file does not say by what it says.
    pub(super) fn complete(&mut self) {
        for predicted in self.epochs.iter_mut().map(|epoch| &mut epoch.predicted) {
            if predicted.cached_step_cost.is_nan() {
                predicted.cached_step_cost = predicted.step_cost;
            }
        }
        let summary = &mut self.summary;
        if summary.cached_cost_ratio.is_nan() || summary.cached_ceiling.is_nan() {
            (summary.cached_cost_ratio, summary.cached_ceiling) = (summary.cost_ratio, summary.ceiling);
        }
    }
}

/// A place in a run, between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Point {
    /// Epoch, from 1.
    pub epoch: usize,
    /// Steps of the epoch that come before.
    pub after: usize,
}

impl Point {
    /// The start of a run.
    pub const START: Point = Point { epoch: 1, after: 0 };
}

/// A run of steps with one frozen set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First epoch, from 1.
    pub first_epoch: usize,
    /// Steps of that epoch that come before.
    pub after: usize,
    /// Last epoch, included.
    pub last_epoch: usize,
    /// Steps of that epoch after which the segment ends; `None` for its end.
    pub until: Option<usize>,
    /// Names of the frozen initializers.
    pub frozen: Vec<String>,
    /// Names of the running statistics that stay.
    pub statistics: Vec<String>,
    /// Names of the outputs of Dropout nodes that pass their input on.
    pub dropout_off: Vec<String>,
}

impl Segment {
    /// Returns where the segment starts.
    pub fn start(&self) -> Point {
        Point { epoch: self.first_epoch, after: self.after }
    }

    /// Returns the names of all that is frozen: parameters, statistics, outputs of Dropout nodes.
    pub fn held(&self) -> impl Iterator<Item = &str> {
        self.frozen.iter().chain(&self.statistics).chain(&self.dropout_off).map(String::as_str)
    }
}

/// Returns the runs of steps with the same frozen set, in order.
pub fn segments(plan: &FreezePlan) -> Vec<Segment> {
    let stretches: Vec<&EpochPlan> = plan.epochs.iter().flat_map(EpochPlan::stretches).collect();
    let mut segments: Vec<Segment> = Vec::new();
    for run in stretches.chunk_by(|a, b| a.holds_as(b)) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        if let Some(before) = segments.last_mut().filter(|_| first.after > 0) {
            (before.last_epoch, before.until) = (first.epoch, Some(first.after));
        }
        segments.push(Segment {
            first_epoch: first.epoch,
            after: first.after,
            last_epoch: last.epoch,
            until: None,
            frozen: first.frozen.clone(),
            statistics: first.statistics.clone(),
            dropout_off: first.dropout_off.clone(),
        });
    }
    segments
}

/// Returns the SHA-256 of `bytes` in lowercase hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_sha256sum() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_hex(b"abc"), expected);
    }
}
