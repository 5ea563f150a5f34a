//! A model, from a file, a folder of training artifacts, or bytes.

use crate::failure::Failure;
use bytes::Bytes;
use freeze_plan::artifacts::{self, Artifacts};
use freeze_plan::onnx::{OnnxFile, read, read_bytes};
use freeze_plan::planner::Analysis;
use std::path::PathBuf;

/// Where a model comes from: a path, or bytes that are called by it.
pub struct Source {
    /// The path; with bytes it is for messages, and its folder holds external files.
    pub path: PathBuf,
    /// The bytes of the file, where the caller has them.
    pub data: Option<Vec<u8>>,
}

/// A model that was read and analysed.
pub struct Opened {
    /// The file.
    pub file: OnnxFile,
    /// What the planner knows of it.
    pub analysis: Analysis,
    /// What the training artifacts say that it was recovered from.
    pub notes: Vec<String>,
    /// Parameters that these keep frozen.
    pub frozen: Vec<String>,
}

impl Source {
    /// Reads and analyses the model with these patterns for parameters and buffers. No weight is read.
    pub fn open(self, parameter: &[String], buffer: &[String]) -> Result<Opened, Failure> {
        let Source { path, data } = self;
        let (file, artifacts) = match data {
            Some(data) => (read_bytes(&path, Bytes::from(data))?, None),
            None => match artifacts::find(&path)?.map(|files| artifacts::read(&files)).transpose()? {
                Some(artifacts) => (artifacts.to_file(), Some(artifacts)),
                None => (read(&path)?, None),
            },
        };
        // Bindings of training information name initializers as the file has them.
        let analysis = match file.training.is_empty() {
            true => Analysis::of(&file.model),
            false => Analysis::as_written(&file.model),
        };
        let analysis = analysis.with_roles(parameter, buffer)?;
        let trainable = analysis.trainable();
        let mut frozen = artifacts.as_ref().map(Artifacts::frozen).unwrap_or_default();
        frozen.retain(|name| trainable.contains(&name.as_str()));
        let notes = artifacts.map(|artifacts| artifacts.notes).unwrap_or_default();
        Ok(Opened { file, analysis, notes, frozen })
    }
}
