//! The rollback guard: takes a freeze back that the metric does not stand.

use super::event::RunEvent;
use super::observe::{Memory, Observer};
use super::phases::Phases;
use super::rates::{SavedRates, UnitRates};
use super::run::Place;
use super::save::{self, OBSERVER};
use super::state::Snapshot;
use super::train::RunError;
use crate::checkpoint::{Checkpoint, Tensors};
use crate::metrics::{Better, Metric};
use crate::plan::{History, Rollback, Segment};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Watches the metric after a freeze.
pub(super) struct Guard {
    rollback: Option<Rollback>,
    armed: Option<Armed>,
}

/// A freeze that is watched.
pub(super) struct Armed {
    metric: String,
    before: f64,
    drop: f64,
    pub delay: usize,
    pub run: Before,
}

/// The run as it was before a freeze.
pub(super) struct Before {
    pub place: Place,
    pub history: History,
    pub rates: UnitRates,
    pub snapshot: Snapshot,
    pub memory: Option<Memory>,
}

/// A freeze that is watched, without tensors.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct SavedGuard {
    metric: String,
    /// Absent where it is not finite.
    before: Option<f64>,
    drop: f64,
    delay: usize,
    place: Place,
    history: History,
    rates: SavedRates,
    memory: Option<serde_json::Value>,
}

/// What becomes of a freeze.
pub(super) enum Verdict {
    Stays,
    Back(Box<Armed>),
}

impl Guard {
    pub(super) fn new(rollback: Option<&Rollback>) -> Guard {
        Guard { rollback: rollback.cloned(), armed: None }
    }

    /// Returns true where a segment freezes something more and nothing is watched yet.
    pub(super) fn watches(&self, phases: &Phases, segment: &Segment) -> bool {
        let freezes = || segment.frozen.iter().any(|name| !phases.held().contains(name));
        self.rollback.is_some() && self.armed.is_none() && phases.has_trained() && freezes()
    }

    /// Returns true while a freeze is watched.
    pub(super) fn is_armed(&self) -> bool {
        self.armed.is_some()
    }

    /// Refuses a metric that is not among those of an evaluation.
    ///
    /// # Errors
    /// It is not.
    pub(super) fn check(&self, metrics: &BTreeMap<String, f64>) -> Result<(), RunError> {
        let Some(Rollback { metric, .. }) = self.rollback.as_ref().filter(|own| !metrics.contains_key(&own.metric))
        else {
            return Ok(());
        };
        let known: Vec<&str> = metrics.keys().map(String::as_str).collect();
        let known = if known.is_empty() {
            "the job has no eval data".into()
        } else {
            format!("they give {}", known.join(", "))
        };
        Err(RunError::Metric { metric: metric.clone(), known })
    }

    /// Keeps the run as it is before the freeze, where the metric has a value to compare with.
    pub(super) fn arm(&mut self, metrics: &BTreeMap<String, f64>, run: Before) {
        let Some(Rollback { metric, drop, delay }) = self.rollback.clone() else { return };
        let before = metrics.get(&metric).copied().filter(|before| before.is_finite());
        self.armed = before.map(|before| Armed { metric, before, drop, delay, run });
    }

    /// Returns the freeze that is watched, with its tensors in groups that begin with `prefix`.
    pub(super) fn saved(&self, prefix: &str, groups: &mut BTreeMap<String, Tensors>) -> Option<SavedGuard> {
        let Armed { metric, before, drop, delay, run } = self.armed.as_ref()?;
        save::group(groups, prefix, run.snapshot.clone());
        let memory = run.memory.as_ref().map(|memory| {
            let (value, tensors) = memory.saved();
            groups.insert(format!("{prefix}.{OBSERVER}"), tensors);
            value
        });
        Some(SavedGuard {
            metric: metric.clone(),
            before: before.is_finite().then_some(*before),
            drop: *drop,
            delay: *delay,
            place: run.place.clone(),
            history: run.history.clone(),
            rates: run.rates.saved(),
            memory,
        })
    }

    /// Watches the freeze that was watched when a checkpoint was made; `rates` and `observer` are those of the run.
    ///
    /// # Errors
    /// What was observed does not fit the observer.
    pub(super) fn restore(
        &mut self,
        saved: Option<SavedGuard>,
        checkpoint: &Checkpoint,
        prefix: &str,
        rates: &UnitRates,
        observer: Option<&Observer>,
    ) -> Result<(), String> {
        let Some(saved) = saved else { return Ok(()) };
        let mut own = rates.clone();
        own.restore(saved.rates);
        let memory = match (observer, saved.memory) {
            (Some(observer), Some(value)) => {
                Some(Memory::of(observer, value, checkpoint.group(&format!("{prefix}.{OBSERVER}")))?)
            }
            _ => None,
        };
        let snapshot = save::snapshot(checkpoint, prefix);
        let run = Before { place: saved.place, history: saved.history, rates: own, snapshot, memory };
        let before = saved.before.unwrap_or(f64::NAN);
        self.armed = Some(Armed { metric: saved.metric, before, drop: saved.drop, delay: saved.delay, run });
        Ok(())
    }

    /// Judges the freeze that is watched by the metrics of the first epoch that ended after it.
    pub(super) fn judge(&mut self, metrics: &BTreeMap<String, f64>) -> Verdict {
        let Some(armed) = self.armed.take() else { return Verdict::Stays };
        // A metric that is not finite is not among them: that is as bad as it gets.
        let worse = metrics.get(&armed.metric).map(|after| worse(&armed.metric, armed.before, *after));
        match worse {
            Some(worse) if worse <= armed.drop => Verdict::Stays,
            _ => Verdict::Back(Box::new(armed)),
        }
    }
}

/// Returns how much worse a metric became.
fn worse(metric: &str, before: f64, after: f64) -> f64 {
    let better = Metric::parse(metric).ok().and_then(|metric| metric.better()).unwrap_or(Better::More);
    better.gain(before, after)
}

impl Armed {
    /// Returns the event that says that the freeze is taken back.
    pub(super) fn event(&self, epoch: usize, metrics: &BTreeMap<String, f64>, delay: usize) -> RunEvent {
        RunEvent::Rollback {
            epoch,
            to_epoch: self.run.place.at.epoch,
            to_step: self.run.place.started,
            metric: self.metric.clone(),
            before: self.before,
            after: metrics.get(&self.metric).copied(),
            delay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::worse;

    #[test]
    fn worse_is_what_the_metric_says() {
        let cases = [("loss", 1.0, 1.5, 0.5), ("accuracy", 0.9, 0.8, 0.1), ("mae", 0.8, 0.9, 0.1)];
        for (metric, before, after, expected) in cases {
            assert!((worse(metric, before, after) - expected).abs() < 1e-12, "{metric} {before} {after}");
        }
    }
}
