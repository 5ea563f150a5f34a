//! `[init]`: the values that training starts from.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where the weights come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct InitSection {
    /// `"model"` (default): those of the model. `"fresh"`: drawn by the class of each parameter. A path: a checkpoint
    /// folder, a `.safetensors`, an `.npz` or another `.onnx` with the same names.
    #[serde(default = "model")]
    pub weights: String,
    /// Seed of fresh weights; 0 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The parameters that are set, by patterns as for `freeze`; all by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    /// Whether a file must have all of them in the model's shapes; true by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
}

fn model() -> String {
    "model".into()
}

/// Where weights come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Weights {
    /// The model.
    Model,
    /// Random numbers.
    Fresh,
    /// A file or folder.
    File(PathBuf),
}

impl InitSection {
    /// Returns where the weights come from.
    pub fn weights(&self) -> Weights {
        match self.weights.as_str() {
            "model" => Weights::Model,
            "fresh" => Weights::Fresh,
            path => Weights::File(PathBuf::from(path)),
        }
    }

    /// Makes a path relative to the folder of the job file.
    pub(super) fn resolve(&mut self, base: &Path) {
        if let Weights::File(path) = self.weights() {
            let path: PathBuf = base.join(path).components().collect();
            self.weights = path.to_string_lossy().into_owned();
        }
    }

    /// Returns the key and the reason of a value out of its range.
    pub(super) fn problem(&self) -> Option<(&'static str, String)> {
        let weights = self.weights();
        if self.weights.is_empty() {
            return Some(("init.weights", "expected \"model\", \"fresh\" or a path, found \"\"".into()));
        }
        if self.seed.is_some() && weights != Weights::Fresh {
            return Some(("init.seed", "goes with weights = \"fresh\"".into()));
        }
        if self.strict.is_some() && !matches!(weights, Weights::File(_)) {
            return Some(("init.strict", "goes with weights = PATH".into()));
        }
        if !self.only.is_empty() && weights == Weights::Model {
            return Some(("init.only", "goes with weights = \"fresh\" or PATH".into()));
        }
        None
    }
}
