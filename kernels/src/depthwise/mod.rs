//! Convolutions where every input channel has its own kernels.
//!
//! Images are `[N, H, W, C]`, weights `[M, 1, kH, kW]` with `M` a multiple of `C`: output channel `m`
//! sees input channel `m / (M / C)`. Results do not depend on the number of threads.

mod gather;
mod rows;
mod strips;
#[cfg(test)]
mod tests;
mod weight;

pub use gather::{forward, input_gradient};
pub use weight::weight_gradient;

use crate::aligned::Aligned;
use crate::input::Input;
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
    fn pack(&self, weight: &[f32]) -> Aligned {
        let mut packed = Aligned::zeros(weight.len());
        transpose(weight, self.outputs(), self.taps(), &mut packed);
        packed
    }

    /// Panics where x has another number of elements, or a value per channel another length.
    fn require_input(&self, x: &Input<'_>) {
        assert!(x.values.len() == self.input_pixels() * self.channels, "x has the elements of the input");
        x.require_channels(self.channels);
    }

    /// Returns x, with what is applied to it, with each channel as often as it has kernels.
    fn widen(&self, x: &Input<'_>) -> Vec<f32> {
        let mut wide = Vec::with_capacity(x.values.len() * self.multiplier);
        for (index, value) in x.values.iter().enumerate() {
            let channel = index % self.channels;
            let value = x.affine.map_or(*value, |(scale, shift)| value.mul_add(scale[channel], shift[channel]));
            wide.extend(std::iter::repeat_n(x.activation.of_one(value), self.multiplier));
        }
        wide
    }
}

/// Writes the transpose of a matrix `[rows, columns]`.
fn transpose(values: &[f32], rows: usize, columns: usize, to: &mut [f32]) {
    for (column, to) in to.chunks_exact_mut(rows.max(1)).enumerate() {
        for (to, value) in to.iter_mut().zip(values[column..].iter().step_by(columns)) {
            *to = *value;
        }
    }
}
