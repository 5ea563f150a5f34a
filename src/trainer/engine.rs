//! The engine of a run.

use super::TrainerError;
use super::model::Note;
use crate::error::ErrorKind;
use crate::runner::locate::cache;
use crate::runner::{Cuda, Device, Engine, LocateError, LocateOptions, OnnxRuntime, locate};
use std::path::Path;

/// Finds ONNX Runtime for the device of `options`; for the CPU it falls back to the embedded executor, saying so. `threads`
/// is all cores by default.
///
/// # Errors
/// There is no ONNX Runtime that can be used, and no embedded executor; or the device cannot be used. Nothing computes on
/// the CPU when CUDA is asked for.
pub fn engine(
    options: &LocateOptions,
    threads: Option<usize>,
    note: Note<'_>,
) -> Result<Box<dyn Engine>, TrainerError> {
    let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let wants_embedded = options.runtime.as_deref() == Some(Path::new("embedded"));
    match options.device {
        Device::Cpu if wants_embedded => {
            note("note: the embedded executor (tract) runs on one thread and is several times slower");
            embedded()
        }
        Device::Cpu => on_cpu(options, threads, note),
        device @ Device::Cuda(_) if wants_embedded => {
            let text = format!("the embedded executor computes on the CPU, the device is {device}");
            Err(TrainerError::new(ErrorKind::Usage, text).hint("leave out --runtime, or set device = \"cpu\""))
        }
        Device::Cuda(index) => on_cuda(options, index, threads, note),
    }
}

fn on_cpu(options: &LocateOptions, threads: usize, note: Note<'_>) -> Result<Box<dyn Engine>, TrainerError> {
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

fn on_cuda(
    options: &LocateOptions,
    index: u32,
    threads: usize,
    note: Note<'_>,
) -> Result<Box<dyn Engine>, TrainerError> {
    let found = locate(options, note)?;
    let cuda = Cuda { tf32: false, graphs: false, cache: cache().map(|cache| cache.join("kernels")) };
    Ok(Box::new(OnnxRuntime::on_cuda(&found.path, index, threads, &cuda)?))
}

#[cfg(feature = "tract")]
fn embedded() -> Result<Box<dyn Engine>, TrainerError> {
    Ok(Box::new(crate::runner::Tract::new()))
}

#[cfg(not(feature = "tract"))]
fn embedded() -> Result<Box<dyn Engine>, TrainerError> {
    let text = "this build has no embedded executor (feature \"tract\")";
    Err(TrainerError::new(ErrorKind::Usage, text))
}
