//! Batch normalization of `[rows, channels]`, with what follows it: a residual and an activation.
//!
//! Images are channels-last, so all axes but the last are rows. [`forward`] computes the statistics of
//! the rows and applies them; [`statistics`] (or [`Moments`] of sums taken elsewhere) and [`apply`] are
//! its pieces. With statistics that are constants, [`inverse_std`], [`apply`] and [`backward_fixed`].
//!
//! Results do not depend on the number of threads. Running averages are the caller's.

mod backward;
mod forward;
mod moments;
#[cfg(test)]
mod tests;

pub use backward::{Backward, Gradients, backward, backward_fixed};
pub use forward::{apply, moments, statistics};
pub use moments::Moments;

use crate::activation::Activation;
use crate::exec::Exec;

/// Sizes and parameters.
#[derive(Clone, Copy, Debug)]
pub struct Normalization<'a> {
    /// Batch times pixels.
    pub rows: usize,
    /// The last axis.
    pub channels: usize,
    /// The factor of each channel.
    pub scale: &'a [f32],
    /// What is added to each channel.
    pub bias: &'a [f32],
    /// What is applied to the sum of normalized value, bias and residual.
    pub activation: Activation,
}

/// Statistics of each channel, to be written.
#[derive(Debug)]
pub struct Statistics<'a> {
    /// The mean.
    pub mean: &'a mut [f32],
    /// The variance, `mean((x - mean)^2)`.
    pub var: &'a mut [f32],
    /// `1 / sqrt(var + epsilon)`
    pub inv_std: &'a mut [f32],
}

impl Normalization<'_> {
    fn check(&self) {
        let channels = self.channels;
        assert!(self.rows.checked_mul(channels).is_some(), "rows times channels fits");
        assert!([self.scale.len(), self.bias.len()] == [channels; 2], "scale and bias have {channels} channels");
    }
}

/// Normalizes with the statistics of the rows.
///
/// `y = activation(scale (x - mean) inv_std + bias + residual)`.
///
/// # Panics
/// When a slice has the wrong length.
pub fn forward(
    exec: Exec<'_>,
    norm: &Normalization<'_>,
    x: &[f32],
    residual: Option<&[f32]>,
    epsilon: f32,
    y: &mut [f32],
    mut out: Statistics<'_>,
) {
    norm.check();
    statistics(exec, norm.rows, norm.channels, x, epsilon, &mut out);
    apply(exec, norm, x, out.mean, out.inv_std, residual, y);
}

/// Writes `1 / sqrt(var + epsilon)`.
///
/// # Panics
/// When the slices differ in length.
pub fn inverse_std(var: &[f32], epsilon: f32, inv_std: &mut [f32]) {
    assert!(var.len() == inv_std.len(), "a value for each of {} channels", var.len());
    for (inv_std, var) in inv_std.iter_mut().zip(var) {
        *inv_std = (1.0 / (f64::from(*var) + f64::from(epsilon)).sqrt()) as f32;
    }
}
