//! How files are read, as a job file says it.

use super::{AugmentOptions, ImageOptions};
use serde::{Deserialize, Serialize};

/// How the files of a dataset are read. They are keys of `[data]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DataOptions {
    /// The format; by default the one that the extension names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// How pictures become rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageOptions>,
    /// What is random about pictures while training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub augment: Option<AugmentOptions>,
    /// Which files of a folder that holds both are meant.
    #[serde(skip)]
    pub part: Part,
}

/// What data are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// To train on.
    #[default]
    Train,
    /// To evaluate on.
    Eval,
}
