//! Checkpoints: everything of a run between two steps, so that it goes on as if it had never stopped.
//!
//! A run's checkpoints stand side by side in one folder, each a folder of its own: `000012-step-340` is the twelfth that
//! was written and holds the run after 340 steps. In it:
//!
//! - `checkpoint.json`: the format, and the SHA-256 of every other file;
//! - `run.json`: where the run stands; `state.json`: what it measured and decided;
//! - `plan.json`: the plan as far as it is known;
//! - `GROUP.safetensors`: tensors, such as `values`, `slots`.
//!
//! A checkpoint is written under another name, synced, renamed, and the folder synced: at any moment it is there as a
//! whole or not at all. Nothing that is read is believed before its SHA-256 is right. What this module does not do:
//! decide when to save, or what a tensor means.

mod files;
mod store;
#[cfg(test)]
mod tests;

pub(crate) use files::sha256 as file_sha256;
pub use store::{Latest, Store};

use crate::data::safetensors;
use crate::error::ErrorKind;
use crate::graph::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The format that is written.
pub const FORMAT: &str = "freeze-plan-checkpoint/2";

const INDEX: &str = "checkpoint.json";
const RUN: &str = "run.json";
const STATE: &str = "state.json";
const PLAN: &str = "plan.json";
const TENSORS: &str = ".safetensors";

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// The state of a run between two steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The epoch that is being trained, from 1.
    pub epoch: u64,
    /// Steps done over the run.
    pub step: u64,
    /// Which checkpoint of its run it is, from 1; 0 before it is written.
    pub sequence: u64,
    /// The plan file.
    pub plan: String,
    /// What the run measured and decided, as it needs it to go on: JSON.
    pub state: String,
    /// Tensors by what they are: `values` (parameters, statistics), `slots`, and more that only some runs have.
    pub groups: BTreeMap<String, Tensors>,
}

impl Checkpoint {
    /// Returns the tensors of a group; none where there is no such.
    pub fn group(&self, name: &str) -> Tensors {
        self.groups.get(name).cloned().unwrap_or_default()
    }

    /// Returns parameters, statistics and slots.
    pub fn tensors(&self) -> Tensors {
        ["values", "slots"].into_iter().flat_map(|group| self.group(group)).collect()
    }
}

/// `checkpoint.json`. Fields are only ever added; a reader skips those it does not know.
#[derive(Debug, Serialize, Deserialize)]
struct Index {
    format: String,
    /// The SHA-256 of each file.
    files: BTreeMap<String, String>,
}

/// `run.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Body {
    epoch: u64,
    step: u64,
    sequence: u64,
    /// Tensors in each group.
    groups: BTreeMap<String, usize>,
}

/// A checkpoint that cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum CheckpointError {
    #[error("cannot write {}", .path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot write {}: {reason}", .path.display())]
    Tensors { path: PathBuf, reason: String },
    #[error("{} holds no checkpoint", .folder.display())]
    None { folder: PathBuf },
    #[error("cannot read {}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is no checkpoint: {reason}", .path.display())]
    NotCheckpoint { path: PathBuf, reason: String },
    #[error("{} has format \"{found}\", this version reads \"{FORMAT}\"", .path.display())]
    Format { path: PathBuf, found: String },
    #[error("{} is damaged: its sha256 is {found}, expected {expected}", .path.display())]
    Hash { path: PathBuf, expected: String, found: String },
    #[error("{} is damaged: it holds {found} tensors, expected {expected}", .path.display())]
    Count { path: PathBuf, expected: usize, found: usize },
    #[error(transparent)]
    Data(#[from] crate::data::DataError),
}

impl CheckpointError {
    /// Returns the group this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::BadInput
    }
}

/// Writes a checkpoint into an empty folder; the files are synced, the folder is not.
fn write(folder: &Path, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
    let mut hashes = BTreeMap::new();
    let mut groups = BTreeMap::new();
    for (group, tensors) in &checkpoint.groups {
        let file = format!("{group}{TENSORS}");
        let path = folder.join(&file);
        let all = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
        safetensors::write(&path, all).map_err(|reason| CheckpointError::Tensors { path: path.clone(), reason })?;
        hashes.insert(file, files::synced(&path)?);
        groups.insert(group.clone(), tensors.len());
    }
    let Checkpoint { epoch, step, sequence, plan, state, .. } = checkpoint;
    let body = json(&Body { epoch: *epoch, step: *step, sequence: *sequence, groups });
    for (file, text) in [(RUN, &body), (STATE, state), (PLAN, plan)] {
        let path = folder.join(file);
        files::write(&path, text.as_bytes())?;
        hashes.insert(file.into(), files::synced(&path)?);
    }
    let path = folder.join(INDEX);
    files::write(&path, json(&Index { format: FORMAT.into(), files: hashes }).as_bytes())?;
    files::synced(&path)?;
    Ok(())
}

fn json(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("invariant: strings and numbers are JSON");
    text.push('\n');
    text
}

/// Reads the checkpoint in a folder of its own. Its tensors are mapped, not copied.
///
/// # Errors
/// There is none, it is damaged, or it has another format.
pub fn load(folder: &Path) -> Result<Checkpoint, CheckpointError> {
    let path = folder.join(INDEX);
    let text = std::fs::read_to_string(&path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => CheckpointError::None { folder: folder.to_path_buf() },
        _ => CheckpointError::Read { path: path.clone(), source },
    })?;
    let broken = |path: &Path, reason: String| CheckpointError::NotCheckpoint { path: path.to_path_buf(), reason };
    // The format decides how the rest is read, so it is looked at alone.
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| broken(&path, error.to_string()))?;
    let format = value.get("format").and_then(serde_json::Value::as_str).unwrap_or_default();
    if format != FORMAT {
        return Err(match format.split_once('/') {
            Some(("freeze-plan-checkpoint", _)) => CheckpointError::Format { path, found: format.into() },
            _ => broken(&path, format!("its format is not \"{FORMAT}\"")),
        });
    }
    let index: Index = serde_json::from_value(value).map_err(|error| broken(&path, error.to_string()))?;
    for (file, expected) in &index.files {
        if Path::new(file).file_name() != Some(file.as_ref()) {
            return Err(broken(&path, format!("\"{file}\" is no file name")));
        }
        let path = folder.join(file);
        let found = files::sha256(&path).map_err(|source| CheckpointError::Read { path: path.clone(), source })?;
        if found != *expected {
            return Err(CheckpointError::Hash { path, expected: expected.clone(), found });
        }
    }
    let listed = |file: &str| match index.files.contains_key(file) {
        true => Ok(folder.join(file)),
        false => Err(broken(&path, format!("it lists no {file}"))),
    };
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|source| CheckpointError::Read { path: path.to_path_buf(), source })
    };
    let run = listed(RUN)?;
    let body: Body = serde_json::from_str(&read(&run)?).map_err(|error| broken(&run, error.to_string()))?;
    let (plan, state) = (read(&listed(PLAN)?)?, read(&listed(STATE)?)?);
    let mut groups = BTreeMap::new();
    for (group, expected) in body.groups {
        let path = listed(&format!("{group}{TENSORS}"))?;
        let tensors: Tensors = safetensors::read(&path, None)?.into_iter().collect();
        if tensors.len() != expected {
            return Err(CheckpointError::Count { path, expected, found: tensors.len() });
        }
        groups.insert(group, tensors);
    }
    Ok(Checkpoint { epoch: body.epoch, step: body.step, sequence: body.sequence, plan, state, groups })
}
