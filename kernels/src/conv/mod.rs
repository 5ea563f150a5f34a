//! Convolution of channels-last images, and its gradients.
//!
//! `y[n, i, j, m] = bias[m] + sum x[n, i * stride + u * dilation - pad, j * .. + v * .., c] * w[m, c, u, v]`
//!
//! Forward and the gradient of the input are *correlations*: every output pixel is a sum over a window
//! of pixels ([`correlate`]); a strided convolution's gradient of the input is one correlation per
//! phase of the strides. The gradient of the weights sums over pixels ([`weight_grad`]).
//!
//! Results do not depend on the number of threads.

mod axis;
mod correlate;
mod fill;
mod forward;
mod geometry;
mod input_grad;
mod pack;
mod patch;
mod stripes;
mod tile;
mod weight_grad;
mod winograd;

#[cfg(test)]
mod tests;

pub use fill::Input;
pub use geometry::{Conv2d, GeometryError};
