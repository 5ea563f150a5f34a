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
pub struct FreezePlan {
    /// [`FORMAT`].
    pub format: String,
    /// The model that is planned for.
    pub model: ModelInfo,
    /// The units, from the input side.
    pub units: Vec<PlannedUnit>,
    /// Who decided.
    pub policy: PolicyRecord,
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
}

/// The policy and its knobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

/// What is frozen while one epoch trains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochPlan {
    /// Epoch, from 1.
    pub epoch: usize,
    /// Units of which every parameter is frozen.
    pub frozen_units: usize,
    /// The schedule's value in [0, 1], before it is turned into a count.
    pub fraction: f64,
    /// Names of the frozen initializers, in the order of the units.
    pub frozen: Vec<String>,
    /// Factors on the learning rate by initializer name; 1 where absent.
    pub lr_scale: BTreeMap<String, f64>,
    /// What a step is predicted to cost.
    pub predicted: Predicted,
}

/// What a step is predicted to cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Predicted {
    /// Flops of a step relative to one with nothing frozen.
    pub step_cost: f64,
    /// Flops of the backward pass of one step.
    pub backward_flops: u64,
    /// Bytes of gradients and optimizer slots.
    pub state_bytes: u64,
}

/// The decision after the last epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FinalDecision {
    /// Units of which every parameter is frozen.
    pub frozen_units: usize,
    /// The schedule's value in [0, 1].
    pub fraction: f64,
    /// Names of the frozen initializers.
    pub frozen: Vec<String>,
}

/// The plan as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Mean of `step_cost` over the epochs.
    pub cost_ratio: f64,
    /// The largest speedup this can give: `1 / cost_ratio`.
    pub ceiling: f64,
    /// Names of trainable parameters that keep the backward pass alive below frozen ones.
    pub keeps_backward_alive: Vec<String>,
    /// Sentences for a person.
    pub notes: Vec<String>,
}

/// A run of epochs with one frozen set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First epoch, from 1.
    pub first_epoch: usize,
    /// Last epoch, included.
    pub last_epoch: usize,
    /// Names of the frozen initializers.
    pub frozen: Vec<String>,
}

/// Returns the runs of epochs with the same frozen set, in order.
pub fn segments(plan: &FreezePlan) -> Vec<Segment> {
    let runs = plan.epochs.chunk_by(|a, b| a.frozen == b.frozen);
    let segment = |run: &[EpochPlan]| {
        let (first, last) = (run.first()?, run.last()?);
        Some(Segment { first_epoch: first.epoch, last_epoch: last.epoch, frozen: first.frozen.clone() })
    };
    runs.filter_map(segment).collect()
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
