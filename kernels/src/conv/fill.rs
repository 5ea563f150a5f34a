//! The inputs of some output rows, copied with the zeros around them.

use super::axis::Axis;
use crate::input::Input;
use crate::simd::Simd;
use std::ops::Range;

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
            input.apply::<S>(to, at.channel, at.channels, source, column_step * at.pixel);
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
