//! Multistep: `b gamma^n`, `n` = milestones that `t` has reached (`MultiStepLR`).

use super::{At, Per, Problem, Shape, not_above_0, tenth};
use serde::{Deserialize, Serialize};

/// A factor at each of some milestones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct MultiStep {
    /// Epochs, or with `per = "step"` steps, after which the rate changes; at least 1, each more than the one before.
    pub milestones: Vec<u64>,
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

impl Shape for MultiStep {
    fn rate(&self, at: &At<'_>) -> f64 {
        let reached = self.milestones.iter().filter(|milestone| **milestone <= at.done).count();
        at.base * self.gamma.powf(reached as f64)
    }

    fn problem(&self) -> Option<Problem> {
        let wrong = |reason: String| Some(("schedule.milestones", reason));
        if self.milestones.is_empty() {
            return wrong("expected at least one".into());
        }
        if self.milestones.contains(&0) {
            return wrong("expected 1 or more, found 0".into());
        }
        let falls = self.milestones.windows(2).find(|pair| pair[0] >= pair[1]);
        if let Some([first, second]) = falls {
            return wrong(format!("expected each to be more than the one before, found {first}, {second}"));
        }
        not_above_0("schedule.gamma", "a factor", self.gamma)
    }

    fn pace(&self) -> (Per, u64) {
        (self.per, self.warmup_steps)
    }
}
