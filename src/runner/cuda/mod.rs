//! CUDA: NVIDIA's driver and libraries, and what kernels and operators of ours need of a device.
//!
//! Everything of NVIDIA is loaded at run time, so the program builds and runs where nothing of it is installed.
//! `check` finds the driver, the device and the libraries, or says what is missing.
//!
//! A kernel is CUDA C (`kernels/*.cu`, with `kernels/device.h`), compiled at run time for the device that is there. An
//! operator (`operators/`) starts kernels and convolutions on a `Gpu`: a device, or in tests an emulated one that compiles
//! the same sources for the processor.
//!
//! What this module does not do: gradients, or the binding to ONNX Runtime (`runner/onnxruntime`).

mod arena;
mod check;
mod compile;
mod cudnn;
pub(super) mod device;
mod driver;
#[cfg(all(test, unix))]
pub(super) mod emulated;
mod error;
pub(super) mod gpu;
mod kernels;
mod library;
mod names;
pub(super) mod operators;
mod places;
mod requires;
pub(super) mod staging;
mod turn;

pub use check::{Libraries, Ready, check, libraries};
pub(super) use check::{cuda_of, load, usable};
pub use driver::{Accelerator, Driver};
pub use error::CudaError;
pub use library::Library;
pub(super) use names::package;
pub use names::provider_beside;
pub(super) use places::CACHED;
