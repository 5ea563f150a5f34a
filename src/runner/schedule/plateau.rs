//! Plateau: the rate falls to `max(lr factor, lr_min)` when a metric does not get better (`ReduceLROnPlateau`).
//!
//! After each evaluation that is better than the best one so far by more than the threshold, that one is the best. A
//! value `v` is better than `u` by more than the threshold where, of a metric of which less is better, `v < u (1 -
//! threshold)`, or with `threshold_mode = "abs"` `v < u - threshold`; of one of which more is better, `v > u (1 +
//! threshold)` or `v > u + threshold`. After more than `patience` evaluations in a row that are not, the rate falls
//! and the count starts again; in the `cooldown` evaluations after a fall none counts. A fall by at most 1e-8 is left
//! out. A metric that has no value is not better. PyTorch takes `mode` from its user; here the metric knows it.

use super::{At, Per, Problem, Shape, not_a_rate, tenth};
use crate::metrics::{Better, Metric};
use serde::{Deserialize, Serialize};

/// Falls of the rate that no change is made for.
const EPS: f64 = 1e-8;

/// A factor when a metric does not get better.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Plateau {
    /// The metric; `loss`, that of the eval data, by default. `train_loss` needs none.
    #[serde(default = "Metric::loss")]
    pub metric: Metric,
    /// The factor of a fall, in (0, 1); 0.1 by default.
    #[serde(default = "tenth")]
    pub factor: f64,
    /// Evaluations that may pass without a better one; 10 by default.
    #[serde(default = "ten")]
    pub patience: u64,
    /// By how much a value must be better, at least 0; 1e-4 by default.
    #[serde(default = "threshold")]
    pub threshold: f64,
    /// Whether the threshold is a fraction of the best value: `"rel"` (default) or `"abs"`.
    #[serde(default)]
    pub threshold_mode: ThresholdMode,
    /// Evaluations after a fall that do not count; 0 by default.
    #[serde(default)]
    pub cooldown: u64,
    /// The least rate; 0 by default.
    #[serde(default)]
    pub lr_min: f64,
    /// Steps over which the rate rises to its full value.
    #[serde(default)]
    pub warmup_steps: u64,
}

/// What a threshold is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ThresholdMode {
    /// A fraction of the best value.
    #[default]
    Rel,
    /// A difference.
    Abs,
}

fn ten() -> u64 {
    10
}

fn threshold() -> f64 {
    1e-4
}

impl Plateau {
    fn is_better(&self, value: f64, best: f64) -> bool {
        match (self.metric.better(), self.threshold_mode) {
            (Some(Better::More), ThresholdMode::Rel) => value > best * (1.0 + self.threshold),
            (Some(Better::More), ThresholdMode::Abs) => value > best + self.threshold,
            (_, ThresholdMode::Rel) => value < best * (1.0 - self.threshold),
            (_, ThresholdMode::Abs) => value < best - self.threshold,
        }
    }
}

impl Shape for Plateau {
    fn rate(&self, at: &At<'_>) -> f64 {
        let name = self.metric.name();
        let (mut rate, mut best, mut bad, mut rest) = (at.base, None, 0, 0);
        for epoch in at.epochs.iter().filter(|epoch| epoch.judges(&name)) {
            let value = epoch.metrics.get(&name).copied();
            if let Some(value) = value.filter(|value| best.is_none_or(|best| self.is_better(*value, best))) {
                best = Some(value);
                bad = 0;
            } else {
                bad += 1;
            }
            if rest > 0 {
                rest -= 1;
                bad = 0;
            }
            if bad > self.patience {
                let lower = (rate * self.factor).max(self.lr_min);
                if rate - lower > EPS {
                    rate = lower;
                }
                (bad, rest) = (0, self.cooldown);
            }
        }
        rate
    }

    fn problem(&self) -> Option<Problem> {
        let one = self.metric.better().is_none();
        let metric =
            one.then(|| ("schedule.metric", format!("expected a metric of one number, found {}", self.metric)));
        let factor = !(self.factor > 0.0 && self.factor < 1.0);
        metric
            .or_else(|| {
                factor.then(|| ("schedule.factor", format!("expected a factor in (0, 1), found {}", self.factor)))
            })
            .or_else(|| not_a_rate("schedule.threshold", self.threshold))
            .or_else(|| not_a_rate("schedule.lr_min", self.lr_min))
    }

    fn pace(&self) -> (Per, u64) {
        (Per::Epoch, self.warmup_steps)
    }
}
