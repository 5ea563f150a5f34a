//! The inputs of some output rows, copied with the zeros around them.

use super::axis::Axis;
use crate::simd::Simd;
use std::ops::Range;

/// An image batch, with what is applied to each value before it is used.
///
/// `relu(values * scale + shift)` per channel; the zeros around an image stay 0.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// `[N, H, W, C]`
    pub values: &'a [f32],
    /// Scale and shift of each channel.
    pub affine: Option<(&'a [f32], &'a [f32])>,
    /// Whether negative values become 0, after scale and shift.
    pub relu: bool,
}

impl<'a> From<&'a [f32]> for Input<'a> {
    fn from(values: &'a [f32]) -> Input<'a> {
        Input { values, affine: None, relu: false }
    }
}

impl Input<'_> {
    /// Whether the values are used as they are.
    pub(super) fn is_plain(&self) -> bool {
        self.affine.is_none() && !self.relu
    }
}

/// Where the pixels of an image lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pixels {
    /// Element of the first channel of the first pixel.
    pub(super) start: usize,
    /// Elements from an image to the next.
    pub(super) image: usize,
    /// Elements from a row to the next.
    pub(super) row: usize,
    /// Elements from a pixel to the next.
    pub(super) pixel: usize,
    /// Channels, from the first one on.
    pub(super) channels: usize,
    /// The first channel's number.
    pub(super) channel: usize,
}

/// Copies what the output `rows` of one image read to `to`: `[rows, columns, channels]` of the spans.
///
/// # Safety
/// The instruction set is there; the pixels lie inside the input, and `to` has room.
#[inline(always)]
pub(super) unsafe fn fill<S: Simd>(
    to: &mut [f32],
    input: &Input<'_>,
    at: &Pixels,
    image: usize,
    axes: [&Axis; 2],
    rows: Range<usize>,
) {
    let [h, w] = axes;
    let (count, step) = h.span(rows.len());
    let (columns, column_step) = w.span(w.output);
    let width = columns * at.channels;
    let first = (rows.start * h.stride) as isize + h.origin;
    // The columns inside the image: `origin + column * column_step` in `0..input`.
    let inside = |bound: isize| {
        let ahead = (bound - w.origin).max(0) as usize;
        ahead.div_ceil(column_step).min(columns)
    };
    let (from, until) = (inside(0), inside(w.input as isize));
    for (row, to) in to.chunks_exact_mut(width.max(1)).take(count).enumerate() {
        let source = first + (row * step) as isize;
        if source < 0 || source >= h.input as isize || from >= until {
            to.fill(0.0);
            continue;
        }
        let column = (w.origin + (from * column_step) as isize) as usize;
        let source = at.start + image * at.image + source as usize * at.row + column * at.pixel;
        to[..from * at.channels].fill(0.0);
        to[until * at.channels..].fill(0.0);
        let to = &mut to[from * at.channels..until * at.channels];
        if !input.is_plain() {
            apply::<S>(to, input, source, column_step * at.pixel, at);
        } else if at.pixel == at.channels && column_step == 1 {
            to.copy_from_slice(&input.values[source..source + to.len()]);
        } else {
            for (pixel, to) in to.chunks_exact_mut(at.channels).enumerate() {
                let source = source + pixel * column_step * at.pixel;
                to.copy_from_slice(&input.values[source..source + at.channels]);
            }
        }
    }
}

/// Copies pixels, with scale, shift and relu.
#[inline(always)]
unsafe fn apply<S: Simd>(to: &mut [f32], input: &Input<'_>, source: usize, pixel: usize, at: &Pixels) {
    let zero = S::splat(0.0);
    for start in (0..at.channels).step_by(S::LANES) {
        let count = (at.channels - start).min(S::LANES);
        let (scale, shift) = match input.affine {
            Some((scale, shift)) => (
                S::load_first(scale[at.channel + start..].as_ptr(), count),
                S::load_first(shift[at.channel + start..].as_ptr(), count),
            ),
            None => (S::splat(1.0), zero),
        };
        for (index, to) in to.chunks_exact_mut(at.channels).enumerate() {
            let value = S::load_first(input.values[source + index * pixel + start..].as_ptr(), count);
            let value = S::fma(value, scale, shift);
            let value = if input.relu { S::max(zero, value) } else { value };
            S::store_first(to[start..].as_mut_ptr(), count, value);
        }
    }
}
