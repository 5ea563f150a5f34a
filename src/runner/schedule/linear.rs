//! Linear: `b + (m - b) t / T`, `m` = `lr_min` (`LinearLR` with `end_factor = m / b` and `total_iters = T`).

use super::{At, Per, Problem, Shape, not_a_rate};
use serde::{Deserialize, Serialize};

/// A straight line from the base rate to `lr_min`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// The rate at the end; 0 by default.
    #[serde(default)]
    pub lr_min: f64,
    /// What is counted: `"step"` (default) or `"epoch"`.
    #[serde(default = "Per::step")]
    pub per: Per,
    /// Steps over which the rate rises to its full value.
    #[serde(default)]
    pub warmup_steps: u64,
}

impl Shape for Linear {
    fn rate(&self, at: &At<'_>) -> f64 {
        at.base + (self.lr_min - at.base) * at.fraction()
    }

    fn problem(&self) -> Option<Problem> {
        not_a_rate("schedule.lr_min", self.lr_min)
    }

    fn pace(&self) -> (Per, u64) {
        (self.per, self.warmup_steps)
    }
}
