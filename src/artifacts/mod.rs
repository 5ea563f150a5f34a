//! The files of ONNX Runtime's on-device training as input: `training_model.onnx`,
//! `eval_model.onnx`, `optimizer_model.onnx` and `checkpoint`, also under a common prefix.
//!
//! They were made from a plain model: parameters became inputs, a loss, its gradients and
//! gradient buffers were added, the values went to the checkpoint. [`read`] goes back: it returns
//! the plain model with the checkpoint's values ([`Artifacts::model`]), what was frozen, and which
//! loss and optimizer the files train with.
//!
//! [`encode_checkpoint`] writes a checkpoint, [`encode_nominal_checkpoint`] its names alone; the module `classic` makes the models beside it.
//!
//! What this module does not do: run these graphs.

mod checkpoint;
mod files;
mod loss;
mod optimizer;
mod plain;
mod recover;
mod schema;
mod write;

pub use checkpoint::{Checkpoint, OptimizerGroup, Property, read as read_checkpoint};
pub use files::{Files, find};
pub use loss::FoundLoss;
pub use write::{encode_checkpoint, encode_nominal_checkpoint};

use crate::error::ErrorKind;
use crate::graph::Model;
use crate::onnx::{OnnxError, OnnxFile};
use crate::optim::OptimizerSpec;
use std::collections::HashSet;
use std::path::PathBuf;

/// The front of the names of tensors that this program puts into a checkpoint beside those of the model.
pub const OURS: &str = "freeze_plan.";

/// What the files say.
#[derive(Clone, Debug)]
pub struct Artifacts {
    /// Where they lie.
    pub files: Files,
    /// The plain model in inference form but for Dropout, with the checkpoint's values.
    pub model: Model,
    /// Parameters and training state.
    pub checkpoint: Checkpoint,
    /// The loss, where it is one that this program has.
    pub loss: Option<FoundLoss>,
    /// The optimizer, where its file is there.
    pub optimizer: Option<OptimizerSpec>,
    /// What a person should know of the recovery.
    pub notes: Vec<String>,
}

impl Artifacts {
    /// Returns the names of the parameters that the files do not train and that are no running
    /// statistics, in the model's order.
    pub fn frozen(&self) -> Vec<String> {
        let graph = &self.model.graph;
        let norms = graph.nodes().iter().filter(|node| node.op.is("BatchNormalization"));
        let statistics: HashSet<_> = norms.flat_map(|node| [node.input(3), node.input(4)]).flatten().collect();
        let listed: HashSet<&str> = self.checkpoint.frozen.iter().map(|(name, _)| name.as_str()).collect();
        let parameters = graph.initializers().filter(|(id, ..)| !statistics.contains(id));
        let names = parameters.map(|(_, value, _)| &value.name);
        names.filter(|name| listed.contains(name.as_str())).cloned().collect()
    }

    /// Returns the plain model as a file that stands for the artifacts.
    pub fn to_file(&self) -> OnnxFile {
        OnnxFile::of(&self.files.training, self.model.clone())
    }
}

/// Artifacts that cannot be taken as a model.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum ArtifactsError {
    #[error("cannot read {}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is a folder without a training_model.onnx", .path.display())]
    NoModel { path: PathBuf },
    #[error("{} holds several training models: {names}", .path.display())]
    Several { path: PathBuf, names: String },
    #[error("{} is a training model, but its parameters are not beside it: {} is missing", .model.display(), .path.display())]
    NoCheckpoint { model: PathBuf, path: PathBuf },
    #[error("{}: {reason}", .path.display())]
    Checkpoint { path: PathBuf, reason: String },
    #[error("{}: {reason}", .path.display())]
    Model { path: PathBuf, reason: String },
    #[error("{}: {reason}", .path.display())]
    Unsupported { path: PathBuf, reason: String },
    #[error(transparent)]
    Onnx(#[from] OnnxError),
}

impl ArtifactsError {
    /// Returns the group this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ArtifactsError::Unsupported { .. } => ErrorKind::Unsupported,
            ArtifactsError::Onnx(error) => error.kind(),
            _ => ErrorKind::BadInput,
        }
    }
}

/// Reads artifacts that [`find`] found.
///
/// # Errors
/// A file cannot be read, is damaged, or the plain model cannot be told from the rest.
pub fn read(files: &Files) -> Result<Artifacts, ArtifactsError> {
    let checkpoint = checkpoint::read(&files.checkpoint)?;
    let training = crate::onnx::read(&files.training)?.model;
    let eval = files.eval.as_ref().map(|path| crate::onnx::read(path)).transpose()?.map(|file| file.model);
    let optimizer = files.optimizer.as_ref().map(|path| crate::onnx::read(path)).transpose()?;
    let mut notes = Vec::new();
    let (model, loss) = recover::recover(files, &training, eval.as_ref(), &checkpoint, &mut notes)?;
    let optimizer = optimizer.and_then(|file| optimizer::find(&file.model, &checkpoint, &mut notes));
    let mut artifacts = Artifacts { files: files.clone(), model, checkpoint, loss, optimizer, notes };
    let summary = artifacts.summary();
    artifacts.notes.splice(0..0, summary);
    Ok(artifacts)
}

impl Artifacts {
    fn summary(&self) -> Vec<String> {
        let mut text = "recovered from the training artifacts of ONNX Runtime".to_string();
        match &self.loss {
            Some(loss) => {
                text +=
                    &format!(": loss {} of \"{}\" against \"{}\"", loss.spec.kind.name(), loss.prediction, loss.target)
            }
            None => text += ": no loss that this program has",
        }
        if let Some(optimizer) = &self.optimizer {
            text += &format!(", optimizer {}", optimizer::describe(optimizer));
        }
        let mut notes = vec![text];
        if let Some(group) = self.checkpoint.optimizer.first().filter(|group| group.step > 0) {
            notes.push(format!(
                "the checkpoint was saved after {} optimizer steps; training starts with a new optimizer state",
                group.step
            ));
        }
        notes
    }
}

#[cfg(test)]
mod tests;
