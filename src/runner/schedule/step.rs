//! Step: `b gamma^floor(t / step_size)` (`StepLR`).

use super::{At, Per, Problem, Shape, not_above_0, tenth};
use serde::{Deserialize, Serialize};

/// A factor every few epochs or steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Epochs, or with `per = "step"` steps, between two changes, at least 1.
    #[serde(alias = "step_epochs")]
    pub step_size: u64,
    /// The factor of a change, above 0; 0.1 by default.
    #[serde(default = "tenth")]
    pub gamma: f64,
    /// What is counted: `"epoch"` (default) or `"step"`.
    #[serde(default = "Per::epoch")]
    pub per: Per,
    /// Steps over which the rate rises to its full value.
    #[serde(default)]
    pub warmup_steps: u64,
}

impl Shape for Step {
    fn rate(&self, at: &At<'_>) -> f64 {
        at.base * self.gamma.powf((at.done / self.step_size.max(1)) as f64)
    }

    fn problem(&self) -> Option<Problem> {
        let zero = (self.step_size == 0).then(|| ("schedule.step_size", "expected 1 or more, found 0".into()));
        zero.or_else(|| not_above_0("schedule.gamma", "a factor", self.gamma))
    }

    fn pace(&self) -> (Per, u64) {
        (self.per, self.warmup_steps)
    }
}
