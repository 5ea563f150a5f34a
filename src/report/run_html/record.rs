//! A run as its folder tells it, and the numbers that a page is made of.

use super::log::{Epoch, RunLog};
use crate::metrics::{Better, Metric};
use crate::plan::FreezePlan;
use crate::runner::RunEvent;
use std::collections::{BTreeMap, BTreeSet};

/// What the folder of a run holds.
#[derive(Clone, Debug, Default)]
pub struct RunRecord {
    /// What the run is called.
    pub label: String,
    /// `events.jsonl`.
    pub log: RunLog,
    /// `plan.json`, where it can be read.
    pub plan: Option<FreezePlan>,
    /// `job.toml`, where it can be read: the value of each key, such as `run.epochs`.
    pub settings: BTreeMap<String, String>,
    /// What could not be read, in sentences.
    pub problems: Vec<String>,
}

/// How far a run is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Done,
    Stopped,
    Failed(String),
    /// No end is recorded.
    Open,
    /// A status that is not known here.
    Other(String),
}

impl RunRecord {
    /// Returns the settings of a job file, each under its path in the file; nothing where it is no TOML.
    pub fn settings_of(job: &str) -> Option<BTreeMap<String, String>> {
        let table: toml::Table = job.parse().ok()?;
        let mut settings = BTreeMap::new();
        flatten("", &toml::Value::Table(table), &mut settings);
        Some(settings)
    }

    pub(super) fn state(&self) -> State {
        match &self.log.end {
            None => State::Open,
            Some(end) => match end.status.as_str() {
                "done" => State::Done,
                "stopped" => State::Stopped,
                "failed" => State::Failed(end.error.clone().unwrap_or_else(|| "no reason is recorded".into())),
                other => State::Other(other.into()),
            },
        }
    }

    /// Returns the epochs and steps that the run has or will have.
    pub(super) fn length(&self) -> Option<(usize, usize)> {
        match self.log.start.as_ref()? {
            RunEvent::Start { epochs, steps, .. } => Some((*epochs, *steps)),
            _ => None,
        }
    }

    /// Returns the steps of an epoch; nothing where it is not known.
    pub(super) fn steps_per_epoch(&self) -> Option<usize> {
        self.length().map(|(epochs, steps)| steps / epochs.max(1)).filter(|steps| *steps > 0)
    }

    /// Returns the names of the metrics of all epochs, `loss` first.
    pub(super) fn metrics(&self) -> Vec<String> {
        let names: BTreeSet<&String> = self.log.epochs.iter().flat_map(|epoch| epoch.metrics.keys()).collect();
        let mut names: Vec<String> = names.into_iter().cloned().collect();
        names.sort_by_key(|name| name != "loss");
        names
    }

    /// Returns a metric of the trained model, or of the last epoch where there is no end.
    pub(super) fn last(&self, metric: &str) -> Option<f64> {
        let end = self.log.end.as_ref().and_then(|end| *end.metrics.get(metric)?);
        end.or_else(|| self.log.epochs.iter().rev().find_map(|epoch| epoch.metrics.get(metric)).copied())
    }

    /// Returns the epoch with the best value of a metric, and the value.
    pub(super) fn best(&self, metric: &str) -> Option<(usize, f64)> {
        let value = |epoch: &Epoch| Some((epoch.epoch, *epoch.metrics.get(metric).filter(|value| value.is_finite())?));
        let values = self.log.epochs.iter().filter_map(value);
        match less_is_better(metric) {
            true => values.min_by(|a, b| a.1.total_cmp(&b.1)),
            // Of equal ones the first.
            false => values.reduce(|best, next| if next.1 > best.1 { next } else { best }),
        }
    }

    /// Returns the metric that a person looks at first.
    pub(super) fn main_metric(&self) -> Option<String> {
        let asked = self.settings.get("eval.best").or_else(|| self.settings.get("eval.early_stopping.metric"));
        let own = |name: &str| Metric::parse(name).map_or_else(|_| name.to_string(), |metric| metric.name());
        let asked = asked.map(|name| own(name.trim_matches('"')));
        let mut names = self.metrics();
        let position = names
            .iter()
            .position(|name| Some(name) == asked.as_ref())
            .or_else(|| names.iter().position(|name| name == "accuracy"))
            .or_else(|| names.iter().position(|name| name != "loss"))
            .or(if names.is_empty() { None } else { Some(0) })?;
        Some(names.swap_remove(position))
    }

    /// Returns the mean training samples a second over all epochs.
    pub(super) fn samples_per_second(&self) -> Option<f64> {
        let timed =
            || self.log.epochs.iter().filter(|epoch| epoch.seconds > 0.0 && epoch.samples_per_second.is_finite());
        let samples: f64 = timed().map(|epoch| epoch.samples_per_second * epoch.seconds).sum();
        let seconds: f64 = timed().map(|epoch| epoch.seconds).sum();
        (seconds > 0.0).then(|| samples / seconds)
    }

    /// Returns the share of the time of the steps that was spent on waiting for data.
    pub(super) fn waiting(&self) -> Option<f64> {
        let share = |times: Vec<(f64, f64)>| {
            let told: Vec<(f64, f64)> =
                times.into_iter().filter(|(wait, all)| wait.is_finite() && *all > 0.0).collect();
            let sum = |which: fn(&(f64, f64)) -> f64| told.iter().map(which).sum::<f64>();
            (!told.is_empty()).then(|| sum(|time| time.0) / sum(|time| time.1))
        };
        // The seconds of an epoch are with loading data, those of a step are not.
        let epochs = self.log.epochs.iter().map(|epoch| (epoch.wait, epoch.seconds)).collect();
        let steps = || self.log.steps.iter().map(|step| (step.wait, step.seconds + step.wait)).collect();
        share(epochs).or_else(|| share(steps()))
    }

    /// Returns the most bytes that were resident; nothing where the system does not tell.
    pub(super) fn peak_bytes(&self) -> Option<u64> {
        let epochs = self.log.epochs.iter().chain(&self.log.undone_epochs);
        epochs.map(|epoch| epoch.peak_bytes).max().filter(|bytes| *bytes > 0)
    }

    /// Returns the most bytes that were held on a device with a memory of its own.
    pub(super) fn device_peak_bytes(&self) -> Option<u64> {
        let epochs = self.log.epochs.iter().chain(&self.log.undone_epochs);
        epochs.filter_map(|epoch| epoch.device_peak_bytes).max()
    }

    /// Returns the most bytes that a phase was estimated to take.
    pub(super) fn estimated_bytes(&self) -> Option<u64> {
        self.log.phases.iter().filter_map(|phase| phase.memory).max()
    }

    /// Returns what freezing saved: the fraction that was measured, and the one that was predicted.
    pub(super) fn gain(&self) -> Option<(f64, f64)> {
        self.log.events.iter().rev().find_map(|event| match event {
            RunEvent::Gain { gain, predicted, .. } => Some((*gain, *predicted)),
            _ => None,
        })
    }

    /// Returns the frozen units at the place that the run came to, and all units.
    pub(super) fn frozen(&self) -> Option<(usize, Option<usize>)> {
        let units = self.plan.as_ref().map(|plan| plan.units.len());
        self.log.phases.last().map(|row| (row.units, units))
    }

    /// Returns the name of the model file.
    pub(super) fn model(&self) -> Option<String> {
        let file = self.plan.as_ref().map(|plan| plan.model.file.clone());
        let name = |path: &String| {
            let path = path.trim_matches('"');
            path.rsplit(['/', '\\']).next().unwrap_or(path).to_string()
        };
        file.or_else(|| self.settings.get("model").map(name)).filter(|name| !name.is_empty())
    }
}

/// Returns true where a lower value of a metric is the better one.
pub(super) fn less_is_better(metric: &str) -> bool {
    Metric::parse(metric).is_ok_and(|metric| metric.better() == Some(Better::Less))
}

/// Puts each value that is no table under its path.
fn flatten(path: &str, value: &toml::Value, settings: &mut BTreeMap<String, String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, settings);
            }
        }
        value => drop(settings.insert(path.to_string(), value.to_string())),
    }
}
