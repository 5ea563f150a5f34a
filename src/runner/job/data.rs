//! `[data]`: files, and how they become batches.

use super::Targets;
use crate::data::{DataOptions, FORMATS, LastBatch, Loading};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Data and how they become batches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// The file to train on.
    pub train: PathBuf,
    /// The file to evaluate on after each epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval: Option<PathBuf>,
    /// The column of each model input.
    pub inputs: BTreeMap<String, String>,
    /// The column that the loss compares with, or for losses that name their targets a table of
    /// columns. With training information, that of the input which the algorithm alone reads; may be
    /// left out where no loss has a target or `inputs` names all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Targets>,
    /// Rows in a batch, at least 1.
    pub batch: usize,
    /// Seed of the order of rows; 0 by default.
    #[serde(default)]
    pub seed: u64,
    /// Whether each epoch has its own order; true by default.
    #[serde(default = "yes")]
    pub shuffle: bool,
    /// How rows are drawn: `"shuffle"` (default), `"sequential"`, `"weighted"` or `"balanced"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampler: Option<SamplerKind>,
    /// The column that `"weighted"` draws by, or the labels of `"balanced"`, by default the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// What becomes of rows that do not fill a batch: `"keep"` (default), `"drop"` or `"pad"`.
    #[serde(default)]
    pub last_batch: LastBatch,
    /// Threads that make batches ahead; by default none where that is only copying rows, else one for two cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,
    /// The most batches that are made ahead; by default two for each thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefetch: Option<usize>,
    /// The format of the files; by default the one that the extension names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
}

/// How rows are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SamplerKind {
    /// Each row once, in an order of its own in each epoch.
    Shuffle,
    /// Each row once, in the order of the file.
    Sequential,
    /// With replacement, by a column of weights.
    Weighted,
    /// As many rows of each class.
    Balanced,
}

impl DataSection {
    /// Returns how the files are read.
    pub fn options(&self) -> DataOptions {
        DataOptions { format: self.format.clone() }
    }

    /// Returns how far ahead batches are made, where the job says it.
    pub fn loading(&self) -> Option<Loading> {
        let workers = self.workers?;
        Some(Loading { workers, prefetch: self.prefetch.unwrap_or(2 * workers) })
    }

    /// Returns how rows are drawn.
    pub fn sampler(&self) -> SamplerKind {
        let by_shuffle = if self.shuffle { SamplerKind::Shuffle } else { SamplerKind::Sequential };
        self.sampler.unwrap_or(by_shuffle)
    }

    /// Returns the key and the reason of a value out of its range.
    pub(super) fn problem(&self) -> Option<(&'static str, String)> {
        let known = || FORMATS.iter().map(|format| format.name).collect::<Vec<_>>();
        if let Some(format) = self.format.as_deref().filter(|format| !known().contains(format)) {
            return Some(("data.format", format!("expected {}, found \"{format}\"", known().join(", "))));
        }
        if self.prefetch.is_some() && self.workers.is_none() {
            return Some(("data.prefetch", "needs data.workers".into()));
        }
        if self.weights.is_none() && self.sampler == Some(SamplerKind::Weighted) {
            return Some(("data.sampler", "\"weighted\" needs data.weights, the column to draw by".into()));
        }
        None
    }
}

fn yes() -> bool {
    true
}
