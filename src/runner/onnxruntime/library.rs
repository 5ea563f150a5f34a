//! The library: which version a file is, and the one that a process loads.

use super::NAME;
use crate::error::in_one_line;
use crate::runner::engine::EngineError;
use ort::environment::{Environment, GlobalThreadPoolOptions};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// ONNX Runtime allows one environment a process, and the library once loaded stays.
static ENVIRONMENT: Mutex<Option<Environments>> = Mutex::new(None);

/// ONNX Runtime as it is loaded.
#[derive(Clone)]
pub(super) struct Environments {
    pub(super) library: PathBuf,
    pub(super) environment: &'static Environment,
    /// Threads within an operator that sessions share: threads of several sessions would wait for work at the same time,
    /// each on a core that another one's could use.
    pub(super) threads: usize,
}

/// Loads ONNX Runtime, once a process; `threads` are those that its sessions share.
pub(super) fn environment(library: &Path, threads: usize) -> Result<Environments, EngineError> {
    let mut slot = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(loaded) = slot.as_ref() {
        return Ok(loaded.clone());
    }
    let fail = |reason: String| EngineError::Library { engine: NAME, library: library.display().to_string(), reason };
    let builder = ort::init_from(library).map_err(|error| fail(in_one_line(&error)))?;
    let options = GlobalThreadPoolOptions::default();
    let options = options.with_intra_threads(threads).and_then(|options| options.with_flush_to_zero());
    let options = options.map_err(|error| fail(error.to_string()))?;
    let builder = builder.with_telemetry(false).with_global_thread_pool(options);
    let environment = builder.build().map_err(|error| fail(error.to_string()))?;
    let environment: &'static Environment = Box::leak(Box::new(environment));
    environment.set_log_level(ort::logging::LogLevel::Error);
    let loaded = Environments { library: library.to_path_buf(), environment, threads };
    *slot = Some(loaded.clone());
    Ok(loaded)
}

/// Why a file did not tell its version.
#[derive(Debug)]
pub(in crate::runner) enum VersionError {
    /// The system's loader refuses the file, for this reason.
    Load(String),
    /// It loads, and is another library.
    NotOnnxRuntime,
}

/// Returns the version that the library at `path` reports.
///
/// # Errors
/// The file does not load or is no ONNX Runtime.
pub(in crate::runner) fn library_version(path: &Path) -> Result<String, VersionError> {
    // SAFETY: `OrtGetApiBase` is the one documented entry of an ONNX Runtime library; its version
    // string is static. An ONNX Runtime is kept loaded, because unloading it is not supported.
    unsafe {
        let library = libloading::Library::new(path).map_err(|error| VersionError::Load(in_one_line(&error)))?;
        let base = library
            .get::<unsafe extern "C" fn() -> *const ort::sys::OrtApiBase>(b"OrtGetApiBase")
            .map_err(|_| VersionError::NotOnnxRuntime)?();
        let text = ((*base).GetVersionString)();
        let version = std::ffi::CStr::from_ptr(text).to_string_lossy().into_owned();
        std::mem::forget(library);
        Ok(version)
    }
}
