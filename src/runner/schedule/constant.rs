//! Constant: the base rate throughout.

use super::{At, Per, Problem, Shape};
use serde::{Deserialize, Serialize};

/// The same rate throughout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Constant {
    /// Steps over which the rate rises to its full value.
    #[serde(default)]
    pub warmup_steps: u64,
}

impl Shape for Constant {
    fn rate(&self, at: &At<'_>) -> f64 {
        at.base
    }

    fn problem(&self) -> Option<Problem> {
        None
    }

    fn pace(&self) -> (Per, u64) {
        (Per::Step, self.warmup_steps)
    }
}
