//! ONNX files: read into a [`Model`](crate::graph::Model), written from one, and rewritten in
//! place without touching what did not change.
//!
//! Weights are mapped from the file, not copied. Protobuf types stay inside this module.

mod export;
mod external;
mod import;
mod import_graph;
mod large;
mod order;
#[rustfmt::skip]
#[allow(missing_docs, clippy::all, clippy::pedantic)]
mod proto;
mod rewrite;
mod scan;
mod sequences;
mod sparse;
mod tensor;
mod training_info;

pub use export::to_bytes;
pub(crate) use external::map;
pub use external::{Outside, Source};
pub use import::{OnnxFile, read, read_bytes, read_bytes_with};
pub use large::{Encoded, LARGEST, Piece, encode};
pub use rewrite::{Edits, NodeEdit};
pub use sequences::to_bytes_with_sequences;
pub use training_info::{NewTrainingInfo, TrainingInfo, with_training_info};

use crate::error::ErrorKind;
use std::path::PathBuf;

/// A file that cannot be read as a model, or a model that cannot be written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum OnnxError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is no ONNX model: {reason}")]
    NotOnnx { path: PathBuf, reason: String },
    #[error("{path} has {what} {found}, {from} to {to} can be read")]
    Version { path: PathBuf, what: &'static str, found: i64, from: i64, to: i64 },
    #[error("{path}: initializer \"{tensor}\" lies in the external file {file}, which cannot be read")]
    External { path: PathBuf, tensor: String, file: PathBuf, source: std::io::Error },
    #[error("{path}: initializer \"{tensor}\": {reason}")]
    Tensor { path: PathBuf, tensor: String, reason: String },
    #[error("{path}: {source}")]
    Graph { path: PathBuf, source: crate::graph::CheckError },
    #[error("{path}: node \"{node}\": {reason}")]
    Node { path: PathBuf, node: String, reason: String },
    #[error("{path}: value \"{value}\" is defined twice")]
    Duplicate { path: PathBuf, value: String },
    #[error("{path}: training information {number}: {reason}")]
    Training { path: PathBuf, number: usize, reason: String },
    #[error("in function \"{function}\": {source}")]
    Function { function: String, source: Box<OnnxError> },
    #[error("{path}: {source}")]
    Inline { path: PathBuf, source: crate::graph::InlineError },
    #[error("the model has no initializer \"{name}\" to replace")]
    NoInitializer { name: String },
    #[error("initializer \"{name}\" is {expected} in the file, its new value is {found}")]
    Mismatch { name: String, expected: String, found: String },
}

impl OnnxError {
    /// Returns the group this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        match self {
            OnnxError::Inline { source, .. } => source.kind(),
            OnnxError::Version { .. } => ErrorKind::Unsupported,
            OnnxError::NoInitializer { .. } | OnnxError::Mismatch { .. } => ErrorKind::Internal,
            _ => ErrorKind::BadInput,
        }
    }
}
