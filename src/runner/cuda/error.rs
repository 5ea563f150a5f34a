//! Why CUDA cannot be used.

use super::names;
use std::path::PathBuf;

/// Why CUDA cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum CudaError {
    #[error(
        "the ONNX Runtime in {} is the package for the CPU: there is no {} beside it",
        .provider.parent().unwrap_or(.provider).display(), names::PROVIDER
    )]
    NoProvider { provider: PathBuf },
    #[error("{}: {reason}", .path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("NVIDIA's driver is not installed: {} cannot be loaded: {reason}", names::DRIVER)]
    NoDriver { reason: String },
    #[error("NVIDIA's driver fails: {call}: {reason}")]
    Driver { call: &'static str, reason: String },
    #[error(
        "NVIDIA's driver is too old: it is {}for CUDA {}.{}, CUDA {needed} is needed",
        .version.as_ref().map(|version| format!("{version}, ")).unwrap_or_default(), .found.0, .found.1
    )]
    DriverTooOld { found: (u32, u32), version: Option<String>, needed: u32 },
    #[error("NVIDIA's driver finds no device")]
    NoDevice,
    #[error("there is no device cuda:{index}: the driver finds {}", devices(*.count))]
    NoSuchDevice { index: u32, count: usize },
    #[error(
        "device cuda:{index} ({name}) has compute capability {}.{}, CUDA {cuda} needs {}.{} or newer",
        .found.0, .found.1, .needed.0, .needed.1
    )]
    DeviceTooOld { index: u32, name: String, found: (u32, u32), needed: (u32, u32), cuda: u32 },
    #[error("{name}, which {needed_by} needs, was not found{}", places(.looked))]
    MissingLibrary { name: String, needed_by: String, package: Option<String>, looked: Vec<PathBuf> },
    #[error("{} cannot be loaded: {reason}", .path.display())]
    BrokenLibrary { name: String, path: PathBuf, package: Option<String>, reason: String },
}

fn devices(count: usize) -> String {
    match count {
        1 => "one, cuda:0".into(),
        count => format!("{count}, cuda:0 to cuda:{}", count.saturating_sub(1)),
    }
}

fn places(folders: &[PathBuf]) -> String {
    if folders.is_empty() {
        return "; the system's loader was asked".into();
    }
    let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    format!("; the system's loader was asked, and there is none in {}", folders.join(", "))
}

impl CudaError {
    /// Returns what the user can do.
    pub fn hint(&self) -> String {
        match self {
            CudaError::NoProvider { .. } => {
                "run `pip install \"onnxruntime-gpu[cuda,cudnn]\"` and let --runtime and ORT_DYLIB_PATH, if given, name its \
                 library"
                    .into()
            }
            CudaError::Unreadable { .. } => "install onnxruntime-gpu anew".into(),
            CudaError::NoDriver { .. } => {
                "install NVIDIA's driver; in a container, start it with the devices (`docker run --gpus all`)".into()
            }
            CudaError::Driver { .. } => {
                "see whether nvidia-smi works; after an update of the driver, restart the machine".into()
            }
            CudaError::DriverTooOld { needed, .. } => match names::oldest_driver(*needed) {
                Some(version) => format!("install NVIDIA's driver {version} or newer"),
                None => format!("install a driver of NVIDIA for CUDA {needed}"),
            },
            CudaError::NoDevice => {
                "see whether nvidia-smi lists one, and whether CUDA_VISIBLE_DEVICES hides it".into()
            }
            CudaError::NoSuchDevice { .. } => "CUDA_VISIBLE_DEVICES decides which devices there are".into(),
            CudaError::DeviceTooOld { .. } => "use another device, or an onnxruntime-gpu for an older CUDA".into(),
            CudaError::MissingLibrary { package: Some(package), .. } => {
                format!("run `pip install {package}`, or put the folder of the library on the system's library path")
            }
            CudaError::MissingLibrary { .. } => "put the folder of the library on the system's library path".into(),
            CudaError::BrokenLibrary { package: Some(package), .. } => {
                format!("run `pip install --force-reinstall {package}`")
            }
            CudaError::BrokenLibrary { .. } => "install it anew".into(),
        }
    }
}
