//! `[checkpoint]`: how often a run is saved, and which weights it leaves.

use serde::{Deserialize, Serialize};

/// How often a run is saved, beside after each epoch and when it is stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CheckpointSection {
    /// Steps from one checkpoint within an epoch to the next, at least 1; none by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    /// The last so many checkpoints are kept, at least 1, and that of the best epoch; 2 by default.
    #[serde(default = "two")]
    pub keep: u64,
    /// The weights of the trained model: those of the `"last"` step (default), or of the `"best"` epoch by `eval.best`.
    #[serde(default)]
    pub export: Export,
}

/// Which weights a run leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Export {
    /// Those of the last step.
    #[default]
    Last,
    /// Those of the best epoch.
    Best,
}

fn two() -> u64 {
    2
}

impl Default for CheckpointSection {
    fn default() -> CheckpointSection {
        CheckpointSection { every: None, keep: two(), export: Export::Last }
    }
}

impl CheckpointSection {
    /// Returns the key and the reason of a value out of its range; `chooses` is whether a metric says which epoch is the
    /// best.
    pub(super) fn problem(&self, chooses: bool) -> Option<(&'static str, String)> {
        let zero = |key, number: u64| (number == 0).then(|| (key, "expected 1 or more, found 0".to_string()));
        let best = (self.export == Export::Best && !chooses).then(|| {
            ("checkpoint.export", "\"best\" needs eval.best or eval.early_stopping, a metric to choose by".to_string())
        });
        zero("checkpoint.every", self.every.unwrap_or(1)).or_else(|| zero("checkpoint.keep", self.keep)).or(best)
    }
}
