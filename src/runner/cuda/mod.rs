//! NVIDIA's driver and libraries: finding them, loading them, and saying what is missing.
//!
//! Everything is loaded at run time, so the program runs where nothing of it is installed. What this
//! module does not do: run graphs, which is ONNX Runtime's task.

mod check;
mod driver;
mod error;
mod libraries;
mod names;
mod places;
mod requires;

pub use check::{Libraries, Ready, check};
pub use driver::{Accelerator, Driver};
pub use error::CudaError;
pub use libraries::Library;
pub use names::provider_beside;
