//! Numeric kernels on slices of `f32`: what a training step spends its time in.
//!
//! A kernel knows sizes and slices, no graphs and no runtime. Work is split over a [`Pool`]; the
//! instruction set is chosen at run time ([`simd`]). Images are channels-last (`[N, H, W, C]`).
//!
//! What this crate does not do: allocate results, choose layouts, know ONNX.

pub mod activation;
mod aligned;
pub mod conv;
pub mod cross_entropy;
pub mod depthwise;
pub mod dropout;
pub mod embedding;
pub mod exec;
mod fold;
pub mod gate;
pub mod gelu;
mod input;
pub(crate) mod lanes;
pub mod layer_norm;
pub mod math;
pub mod norm;
pub mod optimizer;
pub mod pool;
pub mod pool2d;
mod prefetch;
pub mod rms_norm;
pub mod simd;
pub mod softmax;
#[cfg(test)]
mod testing;
pub mod window;

pub use activation::Activation;
pub use exec::Exec;
pub use input::Input;
pub use pool::{Pool, Serial, Threads};
pub use window::Window;
