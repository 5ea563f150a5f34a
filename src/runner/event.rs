//! What a run reports while it runs; one JSON object each in `events.jsonl`.

use super::Operators;
use super::ceiling::Ceiling;
use super::estimate::MemoryEstimate;
use super::nonfinite::{Cause, OnNonfinite};
use super::precision::Precision;
use crate::plan::Signal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An event with the seconds since the start of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Timed {
    /// What happened.
    #[serde(flatten)]
    pub event: RunEvent,
    /// Seconds since the start.
    pub time: f64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "lowercase")]
#[non_exhaustive]
pub enum RunEvent {
    /// The run begins.
    Start {
        /// Version of this program.
        version: String,
        /// `onnxruntime` or `tract`.
        engine: String,
        /// Version of the engine.
        engine_version: String,
        /// `cpu`.
        device: String,
        /// Threads within one operator.
        threads: usize,
        /// Whose operators compute a step: `own` where ours are among them, else `standard`.
        #[serde(default = "Operators::standard")]
        operators: Operators,
        /// The vectors that ours compute with, such as `avx512`.
        #[serde(default)]
        vectors: String,
        /// In which dtypes a step computes.
        #[serde(default)]
        precision: Precision,
        /// Elements of all trainable parameters.
        parameters: u64,
        /// Epochs that the run will have.
        epochs: usize,
        /// Steps that the run will have.
        steps: usize,
        /// Elements of the training data along the batch dimension.
        samples: usize,
    },
    /// A set of parameters is frozen and the graphs for it are ready.
    Phase {
        /// First epoch of the phase, from 1.
        epoch: usize,
        /// Steps of that epoch that come before.
        #[serde(default, skip_serializing_if = "is_zero")]
        after: usize,
        /// Frozen parameters.
        frozen: usize,
        /// Frozen units.
        frozen_units: usize,
        /// Seconds to make the graphs and sessions, some of them while the phase before trains.
        seconds: f64,
        /// Seconds that training waits between the last step of the phase before and the first one of this, without
        /// evaluation and checkpoints; 0 for the first.
        #[serde(default)]
        stall_seconds: f64,
        /// Predicted cost of a step relative to nothing frozen.
        predicted_step_cost: f64,
        /// Predicted seconds of a step, with making the batch, where some were measured.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        predicted_step_seconds: Option<f64>,
        /// Nodes of the train graph.
        nodes: usize,
        /// Modules that compute their activations a second time.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        recomputed: Vec<String>,
        /// Nodes of the frozen prefix that runs on its own before the train graph; 0 where none does.
        #[serde(default, skip_serializing_if = "is_zero")]
        prefix_nodes: usize,
        /// What the phase is estimated to take of memory where its graphs run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        memory_estimate: Option<MemoryEstimate>,
    },
    /// Whether what the frozen prefix of the phase makes of the samples is kept, and why not.
    Cache {
        /// First epoch of the phase, from 1.
        epoch: usize,
        /// Steps of that epoch that come before.
        #[serde(default, skip_serializing_if = "is_zero")]
        after: usize,
        /// Whether it is kept and read back.
        used: bool,
        /// Why it is not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// `device`, `memory` or `disk`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        place: Option<String>,
        /// The values of the train graph that are kept.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        values: Vec<String>,
        /// Bytes for each row of the training data.
        sample_bytes: u64,
        /// Bytes for all rows.
        bytes: u64,
        /// What it is filled from at first: `data`, what the phase before `kept`, or a `file` of this run or an earlier one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        /// Seconds to compute a batch, where that was measured.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        compute_seconds: Option<f64>,
        /// Seconds to read a batch back, where that was measured.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        read_seconds: Option<f64>,
    },
    /// Graphs with all that is frozen as constants take over from those that a phase began with, in which what froze with
    /// it are inputs.
    Constants {
        /// Epoch of the next step, from 1.
        epoch: usize,
        /// Steps done over the run.
        step: usize,
        /// Parameters and statistics that become constants.
        values: usize,
        /// Seconds to make the graphs and sessions, some of them while steps train.
        seconds: f64,
        /// Seconds that training waits.
        stall_seconds: f64,
    },
    /// A phase is over, and what was frozen in it is bit for bit what it was.
    Proof {
        /// First epoch of the phase, from 1.
        from_epoch: usize,
        /// Last epoch of the phase.
        to_epoch: usize,
        /// Frozen parameters.
        parameters: usize,
        /// Running statistics that stay.
        statistics: usize,
        /// SHA-256 of one line for each of them: the SHA-256 of its bytes, two spaces, its name.
        sha256: String,
    },
    /// What the policy wanted to know was measured.
    Observation {
        /// Steps done over the run.
        step: usize,
        /// Of each signal a value per unit, none where there is none.
        signals: BTreeMap<Signal, Vec<Option<f64>>>,
        /// Seconds that this took since the observation before, in the steps and after them.
        #[serde(default)]
        seconds: f64,
    },
    /// The policy decided by what was measured, and the frozen set changes.
    Decision {
        /// Epoch of the next step, from 1.
        epoch: usize,
        /// Steps done over the run.
        step: usize,
        /// Parameters that are frozen from now on.
        frozen: usize,
        /// Units that are frozen from now on.
        frozen_units: usize,
    },
    /// A freeze is taken back: the run goes on as it was before it.
    Rollback {
        /// The epoch after which the metric was judged, from 1.
        epoch: usize,
        /// The epoch that the run goes back to.
        to_epoch: usize,
        /// Steps done over the run where it goes back to.
        to_step: usize,
        /// The metric.
        metric: String,
        /// Its value before the freeze.
        before: f64,
        /// Its value after it; absent where it is not finite.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<f64>,
        /// Epochs by which freezes are put off in all.
        delay: usize,
    },
    /// What the schedule can save, told from a few steps before the first one.
    Ceiling(Ceiling),
    /// The steps of one frozen set are over.
    Speed {
        /// First epoch of them, from 1.
        epoch: usize,
        /// Steps of that epoch that come before.
        #[serde(default, skip_serializing_if = "is_zero")]
        after: usize,
        /// Steps.
        steps: usize,
        /// Predicted seconds of a step, with making the batch.
        predicted_seconds: f64,
        /// Median of the seconds of a step, with making the batch; the first two are left out.
        median_seconds: f64,
        /// Predicted seconds of the change to this frozen set; 0 where no graphs are built and for the first.
        predicted_change_seconds: f64,
        /// Seconds of the change to this frozen set, with what its first two steps took beyond the median; 0 for the
        /// first.
        change_seconds: f64,
    },
    /// What freezing saved beside what it was predicted to save, for the steps that were done.
    Gain {
        /// Predicted fraction of the time of a run with nothing frozen that is saved, less the phase changes.
        predicted: f64,
        /// As `predicted`, without the phase changes.
        predicted_steps: f64,
        /// Measured fraction that the steps saved: each at the median of its frozen set against the median of the
        /// one that costs most, which is scaled as predicted where something is frozen in it.
        steps: f64,
        /// As `steps`, less the phase changes.
        gain: f64,
        /// Seconds of all steps as they would be with nothing frozen.
        seconds_without: f64,
        /// Seconds of all steps at the medians of their frozen sets, and of the phase changes.
        seconds_with: f64,
        /// Seconds of the phase changes.
        change_seconds: f64,
    },
    /// A step is done.
    Step {
        /// Epoch, from 1.
        epoch: usize,
        /// Step over the whole run, from 1.
        step: usize,
        /// Mean loss of the step's batches before the update.
        loss: f64,
        /// Learning rate of the update; absent where a training step of the file does not tell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lr: Option<f64>,
        /// Seconds of the step alone, without loading data.
        seconds: f64,
        /// Seconds that its data were waited for.
        #[serde(default)]
        wait_seconds: f64,
    },
    /// An epoch is done and evaluated.
    Epoch {
        /// Epoch, from 1.
        epoch: usize,
        /// Mean loss over the epoch's samples.
        train_loss: f64,
        /// Metrics on the eval data by name, such as `loss` and `accuracy`; empty where the epoch is not evaluated.
        metrics: BTreeMap<String, f64>,
        /// Of each measure a value per class, none where it is not defined; where that was asked for.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        per_class: BTreeMap<String, Vec<Option<f64>>>,
        /// A row per class that is right, a column per class that is predicted; where that was asked for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        confusion: Vec<Vec<u64>>,
        /// Metrics that are not defined for the eval data, with the reasons.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        undefined: BTreeMap<String, String>,
        /// Seconds of the epoch's steps, with data loading, without evaluation.
        seconds: f64,
        /// Training samples per second.
        samples_per_second: f64,
        /// Seconds of `seconds` in which data were waited for.
        #[serde(default)]
        wait_seconds: f64,
        /// Peak resident memory of the process in bytes; 0 where the system does not tell.
        peak_bytes: u64,
        /// The most bytes that the engine has held on its device, where that has a memory of its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device_peak_bytes: Option<u64>,
    },
    /// The run ends before its last epoch: a metric does not get better.
    #[serde(rename = "early_stop")]
    EarlyStop {
        /// Epoch, from 1.
        epoch: usize,
        /// The metric.
        metric: String,
        /// The last epoch in which it got better, from 1; absent where it had no value.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        best_epoch: Option<usize>,
        /// Its value there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        best: Option<f64>,
        /// Evaluations since then.
        evaluations: u64,
    },
    /// The loss or a gradient of a step is not finite: the step changed nothing.
    Nonfinite {
        /// Epoch, from 1.
        epoch: usize,
        /// Step over the whole run, from 1.
        step: usize,
        /// The batch of the step, from 1.
        batch: usize,
        /// The loss of the batch; absent where that is not finite.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        loss: Option<f64>,
        /// The gradient that is not finite, where the loss is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gradient: Option<String>,
        /// What becomes of the run.
        action: OnNonfinite,
        /// Such steps since the last good one, this one included.
        in_a_row: usize,
        /// The first tensor that is not finite; absent where a second run of the step does not show one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<Cause>,
        /// Seconds that this took, with finding the tensor.
        seconds: f64,
    },
    /// What of the train graph of a phase computes in what, in mixed precision: nodes by operator.
    Precision {
        /// First epoch of the phase, from 1.
        epoch: usize,
        /// Nodes that compute in bfloat16 or float16.
        low: BTreeMap<String, usize>,
        /// Nodes that compute in float32.
        float32: BTreeMap<String, usize>,
        /// Those of `float32` that the job keeps.
        kept: usize,
        /// Casts between the two.
        casts: usize,
    },
    /// The scale of the loss changed.
    #[serde(rename = "loss_scale")]
    LossScale {
        /// Epoch, from 1.
        epoch: usize,
        /// Step over the whole run, from 1, after which it changed.
        step: usize,
        /// What it is now.
        scale: f64,
        /// Whether that is because a gradient of the step is not finite; then the step changed nothing.
        overflow: bool,
    },
    /// A checkpoint was written.
    Checkpoint {
        /// Epoch, from 1.
        epoch: usize,
        /// Step over the whole run, from 1.
        step: usize,
        /// Its folder.
        path: String,
        /// Which checkpoint of the run it is, from 1.
        #[serde(default)]
        sequence: u64,
    },
    /// The run goes on where a checkpoint stands.
    Resume {
        /// Epoch of the next step, from 1.
        epoch: usize,
        /// Steps done over the run.
        step: usize,
        /// Which checkpoint of the run it is.
        sequence: u64,
    },
    /// Something that the user should know and that does not stop the run.
    Warning {
        /// The text.
        message: String,
    },
    /// The run is over.
    End {
        /// `done`, `stopped` or `failed`.
        status: String,
        /// Why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// Metrics of the trained model on the eval data.
        metrics: BTreeMap<String, f64>,
        /// Seconds of the run since it began, or went on.
        seconds: f64,
    },
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}
