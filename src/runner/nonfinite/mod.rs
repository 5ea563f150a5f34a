//! Numbers that are not finite: a loss or a gradient that is NaN or infinite.
//!
//! Each step is looked at before its update: the loss of every batch, every small gradient, and the sum of all elements of
//! the large ones, which the train graph computes beside them. Where that sum is not finite, all gradients are looked at,
//! because a sum may leave the range of its dtype where no element does. Running statistics, which the train graph moves in place, are
//! copied before the step and put back. So whatever the job wants then, the bad step has changed nothing: no parameter,
//! no slot, no statistic, no average.
//!
//! - `stop`: the run fails.
//! - `skip`: the run goes on with the next batch. The step counts in the schedule and the plan; it is in no mean.
//! - `rollback`: as `skip`, and parameters, slots, statistics and averages go back to what they were when the epoch
//!   began, or later in it when the frozen set was last decided on. One copy of them is held. The order of the data goes
//!   on: the steps in between are not repeated.
//!
//! After so many bad steps in a row the run fails in any case. What is not seen: an update that makes a parameter NaN
//! from finite gradients is seen in the step after it, where it is named.

mod cause;
mod diagnose;

pub use cause::{Cause, CauseKind, InputRange};

use super::engine::{Engine, EngineError};
use super::event::RunEvent;
use super::phase::{Phase, Share};
use super::run::Run;
use super::save;
use super::state::Snapshot;
use super::train::RunError;
use crate::checkpoint::{Checkpoint, Tensors};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;

/// What becomes of a step whose loss or gradients are not finite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum OnNonfinite {
    /// The run fails.
    #[default]
    Stop,
    /// The step makes no update.
    Skip,
    /// The step makes no update, and the state goes back to the start of the epoch.
    Rollback,
}

/// What a run does with such steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonfinite {
    /// What becomes of one.
    pub action: OnNonfinite,
    /// After so many in a row the run fails, at least 1.
    pub limit: usize,
}

impl Nonfinite {
    /// The limit of a job that gives none.
    pub const LIMIT: usize = 10;
}

impl Default for Nonfinite {
    fn default() -> Nonfinite {
        Nonfinite { action: OnNonfinite::Stop, limit: Nonfinite::LIMIT }
    }
}

impl OnNonfinite {
    /// Returns what follows, after "..,".
    fn follows(self) -> &'static str {
        match self {
            OnNonfinite::Stop => "the run stops",
            OnNonfinite::Skip => "the step is skipped",
            OnNonfinite::Rollback => "the state goes back to the start of the epoch",
        }
    }
}

/// Returns in words what [`RunEvent::Nonfinite`] says of a step; `None` for other events.
pub fn what_is_not_finite(event: &RunEvent) -> Option<String> {
    let RunEvent::Nonfinite { loss, gradient, action, in_a_row, cause, .. } = event else { return None };
    let what = match (loss, gradient) {
        (Some(_), Some(name)) => format!("the gradient \"{name}\""),
        _ => "the loss".to_string(),
    };
    let row = if *in_a_row > 1 { format!(" ({in_a_row} in a row)") } else { String::new() };
    let cause = cause.as_ref().map_or_else(String::new, |cause| format!("; {cause}"));
    Some(format!("{what} is not finite, {}{row}{cause}", action.follows()))
}

/// What a run remembers to act on such steps.
#[derive(Default)]
pub(super) struct Watch {
    /// Bad steps since the last good one.
    in_a_row: usize,
    /// The state to go back to.
    start: Option<Snapshot>,
    /// The run goes on in the middle of what began with that state.
    goes_on: bool,
}

/// What is no tensor of it.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct SavedWatch {
    in_a_row: usize,
    goes_on: bool,
}

impl Watch {
    /// Returns what a run must know to go on, with the state to go back to in groups that begin with `prefix`, where it
    /// stands `within` what began with that state.
    pub(super) fn saved(&self, within: bool, prefix: &str, groups: &mut BTreeMap<String, Tensors>) -> SavedWatch {
        let start = self.start.as_ref().filter(|_| within);
        start.into_iter().for_each(|start| save::group(groups, prefix, start.clone()));
        SavedWatch { in_a_row: self.in_a_row, goes_on: start.is_some() }
    }

    /// Goes on from what was saved.
    pub(super) fn of(saved: SavedWatch, checkpoint: &Checkpoint, prefix: &str) -> Watch {
        let SavedWatch { in_a_row, goes_on } = saved;
        Watch { in_a_row, start: goes_on.then(|| save::snapshot(checkpoint, prefix)), goes_on }
    }

    /// Notes a good step.
    pub(super) fn good(&mut self) {
        self.in_a_row = 0;
    }
}

/// The step of which a batch went wrong.
pub(super) struct Bad {
    /// The batch of the epoch, from 0.
    pub index: usize,
    /// The batches of the step.
    pub of: Range<usize>,
    /// Its loss.
    pub loss: f64,
    /// The gradient that is not finite, where the loss is.
    pub gradient: Option<String>,
    /// The learning rate of the step.
    pub lr: Option<f64>,
    pub epoch: usize,
}

impl Bad {
    fn what(&self) -> String {
        match &self.gradient {
            None => format!("the loss is {}", self.loss),
            Some(name) => format!("the gradient \"{name}\" is not finite"),
        }
    }
}

/// Returns what is wrong with the batch that a phase ran last: `None` where loss and gradients are finite.
pub(super) fn wrong(engine: &dyn Engine, phase: &Phase, loss: f64) -> Result<Option<Option<String>>, EngineError> {
    if !loss.is_finite() {
        return Ok(Some(None));
    }
    // Those that are in no sum, and all where the sum is not finite: of large numbers it may be infinite.
    let all = phase.sum().is_some_and(|sum| !sum.is_finite());
    for (name, buffer, summed) in phase.gradients() {
        if (all || !summed) && !engine.is_finite(buffer)? {
            return Ok(Some(Some(name.to_string())));
        }
    }
    Ok(None)
}

impl Run<'_> {
    /// Copies the state where a bad step goes back to it.
    pub(super) fn keep_start(&mut self, engine: &dyn Engine) -> Result<(), RunError> {
        if std::mem::take(&mut self.watch.goes_on) {
            return Ok(());
        }
        if self.setup.nonfinite.action == OnNonfinite::Rollback {
            self.watch.start = None;
            self.watch.start = Some(self.state.snapshot(engine)?);
        }
        Ok(())
    }

    /// Acts on a bad step, after putting the statistics back.
    ///
    /// # Errors
    /// The run stops for it.
    pub(super) fn nonfinite(
        &mut self,
        engine: &mut dyn Engine,
        bad: &Bad,
        report: &mut dyn FnMut(RunEvent),
    ) -> Result<(), RunError> {
        let clock = std::time::Instant::now();
        self.phases.current().put_back(engine)?;
        let cause = self.diagnose(engine, bad, report);
        self.watch.in_a_row += 1;
        let Nonfinite { action, limit } = self.setup.nonfinite;
        let stops = action == OnNonfinite::Stop || self.watch.in_a_row >= limit;
        report(RunEvent::Nonfinite {
            epoch: bad.epoch,
            step: self.place.started,
            batch: bad.index - bad.of.start + 1,
            loss: Some(bad.loss).filter(|loss| loss.is_finite()),
            gradient: bad.gradient.clone(),
            action: if stops { OnNonfinite::Stop } else { action },
            in_a_row: self.watch.in_a_row,
            cause: cause.clone(),
            seconds: clock.elapsed().as_secs_f64(),
        });
        if stops {
            let in_a_row = self.watch.in_a_row;
            return Err(RunError::NotFinite {
                what: bad.what(),
                epoch: bad.epoch,
                step: self.place.started,
                lr: bad.lr,
                cause: cause.map(Box::new),
                in_a_row,
            });
        }
        if let Some(start) = self.watch.start.as_ref().filter(|_| action == OnNonfinite::Rollback) {
            self.state.restore(engine, start)?;
            self.evaluated_is_stale();
        }
        Ok(())
    }

    /// Returns the share of a batch in the update of a bad step, as its first.
    fn share(&self, bad: &Bad) -> Share {
        let rows = |index| self.setup.train.rows_of(index);
        let all: usize = bad.of.clone().map(rows).sum();
        Share { weight: rows(bad.index) as f64 / all.max(1) as f64, first: true }
    }
}
