//! `[run]`: how long, where, and on what.

use crate::runner::precision::{Keep, LossScale, Precision, ScaleMode};
use crate::runner::{Computing, Device, NoDevice, Nonfinite, OnNonfinite, Operators};
use crate::training::Recompute;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The run itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RunSection {
    /// Epochs, at least 1.
    pub epochs: u64,
    /// On what it computes: `"cpu"` (default), `"cuda"` (the first device of NVIDIA) or `"cuda:1"` (another one, as CUDA
    /// counts them). A run on CUDA that cannot be there is refused; it never computes on the CPU instead.
    #[serde(default = "cpu")]
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^(cpu|cuda|cuda:[0-9]+)$")))]
    pub device: String,
    /// The folder of the run.
    pub dir: PathBuf,
    /// Threads within one operator; all cores by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Whose operators compute a step: `"own"` (default) or `"standard"`.
    #[serde(default)]
    pub operators: Operators,
    /// In which dtypes a step computes: `"fp32"` (default), on CUDA also `"tf32"`, `"bf16"` or `"fp16"`. Parameters, slots,
    /// gradients as the update reads them, running statistics and the loss are float32 with all of them.
    #[serde(default)]
    pub precision: Precision,
    /// Whether steps of fixed shapes are captured as CUDA graphs and replayed, which saves the time to start each kernel;
    /// true by default. It matters on CUDA only.
    #[serde(default = "yes")]
    pub cuda_graphs: bool,
    /// What stays float32 with `"bf16"` and `"fp16"` beside what always does: patterns of operators' types and of paths of
    /// modules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep_float32: Vec<String>,
    /// `[run.loss_scale]`: how the loss is scaled with `"fp16"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<LossScale>,
    /// Modules whose activations are computed again in the backward pass: `"none"` (default), `"auto"`
    /// or a list of patterns.
    #[serde(default)]
    pub recompute: Recompute,
    /// Batches whose gradients are averaged for one step, at least 1; 1 by default.
    #[serde(default = "one")]
    pub accumulate: u64,
    /// Steps between two `step` events, at least 1; 10 by default.
    #[serde(default = "ten")]
    pub log_every: u64,
    /// Steps that are measured before the first one, to tell what the freezing can save; 5 by default, 0 for no such
    /// check.
    #[serde(default = "five")]
    pub ceiling_steps: u64,
    /// What becomes of a step whose loss or gradients are NaN or infinite: `"stop"` (default), `"skip"` or `"rollback"`.
    #[serde(default)]
    pub nonfinite: OnNonfinite,
    /// Such steps in a row after which the run stops in any case, at least 1; 10 by default.
    #[serde(default = "limit")]
    pub nonfinite_limit: u64,
    /// Seed of everything random but the order of rows; 0 by default.
    #[serde(default)]
    pub seed: u64,
    /// Whether event files for TensorBoard are written to `tensorboard` in the folder of the run; false by default.
    #[serde(default)]
    pub tensorboard: bool,
}

impl RunSection {
    /// Returns a run of some epochs in a folder, on the CPU.
    pub fn new(epochs: u64, dir: impl Into<PathBuf>) -> RunSection {
        RunSection {
            epochs,
            device: cpu(),
            dir: dir.into(),
            threads: None,
            operators: Operators::Own,
            cuda_graphs: yes(),
            precision: Precision::Fp32,
            keep_float32: Vec::new(),
            loss_scale: None,
            recompute: Recompute::None,
            accumulate: one(),
            log_every: ten(),
            tensorboard: false,
            ceiling_steps: five(),
            nonfinite: OnNonfinite::default(),
            nonfinite_limit: limit(),
            seed: 0,
        }
    }

    /// Returns the device.
    ///
    /// # Errors
    /// The text names none; that of a job that was read does.
    pub fn device(&self) -> Result<Device, NoDevice> {
        self.device.parse()
    }

    /// Returns how the run computes, with what it keeps in float32.
    pub fn computing(&self, keep: Keep) -> Computing {
        let computing = Computing::of(self.precision);
        Computing { keep, scale: computing.scale.map(|scale| self.loss_scale.unwrap_or(scale)), ..computing }
    }

    /// Returns true where the loss is scaled.
    pub fn is_scaled(&self) -> bool {
        let off = |scale: LossScale| scale.mode == ScaleMode::Off;
        self.precision == Precision::Fp16 && !self.loss_scale.is_some_and(off)
    }

    /// Returns the key and the reason of a setting of the precision that does not go with the others.
    pub(super) fn precision_problem(&self) -> Option<(&'static str, String)> {
        let refused = self.precision != Precision::Fp32 && self.device.parse() == Ok(Device::Cpu);
        let only = || format!("expected \"fp32\" on device \"{}\", found \"{}\"", self.device, self.precision);
        let needs = |key, wanted: &str| (key, format!("goes with precision {wanted}, found \"{}\"", self.precision));
        let keeps = !self.keep_float32.is_empty() && self.precision.low().is_none();
        let scales = self.loss_scale.is_some() && self.precision != Precision::Fp16;
        refused
            .then(|| ("run.precision", only()))
            .or_else(|| keeps.then(|| needs("run.keep_float32", "\"bf16\" or \"fp16\"")))
            .or_else(|| scales.then(|| needs("run.loss_scale", "\"fp16\"")))
            .or_else(|| self.loss_scale.as_ref().and_then(LossScale::problem))
    }

    /// Returns what becomes of steps that are not finite.
    pub fn nonfinite(&self) -> Nonfinite {
        let limit = usize::try_from(self.nonfinite_limit).unwrap_or(usize::MAX);
        Nonfinite { action: self.nonfinite, limit }
    }
}

fn limit() -> u64 {
    Nonfinite::LIMIT as u64
}

fn five() -> u64 {
    5
}

fn yes() -> bool {
    true
}

fn cpu() -> String {
    "cpu".into()
}

fn one() -> u64 {
    1
}

fn ten() -> u64 {
    10
}
