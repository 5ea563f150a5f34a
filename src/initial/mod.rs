//! The values that training starts from: those of the model, those of a file, or fresh ones.
//!
//! [`fresh`] draws what PyTorch's `reset_parameters` draws, by the operator that reads a tensor and the module that it
//! is in; [`read`] takes tensors from a checkpoint, a `.safetensors`, an `.npz` or another `.onnx` by their names. Both
//! tell what they did with each tensor. What this module does not do: decide which tensors are parameters, or train.

mod draw;
mod fan;
mod fresh;
mod law;
mod read;

pub use fresh::{Drawn, fresh};
pub use read::{Taken, read};

use crate::error::ErrorKind;
use crate::graph::{DType, Tensor};
use crate::plan::{PlanError, spoken_for};
use crate::training::Prepared;
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

/// Weights that cannot be set.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum InitialError {
    #[error(transparent)]
    Pattern(#[from] PlanError),
    #[error(transparent)]
    Data(#[from] crate::data::DataError),
    #[error(transparent)]
    Checkpoint(#[from] crate::checkpoint::CheckpointError),
    #[error(transparent)]
    Onnx(#[from] crate::onnx::OnnxError),
    #[error("{} holds no weights that are known: expected a folder with a checkpoint, .safetensors, .npz or .onnx", .path.display())]
    Format { path: PathBuf },
    #[error("{} does not have {} of the model's {of} tensors: {}", .path.display(), .missing.len(), few(.missing))]
    Missing { path: PathBuf, missing: Vec<String>, of: usize },
    #[error("{} has {} of the model's tensors in another form: {}", .path.display(), .unfit.len(), few(.unfit))]
    Unfit { path: PathBuf, unfit: Vec<String> },
    #[error("{} has none of the model's tensors; it has {}", .path.display(), few(.has))]
    Nothing { path: PathBuf, has: Vec<String> },
}

impl InitialError {
    /// Returns the group this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        match self {
            InitialError::Pattern(error) => error.kind(),
            InitialError::Data(error) => error.kind(),
            InitialError::Checkpoint(error) => error.kind(),
            InitialError::Onnx(error) => error.kind(),
            _ => ErrorKind::BadInput,
        }
    }
}

/// Returns the first of many entries.
fn few(entries: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<&str> = entries.iter().take(SHOWN).map(String::as_str).collect();
    match entries.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Returns the parameters and statistics that patterns speak for, all with none. Running statistics go with the scale
/// of their BatchNormalization.
fn selected(prepared: &Prepared, only: &[String]) -> Result<Vec<String>, InitialError> {
    let all = prepared.trainable().into_iter().chain(prepared.statistics());
    if only.is_empty() {
        return Ok(all.map(String::from).collect());
    }
    let spoken = spoken_for(&prepared.units, "only", only)?;
    let graph = &prepared.model.graph;
    let norms: BTreeMap<&str, &str> = graph
        .nodes()
        .iter()
        .filter(|node| node.op.is("BatchNormalization"))
        .flat_map(|node| {
            let name = |index| node.input(index).map(|id| graph.value_name(id));
            [3, 4].into_iter().filter_map(move |index| Some((name(index)?, name(1)?)))
        })
        .collect();
    let goes = |name: &&str| spoken.contains(*name) || norms.get(name).is_some_and(|scale| spoken.contains(*scale));
    let found: HashSet<&str> = all.clone().filter(goes).collect();
    Ok(all.filter(|name| found.contains(name)).map(String::from).collect())
}

/// Returns numbers as a tensor of a floating-point dtype; `None` for other dtypes than float32 and float64.
fn tensor(dtype: DType, shape: &[usize], values: Vec<f64>) -> Option<Tensor> {
    match dtype {
        DType::F32 => Some(Tensor::from_vec(shape, values.into_iter().map(|value| value as f32).collect())),
        DType::F64 => Some(Tensor::from_vec(shape, values)),
        _ => None,
    }
}

/// Replaces values of a prepared model.
fn set(prepared: &mut Prepared, values: Vec<(String, Tensor)>) {
    for (name, tensor) in values {
        let graph = std::mem::take(&mut prepared.model.graph);
        prepared.model.graph = graph.with_initializer(&name, tensor);
    }
}
