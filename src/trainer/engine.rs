//! The engine of a run.

use super::TrainerError;
use super::model::Note;
use crate::error::ErrorKind;
use crate::runner::cuda::{check, provider_beside};
use crate::runner::job::RunSection;
use crate::runner::locate::cache_folder;
use crate::runner::{
    Cuda, Device, Engine, LocateError, LocateOptions, OnnxRuntime, Precision, locate, telemetry_is_undecided,
};
use std::path::Path;

/// What an engine is made for beside its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Threads within one operator on the processor; all cores by default.
    pub threads: Option<usize>,
    /// In which dtypes a run computes.
    pub precision: Precision,
    /// Whether runs of fixed shapes are captured as CUDA graphs.
    pub cuda_graphs: bool,
}

impl Default for EngineOptions {
    fn default() -> EngineOptions {
        EngineOptions { threads: None, precision: Precision::Fp32, cuda_graphs: true }
    }
}

impl EngineOptions {
    /// Returns those of a run.
    pub fn of(run: &RunSection) -> EngineOptions {
        EngineOptions { threads: run.threads, precision: run.precision, cuda_graphs: run.cuda_graphs }
    }
}

/// Finds ONNX Runtime for the device of `options`; for the CPU it falls back to the embedded executor, saying so.
///
/// # Errors
/// There is no ONNX Runtime that can be used, and no embedded executor; or the device cannot be used. Nothing computes on
/// the CPU when CUDA is asked for.
pub fn engine(
    options: &LocateOptions,
    made_for: &EngineOptions,
    note: Note<'_>,
) -> Result<Box<dyn Engine>, TrainerError> {
    let threads = made_for.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let wants_embedded = options.runtime.as_deref() == Some(Path::new("embedded"));
    if !wants_embedded && telemetry_is_undecided() {
        note(
            "note: packages of ONNX Runtime from 1.29 on report to their makers when they start, unless \
             ORT_DISABLE_TELEMETRY=1 is in the environment (runner::disable_telemetry, first thing in main)",
        );
    }
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
        Device::Cuda(index) => on_cuda(options, index, threads, made_for, note),
    }
}

/// Refuses an engine on the CPU for a run on another device.
pub(super) fn not_on_the_cpu_instead(device: &str, engine: &dyn Engine) -> Result<(), TrainerError> {
    let (is, cpu) = (&engine.info().device, Device::Cpu.to_string());
    if device == cpu || *is != cpu {
        return Ok(());
    }
    let text = format!("the device of the run is {device}, the engine computes on {is}");
    Err(TrainerError::new(ErrorKind::Usage, text)
        .hint("make the engine with the device of the run in its LocateOptions"))
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
    made_for: &EngineOptions,
    note: Note<'_>,
) -> Result<Box<dyn Engine>, TrainerError> {
    let found = locate(options, note)?;
    check(index, &provider_beside(&found.path)).map_err(LocateError::from)?;
    let cache = cache_folder().map(|folder| folder.join("kernels"));
    let cuda = Cuda { tf32: made_for.precision != Precision::Fp32, graphs: made_for.cuda_graphs, cache };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_on_cuda_gets_no_engine_on_the_cpu() {
        let engine = crate::runner::testing::onnxruntime();
        assert!(not_on_the_cpu_instead("cpu", &engine).is_ok());
        let error = not_on_the_cpu_instead("cuda:1", &engine).unwrap_err();
        assert_eq!(error.message(), "the device of the run is cuda:1, the engine computes on cpu");
    }
}
