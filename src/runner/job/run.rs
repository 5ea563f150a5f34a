//! `[run]`: how long, where, and on what.

use crate::runner::{Device, NoDevice, Nonfinite, OnNonfinite, Operators};
use crate::training::Recompute;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The run itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSection {
    /// Epochs, at least 1.
    pub epochs: u64,
    /// On what it computes: `"cpu"` (default), `"cuda"` (the first device of NVIDIA) or `"cuda:1"` (another one, as CUDA
    /// counts them). A run on CUDA that cannot be there is refused; it never computes on the CPU instead.
    #[serde(default = "cpu")]
    pub device: String,
    /// The folder of the run.
    pub dir: PathBuf,
    /// Threads within one operator; all cores by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Whose operators compute a step: `"own"` (default) or `"standard"`.
    #[serde(default)]
    pub operators: Operators,
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

fn cpu() -> String {
    "cpu".into()
}

fn one() -> u64 {
    1
}

fn ten() -> u64 {
    10
}
