//! What is evaluated and when, and what becomes of it: `[eval]` of a job.

use super::improvement::EarlyStopping;
use crate::metrics::Metric;
use serde::{Deserialize, Serialize};

/// Metrics on the eval data, and what watches them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// Metrics beside the loss and those that are watched; by default the accuracy where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Vec<Metric>>,
    /// Epochs between two evaluations, at least 1; 1 by default. The last epoch is always evaluated.
    #[serde(default = "one")]
    pub every: u64,
    /// The metric that says which epoch is the best.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<Metric>,
    /// When the run ends before its last epoch; never by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStopping>,
}

fn one() -> u64 {
    1
}

impl Default for Evaluation {
    fn default() -> Evaluation {
        Evaluation::DEFAULT
    }
}

impl Evaluation {
    /// Loss and accuracy after each epoch.
    pub const DEFAULT: Evaluation = Evaluation { metrics: None, every: 1, best: None, early_stopping: None };

    /// Returns true where an epoch of a run, both from 1, ends with an evaluation.
    pub fn is_due(&self, epoch: usize, epochs: usize) -> bool {
        epoch >= epochs || (epoch as u64).is_multiple_of(self.every.max(1))
    }

    /// Returns the metric that says which epoch is the best, which is that of early stopping where no other is named.
    pub fn chooses(&self) -> Option<Metric> {
        self.best.or_else(|| self.early_stopping.as_ref().map(|early| early.metric))
    }

    /// Returns the metrics that are watched.
    pub fn watched(&self) -> impl Iterator<Item = Metric> {
        self.best.into_iter().chain(self.early_stopping.as_ref().map(|early| early.metric))
    }

    /// Returns the key of the job file and the reason of a value out of its range; `data` is whether there are eval
    /// data.
    pub fn problem(&self, data: bool) -> Option<(&'static str, String)> {
        let early = self.early_stopping.as_ref();
        let zero = |key, number: u64| (number == 0).then(|| (key, "expected 1 or more, found 0".to_string()));
        let metrics = self.metrics.iter().flatten();
        let of_training = metrics.clone().find(|metric| metric.is_of_training());
        let unevaluated = self.metrics.as_ref().filter(|_| !data);
        let delta = early.map_or(0.0, |early| early.min_delta);
        of_training
            .map(|metric| ("eval.metrics", format!("{metric} is told with every epoch, expected metrics of eval data")))
            .or_else(|| unevaluated.map(|_| ("eval.metrics", "the job has no data.eval to take them of".to_string())))
            .or_else(|| zero("eval.every", self.every))
            .or_else(|| unwatchable("eval.best", self.best?, data))
            .or_else(|| unwatchable("eval.early_stopping.metric", early?.metric, data))
            .or_else(|| zero("eval.early_stopping.patience", early?.patience))
            .or_else(|| {
                let reason = format!("expected 0 or more, found {delta}");
                (!(delta.is_finite() && delta >= 0.0)).then_some(("eval.early_stopping.min_delta", reason))
            })
    }
}

/// Returns why a metric cannot be watched.
pub(super) fn unwatchable(key: &'static str, metric: Metric, data: bool) -> Option<(&'static str, String)> {
    if metric.better().is_none() {
        return Some((key, format!("expected a metric of one number, found \"{metric}\"")));
    }
    let reason = || format!("the job has no data.eval to take \"{metric}\" of; \"train_loss\" needs none");
    (!data && !metric.is_of_training()).then(|| (key, reason()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_epoch_is_always_evaluated() {
        let due = |every: u64, epochs: usize| {
            let evaluation = Evaluation { every, ..Evaluation::default() };
            (1..=epochs).filter(|epoch| evaluation.is_due(*epoch, epochs)).collect::<Vec<_>>()
        };
        assert_eq!(due(1, 3), [1, 2, 3]);
        assert_eq!(due(2, 5), [2, 4, 5]);
        assert_eq!(due(10, 4), [4]);
        assert_eq!(due(3, 6), [3, 6]);
    }
}
