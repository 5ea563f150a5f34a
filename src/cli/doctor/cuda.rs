//! What there is of CUDA.

use crate::runner::cuda::{Accelerator, CudaError, Driver, check, libraries as found, provider_beside};
use crate::runner::locate::Candidate;
use crate::runner::{Device, LocateError, LocateOptions, locate};
use std::fmt::Write;

/// Writes the devices and the driver.
pub(super) fn devices() -> String {
    let mut text = "devices     cpu\n".to_string();
    match Driver::read() {
        Ok(driver) => {
            for device in &driver.devices {
                let _ = writeln!(text, "            {}", described(&driver, device));
            }
            let version = driver.version.as_ref().map(|version| format!("{version}, ")).unwrap_or_default();
            let _ = writeln!(text, "driver      {version}for CUDA {}.{} and older", driver.cuda.0, driver.cuda.1);
        }
        Err(CudaError::NoDriver { .. }) => text.push_str("driver      none\n"),
        Err(error) => {
            let _ = writeln!(text, "driver      {error}");
        }
    }
    text
}

fn described(driver: &Driver, device: &Accelerator) -> String {
    let Accelerator { index, name, capability: (major, minor), memory } = device;
    let free = driver.free_memory(*index).map(|free| format!(", {} free", gigabytes(free))).unwrap_or_default();
    format!("cuda:{index}  {name}, compute capability {major}.{minor}, {}{free}", gigabytes(*memory))
}

#[allow(clippy::cast_precision_loss)]
fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

/// Writes NVIDIA's libraries for the first ONNX Runtime that has a provider for CUDA.
pub(super) fn libraries(candidates: &[Candidate]) -> String {
    let with = candidates.iter().find(|candidate| candidate.outcome.is_ok() && candidate.cuda.is_some());
    let Some(Ok((libraries, missing))) = with.map(|candidate| found(&provider_beside(&candidate.path))) else {
        return String::new();
    };
    let mut text = format!("NVIDIA's libraries for CUDA {}:\n", libraries.cuda);
    for library in &libraries.loaded {
        let version = library.version().map(|version| format!(" {version}")).unwrap_or_default();
        let path = library.path.as_ref().map(|path| format!("  {}", path.display())).unwrap_or_default();
        let _ = writeln!(text, "  {}{version}{path}", library.name);
    }
    for error in missing {
        let _ = match &error {
            CudaError::MissingLibrary { name, package: Some(package), .. } => {
                writeln!(text, "  {name}  missing: pip install {package}")
            }
            CudaError::MissingLibrary { name, .. } => writeln!(text, "  {name}  missing"),
            other => writeln!(text, "  {other}"),
        };
    }
    text
}

/// Returns with what a run on CUDA works, or why it does not.
pub(super) fn usable(options: &LocateOptions) -> Result<String, String> {
    let index = if let Device::Cuda(index) = options.device { index } else { 0 };
    let options = LocateOptions { device: Device::Cuda(index), ..options.clone() };
    let failed = |error: LocateError| match error {
        LocateError::Offline { .. } => {
            "not usable yet: there is no ONNX Runtime for CUDA; training on it fetches onnxruntime-gpu with pip"
                .to_string()
        }
        error => format!("not usable: {error}; {}", error.hint()),
    };
    let found = locate(&options, &mut |_| {}).map_err(failed)?;
    let ready = check(index, &provider_beside(&found.path)).map_err(|error| failed(error.into()))?;
    let Accelerator { index, name, .. } = ready.device;
    Ok(format!("ONNX Runtime {} at {}, on cuda:{index} ({name})", found.version, found.path.display()))
}
