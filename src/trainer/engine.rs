//! The engine of a run.

use super::TrainerError;
use super::model::Note;
use crate::runner::{Engine, LocateError, LocateOptions, OnnxRuntime, locate};
use std::path::Path;

/// Finds ONNX Runtime, or falls back to the embedded executor, saying so. `threads` is all cores by default.
///
/// # Errors
/// There is no ONNX Runtime that can be used, and no embedded executor.
pub fn engine(
    options: &LocateOptions,
    threads: Option<usize>,
    note: Note<'_>,
) -> Result<Box<dyn Engine>, TrainerError> {
    let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    if options.runtime.as_deref() == Some(Path::new("embedded")) {
        note("note: the embedded executor (tract) runs on one thread and is several times slower");
        return embedded();
    }
    match locate(options, note) {
        Ok(found) => Ok(Box::new(OnnxRuntime::new(&found.path, threads)?)),
        Err(error) if !matches!(error, LocateError::Unusable { .. }) && cfg!(feature = "tract") => {
            note(&format!("warning: {error}"));
            note("warning: training on the embedded executor (tract), which is several times slower");
            embedded()
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(feature = "tract")]
fn embedded() -> Result<Box<dyn Engine>, TrainerError> {
    Ok(Box::new(crate::runner::Tract::new()))
}

#[cfg(not(feature = "tract"))]
fn embedded() -> Result<Box<dyn Engine>, TrainerError> {
    let text = "this build has no embedded executor (feature \"tract\")";
    Err(TrainerError::new(crate::error::ErrorKind::Usage, text))
}
