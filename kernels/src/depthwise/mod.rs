//! Convolutions where every input channel has its own kernels.
//!
//! Images are `[N, H, W, C]`, weights `[M, 1, kH, kW]` with `M` a multiple of `C`: output channel `m`
//! sees input channel `m / (M / C)`. Results do not depend on the number of threads.

mod gather;
mod strips;
#[cfg(test)]
mod tests;
mod weight;

pub use gather::{forward, input_gradient};
pub use weight::weight_gradient;

use crate::window::Window;

/// Sizes of a depthwise convolution.
#[derive(Clone, Copy, Debug)]
pub struct Depthwise {
    batch: usize,
    channels: usize,
    multiplier: usize,
    window: Window,
}

impl Depthwise {
    /// Returns the sizes, or nothing where a tensor would have too many elements.
    pub fn new(batch: usize, channels: usize, multiplier: usize, window: Window) -> Option<Depthwise> {
        let wide = channels.checked_mul(multiplier)?;
        for plane in [window.input(), window.output(), window.kernel()] {
            let elements = batch.max(1).checked_mul(plane[0])?.checked_mul(plane[1])?.checked_mul(wide)?;
            (elements <= isize::MAX as usize / 8).then_some(())?;
        }
        Some(Depthwise { batch, channels, multiplier, window })
    }

    /// The number of output channels.
    pub fn outputs(&self) -> usize {
        self.channels * self.multiplier
    }

    fn input_pixels(&self) -> usize {
        self.batch * self.window.input()[0] * self.window.input()[1]
    }

    fn output_pixels(&self) -> usize {
        self.batch * self.window.output()[0] * self.window.output()[1]
    }

    fn taps(&self) -> usize {
        self.window.kernel()[0] * self.window.kernel()[1]
    }

    /// Returns the weight as `[kH kW, M]`.
    fn pack(&self, weight: &[f32]) -> Vec<f32> {
        transposed(weight, self.outputs(), self.taps())
    }

    /// Returns x with each channel as often as it has kernels.
    fn widen(&self, x: &[f32]) -> Vec<f32> {
        let mut wide = Vec::with_capacity(x.len() * self.multiplier);
        for value in x {
            wide.extend(std::iter::repeat_n(*value, self.multiplier));
        }
        wide
    }
}

/// Returns the transpose of a matrix `[rows, columns]`.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut all = Vec::with_capacity(values.len());
    for column in 0..columns {
        all.extend((0..rows).map(|row| values[row * columns + column]));
    }
    all
}
