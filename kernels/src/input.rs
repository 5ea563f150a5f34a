//! Images with a function that is applied to each value as it is read.

use crate::activation::{Activate, Activation, with_activation};
use crate::fold::{Columns, columns, load, store};
use crate::simd::{Simd, Task};

/// An image batch, with what is applied to each value before it is used.
///
/// `activation(values * scale + shift)` per channel; the zeros around an image stay 0.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// `[N, H, W, C]`
    pub values: &'a [f32],
    /// Scale and shift of each channel.
    pub affine: Option<(&'a [f32], &'a [f32])>,
    /// What follows scale and shift.
    pub activation: Activation,
}

impl<'a> From<&'a [f32]> for Input<'a> {
    fn from(values: &'a [f32]) -> Input<'a> {
        Input { values, affine: None, activation: Activation::None }
    }
}

impl Input<'_> {
    /// Whether the values are used as they are.
    pub(crate) fn is_plain(&self) -> bool {
        self.affine.is_none() && self.activation == Activation::None
    }

    /// Panics where a slice of a value per channel has another length.
    pub(crate) fn require_channels(&self, channels: usize) {
        if let Some((scale, shift)) = self.affine {
            assert_eq!([scale.len(), shift.len()], [channels; 2], "elements of a scale and a shift");
        }
    }

    /// Writes some channels of pixels to `to`: those from `channel` on, of pixels that are `pixel` elements apart from
    /// `source` on.
    ///
    /// # Safety
    /// The instruction set is there; the pixels lie inside the values, and `to` has whole pixels.
    #[inline(always)]
    pub(crate) unsafe fn apply<S: Simd>(
        &self,
        to: &mut [f32],
        channel: usize,
        channels: usize,
        source: usize,
        pixel: usize,
    ) {
        let pixels = to.len() / channels.max(1);
        if pixels == 0 {
            return;
        }
        let from = &self.values[source..=source + (pixels - 1) * pixel + channels - 1];
        let affine = self.affine.map(|(scale, shift)| (&scale[channel..], &shift[channel..]));
        with_activation!(self.activation, activation => {
            S::outline(Apply { to, from, affine, channels, pixel, pixels, activation });
        });
    }
}

struct Apply<'a, A> {
    to: &'a mut [f32],
    from: &'a [f32],
    affine: Option<(&'a [f32], &'a [f32])>,
    channels: usize,
    pixel: usize,
    pixels: usize,
    activation: A,
}

impl<A: Activate> Task for Apply<'_, A> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self) {
        // SAFETY: the slices hold the pixels, the parameters one pixel.
        unsafe { columns::<S>(self.channels, &mut self) };
    }
}

impl<A: Activate> Columns for Apply<'_, A> {
    #[inline(always)]
    unsafe fn run<S: Simd, const G: usize, const FULL: bool>(&mut self, at: usize, count: usize) {
        let row_of = |values: &[f32]| -> [S::V; G] {
            std::array::from_fn(|group| load::<S, FULL>(values.as_ptr().add(at + group * S::LANES), count))
        };
        let (scale, shift) = match self.affine {
            Some((scale, shift)) => (row_of(scale), row_of(shift)),
            None => ([S::splat(1.0); G], [S::splat(0.0); G]),
        };
        let mut from = self.from.as_ptr().wrapping_add(at);
        let mut to = self.to.as_mut_ptr().wrapping_add(at);
        for _ in 0..self.pixels {
            for group in 0..G {
                let value = load::<S, FULL>(from.wrapping_add(group * S::LANES), count);
                let value = self.activation.of::<S>(S::fma(value, scale[group], shift[group]));
                store::<S, FULL>(to.wrapping_add(group * S::LANES), count, value);
            }
            from = from.wrapping_add(self.pixel);
            to = to.wrapping_add(self.channels);
        }
    }
}
