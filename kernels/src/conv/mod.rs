//! Convolution of channels-last images, and its gradients.
//!
//! `y[n, i, j, m] = bias[m] + sum x[n, i * stride + u * dilation - pad, j * .. + v * .., c] * w[m, c, u, v]`
//!
//! Forward and the gradient of the input are *correlations*: every output pixel is a sum over a window
//! of pixels (`correlate.rs`); a strided convolution's gradient of the input is one correlation per
//! phase of the strides. The gradient of the weights sums over pixels (`weight_grad.rs`).
//!
//! Windows of 3 x 3 at stride 1 go through fast convolution (`winograd`) where that saves enough products.
//! Groups of any size are computed; those of a single channel waste most of a vector.
//!
//! Hooks for normalization: an [`Input`] may be scaled, shifted and rectified as it is read, and
//! [`Conv2d::forward_moments`] gathers the [`Moments`] of the outputs. Results do not depend on the number
//! of threads.

mod axis;
mod correlate;
mod fill;
mod forward;
mod geometry;
mod input_grad;
mod moments;
mod pack;
mod patch;
mod stripes;
mod tile;
mod weight_grad;
mod winograd;

#[cfg(test)]
mod tests;

pub use crate::input::Input;
pub use geometry::{Conv2d, GeometryError};
pub use moments::Moments;
