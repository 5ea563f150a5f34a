//! The learning rate of every step, as a pure function.
//!
//! A schedule is a function of a count `t` of a total `T`: with `per = "step"` steps, with `per = "epoch"` whole epochs
//! that are done. One file each, with the formula; all but `linear` with `lr_min`, the warm-up and the end of
//! `one-cycle` are PyTorch's schedulers of the same names.
//!
//! During a warm-up of `w` steps the rate is multiplied by `(s + 1) / w` in step `s`, from 0. That is PyTorch's
//! `LinearLR` with `start_factor = 1 / w` and `total_iters = w - 1`; others begin at 0, with `s / w`. With
//! `per = "step"` the schedule starts when the warm-up is over (`SequentialLR`): `t = s - w` of `T` less `w`. With
//! `per = "epoch"` it runs from the first epoch, and the warm-up is a factor on it.
//!
//! What follows a metric reads it in the history of the run, so that a run that is resumed finds the same rates.

mod constant;
mod cosine;
mod exponential;
mod linear;
mod multistep;
mod one_cycle;
mod plateau;
mod polynomial;
mod step;
#[cfg(test)]
mod tests;

pub use constant::Constant;
pub use cosine::Cosine;
pub use exponential::Exponential;
pub use linear::Linear;
pub use multistep::MultiStep;
pub use one_cycle::{Anneal, OneCycle};
pub use plateau::{Plateau, ThresholdMode};
pub use polynomial::Polynomial;
pub use step::Step;

use crate::metrics::Metric;
use crate::plan::EpochRecord;
use serde::{Deserialize, Serialize};

/// The shape of the learning rate over a run, `[schedule]` of a job file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[allow(missing_docs)]
pub enum Schedule {
    Constant(Constant),
    Step(Step),
    #[serde(rename = "multistep")]
    MultiStep(MultiStep),
    Cosine(Cosine),
    OneCycle(OneCycle),
    Polynomial(Polynomial),
    Exponential(Exponential),
    Linear(Linear),
    Plateau(Plateau),
}

/// What a schedule counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// Steps: the rate changes with every one.
    Step,
    /// Whole epochs that are done: the rate is the same throughout an epoch.
    Epoch,
}

impl Per {
    fn step() -> Per {
        Per::Step
    }

    fn epoch() -> Per {
        Per::Epoch
    }
}

/// A kind of schedule.
trait Shape {
    /// Returns the rate.
    fn rate(&self, at: &At<'_>) -> f64;
    /// Returns the key and the reason of a value out of its range.
    fn problem(&self) -> Option<Problem>;
    /// Returns what it counts, and the steps of its warm-up.
    fn pace(&self) -> (Per, u64);
}

/// A key of the job file and what is wrong with its value.
type Problem = (&'static str, String);

/// Where a run stands, as a schedule counts.
struct At<'a> {
    /// The base rate.
    base: f64,
    /// Steps or epochs that are done.
    done: u64,
    /// Steps or epochs in all, at least 1.
    total: u64,
    /// Epochs that are done, with what they measured.
    epochs: &'a [EpochRecord],
}

impl At<'_> {
    /// Returns how much is done, in [0, 1].
    fn fraction(&self) -> f64 {
        (self.done as f64 / self.total as f64).min(1.0)
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule::Constant(Constant::default())
    }
}

impl Schedule {
    /// Returns half a cosine from the base rate to `lr_min`, after a warm-up.
    pub fn cosine(lr_min: f64, warmup_steps: u64) -> Schedule {
        Schedule::Cosine(Cosine { lr_min, per: Per::Step, warmup_steps })
    }

    /// Returns a factor every `step_size` epochs.
    pub fn step(step_size: u64, gamma: f64) -> Schedule {
        Schedule::Step(Step { step_size, gamma, per: Per::Epoch, warmup_steps: 0 })
    }

    /// Returns true where the rate is the same in all steps but those of the warm-up.
    pub fn is_constant(&self) -> bool {
        matches!(self, Schedule::Constant(_))
    }

    /// Returns the metric that the rate follows.
    pub fn metric(&self) -> Option<Metric> {
        match self {
            Schedule::Plateau(plateau) => Some(plateau.metric),
            _ => None,
        }
    }

    /// Returns true where the rate of a step depends on how many steps the run has.
    pub fn depends_on_length(&self) -> bool {
        match self {
            Schedule::Cosine(_) | Schedule::Linear(_) | Schedule::Polynomial(_) | Schedule::OneCycle(_) => true,
            Schedule::Constant(_)
            | Schedule::Step(_)
            | Schedule::MultiStep(_)
            | Schedule::Exponential(_)
            | Schedule::Plateau(_) => false,
        }
    }

    /// Returns the key of the job file and the reason of a value out of its range.
    pub fn problem(&self) -> Option<(&'static str, String)> {
        self.shape().problem()
    }

    fn shape(&self) -> &dyn Shape {
        match self {
            Schedule::Constant(own) => own,
            Schedule::Step(own) => own,
            Schedule::MultiStep(own) => own,
            Schedule::Cosine(own) => own,
            Schedule::OneCycle(own) => own,
            Schedule::Polynomial(own) => own,
            Schedule::Exponential(own) => own,
            Schedule::Linear(own) => own,
            Schedule::Plateau(own) => own,
        }
    }
}

/// Returns the learning rate of step `step`, counted from 0, of a run of `total_steps` steps. `epochs` are those that
/// are done; what more there is of them is not read.
pub fn lr_at(
    schedule: &Schedule,
    base_lr: f64,
    step: u64,
    total_steps: u64,
    steps_per_epoch: u64,
    epochs: &[EpochRecord],
) -> f64 {
    let shape = schedule.shape();
    let (per, warmup) = shape.pace();
    let each = steps_per_epoch.max(1);
    let epochs_done = step / each;
    let read = usize::try_from(epochs_done).map_or(epochs.len(), |done| done.min(epochs.len()));
    let (done, total) = match per {
        Per::Step => (step.saturating_sub(warmup), total_steps.saturating_sub(warmup)),
        Per::Epoch => (epochs_done, total_steps.div_ceil(each)),
    };
    let rate =
        shape.rate(&At { base: base_lr, done, total: total.max(1), epochs: epochs.get(..read).unwrap_or(epochs) });
    if step < warmup { rate * ((step + 1) as f64 / warmup as f64) } else { rate }
}

fn tenth() -> f64 {
    0.1
}

fn not_a_rate(key: &'static str, value: f64) -> Option<Problem> {
    (!(value.is_finite() && value >= 0.0)).then(|| (key, format!("expected 0 or more, found {value}")))
}

fn not_above_0(key: &'static str, what: &str, value: f64) -> Option<Problem> {
    (!(value.is_finite() && value > 0.0)).then(|| (key, format!("expected {what} above 0, found {value}")))
}
