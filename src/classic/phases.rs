//! `phases.json`: which epochs train with which folder.

use super::{ClassicError, Phase};
use crate::losses::LossSpec;
use crate::optim::OptimizerSpec;
use crate::plan::{FreezePlan, OnReturn, Segment, segments, sha256_hex};
use crate::training::Port;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What the field `format` of the file says.
pub const PHASES_FORMAT: &str = "freeze-plan-phases/1";

/// The folders of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Phases {
    /// `freeze-plan-phases/1`.
    pub format: String,
    /// The plan, which lies beside this file.
    pub plan: FileName,
    /// The model that the files were made from.
    pub model: FileName,
    /// The loss.
    pub loss: LossSpec,
    /// The optimizer; its `lr` is the learning rate to begin with.
    pub optimizer: OptimizerSpec,
    /// Dropout while training, as `--dropout` takes it.
    pub dropout: String,
    /// What becomes of the averages of parameters that train again.
    pub on_return: OnReturn,
    /// Inputs of the training step, in its order.
    pub inputs: Vec<Port>,
    /// Outputs of the eval step, in its order.
    pub outputs: Vec<Port>,
    /// One entry for each frozen set.
    pub phases: Vec<PhaseFolder>,
}

/// A file and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileName {
    /// Name.
    pub file: String,
    /// SHA-256 in lowercase hexadecimal.
    pub sha256: String,
}

/// The files of one frozen set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PhaseFolder {
    /// Name of the folder; `None` where nothing trains and these epochs are left out.
    pub folder: Option<String>,
    /// When it trains, in order.
    pub when: Vec<Stretch>,
    /// Names of the parameters that train.
    pub trains: Vec<String>,
    /// Names of the state of the checkpoint that has no gradient.
    pub frozen: Vec<String>,
    /// Those of `frozen` that move as the training step runs.
    pub moves: Vec<String>,
}

/// Steps that train with one frozen set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Stretch {
    /// First epoch, from 1.
    pub first_epoch: usize,
    /// Steps of that epoch that come before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub after: usize,
    /// Last epoch, included.
    pub last_epoch: usize,
    /// Steps of that epoch after which it ends; absent for its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<usize>,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Phases {
    /// Returns the file of a plan, without entries of frozen sets.
    pub fn of(plan: &FreezePlan, model: FileName, loss: &LossSpec, optimizer: &OptimizerSpec, dropout: &str) -> Phases {
        let on_return = plan.policy.settings.get("on_return").cloned();
        Phases {
            format: PHASES_FORMAT.into(),
            plan: FileName { file: "plan.json".into(), sha256: sha256_hex(plan.to_json().as_bytes()) },
            model,
            loss: loss.clone(),
            optimizer: OptimizerSpec { lr: Some(optimizer.lr()), ..optimizer.clone() },
            dropout: dropout.to_string(),
            on_return: on_return.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            phases: Vec::new(),
        }
    }
}

impl PhaseFolder {
    /// Returns the entry of a frozen set.
    pub fn of(segments: &[Segment], phase: Option<&Phase>) -> PhaseFolder {
        let stretch = |segment: &Segment| Stretch {
            first_epoch: segment.first_epoch,
            after: segment.after,
            last_epoch: segment.last_epoch,
            until: segment.until,
        };
        PhaseFolder {
            folder: phase.and(segments.first()).map(name),
            when: segments.iter().map(stretch).collect(),
            trains: phase.map(|phase| phase.trains.clone()).unwrap_or_default(),
            frozen: phase.map(|phase| phase.frozen.clone()).unwrap_or_default(),
            moves: phase.map(|phase| phase.moves.clone()).unwrap_or_default(),
        }
    }
}

/// Returns the name of the folder of a frozen set, of the segment that it first holds in.
fn name(first: &Segment) -> String {
    let within = if first.after > 0 { format!("-step-{:04}", first.after) } else { String::new() };
    format!("epoch-{:04}{within}", first.first_epoch)
}

/// Returns the segments of each frozen set of a plan, in the order of their first epochs.
///
/// # Errors
/// The plan multiplies the learning rate of a parameter.
pub fn folders(plan: &FreezePlan) -> Result<Vec<Vec<Segment>>, ClassicError> {
    for epoch in plan.epochs.iter().flat_map(|epoch| epoch.stretches()) {
        let frozen: BTreeSet<&str> = epoch.frozen.iter().map(String::as_str).collect();
        let scaled = epoch.lr_scale.iter().find(|(name, factor)| **factor != 1.0 && !frozen.contains(name.as_str()));
        if let Some((parameter, factor)) = scaled {
            return Err(ClassicError::Rate { parameter: parameter.clone(), factor: *factor, epoch: epoch.epoch });
        }
    }
    let mut found: Vec<Vec<Segment>> = Vec::new();
    let held = |segment: &Segment| segment.held().map(String::from).collect::<BTreeSet<_>>();
    for segment in segments(plan) {
        match found.iter_mut().find(|same| held(&same[0]) == held(&segment)) {
            Some(same) => same.push(segment),
            None => found.push(vec![segment]),
        }
    }
    Ok(found)
}
