//! Polynomial: `m + (b - m) (1 - t / T)^power`, `m` = `lr_min` (`PolynomialLR` with `total_iters = T`, which ends at 0).

use super::{At, Per, Problem, Shape, not_a_rate, not_above_0};
use serde::{Deserialize, Serialize};

/// A power of what is left of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Polynomial {
    /// The power, above 0; 1 by default.
    #[serde(default = "one")]
    pub power: f64,
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

fn one() -> f64 {
    1.0
}

impl Shape for Polynomial {
    fn rate(&self, at: &At<'_>) -> f64 {
        self.lr_min + (at.base - self.lr_min) * (1.0 - at.fraction()).powf(self.power)
    }

    fn problem(&self) -> Option<Problem> {
        not_above_0("schedule.power", "a power", self.power).or_else(|| not_a_rate("schedule.lr_min", self.lr_min))
    }

    fn pace(&self) -> (Per, u64) {
        (self.per, self.warmup_steps)
    }
}
