//! How files are read, as a job file says it.

use serde::{Deserialize, Serialize};

/// How the files of a dataset are read. They are keys of `[data]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DataOptions {
    /// The format; by default the one that the extension names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
}
