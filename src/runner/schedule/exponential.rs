//! Exponential: `b gamma^t` (`ExponentialLR`).

use super::{At, Per, Problem, Shape, not_above_0};
use serde::{Deserialize, Serialize};

/// A factor every epoch or step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Exponential {
    /// The factor, above 0.
    pub gamma: f64,
    /// What is counted: `"epoch"` (default) or `"step"`.
    #[serde(default = "Per::epoch")]
    pub per: Per,
    /// Steps over which the rate rises to its full value.
    #[serde(default)]
    pub warmup_steps: u64,
}

impl Shape for Exponential {
    fn rate(&self, at: &At<'_>) -> f64 {
        at.base * self.gamma.powf(at.done as f64)
    }

    fn problem(&self) -> Option<Problem> {
        not_above_0("schedule.gamma", "a factor", self.gamma)
    }

    fn pace(&self) -> (Per, u64) {
        (self.per, self.warmup_steps)
    }
}
