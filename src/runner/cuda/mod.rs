//! CUDA: what kernels and operators of ours need of an NVIDIA device.
//!
//! A kernel is CUDA C (`kernels/*.cu`, with `kernels/device.h`), compiled at run time for the device that is there. An
//! operator (`operators/`) starts kernels and convolutions on a [`Gpu`](gpu::Gpu): a device, or in tests an emulated one
//! that compiles the same sources for the processor.
//!
//! What this module does not do: gradients, or the binding to ONNX Runtime (`runner/onnxruntime`).

#[allow(dead_code)]
pub(super) mod cudnn;
#[cfg(all(test, unix))]
pub(super) mod emulated;
#[allow(dead_code)]
pub(super) mod gpu;
mod kernels;
pub(super) mod operators;
mod turn;
