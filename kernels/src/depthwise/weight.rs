//! The gradient of the weight.

use super::strips::{Piece, Strip, of_output, rows_ahead};
use super::{Depthwise, transposed};
use crate::exec::Exec;
use crate::pool::{Shared, split};
use crate::prefetch::Ahead;
use crate::simd::{Simd, Task, dispatch_at};
use crate::window::Tap;
use std::ops::Range;

const PART: usize = 32768;
const PARTS: usize = 32;
/// Up to so many columns of the output, taps are summed one after the other.
const NARROW: usize = 3;

/// Computes the gradient of the weight from that of the convolution.
///
/// # Panics
/// When a slice has the wrong length.
pub fn weight_gradient(exec: Exec<'_>, conv: &Depthwise, x: &[f32], dy: &[f32], dweight: &mut [f32]) {
    let outputs = conv.outputs();
    assert!(x.len() == conv.input_pixels() * conv.channels, "x has the elements of the input");
    assert!(dweight.len() == outputs * conv.taps(), "the weight has a kernel for each output channel");
    assert!(dy.len() == conv.output_pixels() * outputs, "dy has the elements of the output");
    if dweight.is_empty() {
        return;
    }
    let wide = (conv.multiplier > 1).then(|| conv.widen(x));
    let window = &conv.window;
    let columns = of_output(window);
    let strips = columns.iter().any(|piece| matches!(piece, Piece::Strip(_)));
    let scatter = Scatter {
        conv,
        rows: window.taps(0),
        columns,
        by_tap: !strips || window.output()[1] <= NARROW,
        x: wide.as_deref().unwrap_or(x),
        dy,
    };
    let units = if scatter.by_tap { conv.batch } else { conv.batch * window.output()[0] };
    let parts = (dy.len() / PART).clamp(1, PARTS).min(units.max(1));
    let size = dweight.len();
    let mut partial = vec![0.0; parts * size];
    let shared = Shared::of(&mut partial);
    exec.pool.run(parts, &|part| {
        // SAFETY: every part has its own sums.
        let sums = unsafe { shared.part(part * size, size) };
        dispatch_at(exec.level, Part { scatter: &scatter, units: split(units, 1, parts, part), sums });
    });
    let (total, others) = partial.split_at_mut(size);
    for other in others.chunks(size) {
        for (total, other) in total.iter_mut().zip(other) {
            *total += other;
        }
    }
    dweight.copy_from_slice(&transposed(total, conv.taps(), outputs));
}

/// `sums[k, c] = sum of dy * x` over all pixels of the output that meet element k.
struct Scatter<'a> {
    conv: &'a Depthwise,
    rows: Vec<Vec<Tap>>,
    columns: Vec<Piece>,
    by_tap: bool,
    x: &'a [f32],
    dy: &'a [f32],
}

struct Part<'a> {
    scatter: &'a Scatter<'a>,
    /// Images, or rows of them.
    units: Range<usize>,
    sums: &'a mut [f32],
}

impl Task for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Part { scatter, units, sums } = self;
        // SAFETY: the taps lie in x, the sums have a row for each element of the kernel.
        unsafe {
            if scatter.by_tap {
                scatter.by_tap::<S>(units, sums);
            } else {
                for unit in units {
                    scatter.row::<S>(unit, sums);
                }
            }
        }
    }
}

/// Elements of x and dy that are looked at for all elements of the kernel before others are.
const NEAR: usize = 4096;

impl Scatter<'_> {
    /// One element of the kernel after the other, for some channels of some images.
    #[inline(always)]
    unsafe fn by_tap<S: Simd>(&self, images: Range<usize>, sums: &mut [f32]) {
        let (conv, window) = (self.conv, &self.conv.window);
        let channels = conv.outputs();
        let planes = [window.input(), window.output()].map(|[height, width]| height * width);
        let near = (NEAR / ((planes[0] + planes[1]).max(1) * 4 * S::LANES)).max(1);
        for start in images.clone().step_by(near) {
            let images = start..(start + near).min(images.end);
            for k_row in 0..window.kernel()[0] {
                for k_column in 0..window.kernel()[1] {
                    let outputs = [window.outputs_of(0, k_row), window.outputs_of(1, k_column)];
                    if outputs.iter().any(Range::is_empty) {
                        continue;
                    }
                    let tap = TapSums { scatter: self, images: images.clone(), k: [k_row, k_column], outputs };
                    let to = &mut sums[(k_row * window.kernel()[1] + k_column) * channels..][..channels];
                    let mut at = 0;
                    while at + 4 * S::LANES <= channels {
                        tap.add::<S, 4, true>(at, S::LANES, to.as_mut_ptr());
                        at += 4 * S::LANES;
                    }
                    while at < channels {
                        tap.add::<S, 1, false>(at, (channels - at).min(S::LANES), to.as_mut_ptr());
                        at += S::LANES;
                    }
                }
            }
        }
    }

    /// All elements of the kernel for one row of an image.
    #[inline(always)]
    unsafe fn row<S: Simd>(&self, unit: usize, sums: &mut [f32]) {
        let window = &self.conv.window;
        let channels = self.conv.outputs();
        let (image, row) = (unit / window.output()[0], unit % window.output()[0]);
        let [height, width] = window.input();
        let plane = &self.x[image * height * width * channels..];
        let dy = self.dy[unit * window.output()[1] * channels..].as_ptr();
        let sums = sums.as_mut_ptr();
        let ahead = rows_ahead(&self.rows, row, height);
        let ahead = ahead.start * width * channels..ahead.end * width * channels;
        let ahead = Ahead::of(plane, ahead, self.columns.len());
        let meeting = |tap: &Tap| Meeting {
            x: plane[tap.1 * width * channels..].as_ptr(),
            sums: sums.wrapping_add(tap.0 * window.kernel()[1] * channels),
        };
        let meetings: Vec<Meeting> = self.rows[row].iter().map(meeting).collect();
        let row = Row { conv: self.conv, channels, meetings: &meetings, dy };
        for (index, piece) in self.columns.iter().enumerate() {
            ahead.share(index);
            match piece {
                Piece::Single(column, taps) => row.single::<S>(*column, taps, 0),
                Piece::Strip(strip) => match (strip.moves, strip.ks.len()) {
                    (1, 1) => row.strip::<S, 1, 1>(strip),
                    (1, 2) => row.strip::<S, 1, 2>(strip),
                    (1, 3) => row.strip::<S, 1, 3>(strip),
                    (2, 3) => row.strip::<S, 2, 3>(strip),
                    (1, 5) => row.strip::<S, 1, 5>(strip),
                    _ => row.strip::<S, 2, 5>(strip),
                },
            }
        }
    }
}

/// Pixels that meet one element of the kernel.
struct TapSums<'a> {
    scatter: &'a Scatter<'a>,
    images: Range<usize>,
    k: [usize; 2],
    outputs: [Range<usize>; 2],
}

impl TapSums<'_> {
    #[inline(always)]
    unsafe fn add<S: Simd, const G: usize, const FULL: bool>(&self, at: usize, count: usize, to: *mut f32) {
        let load = |from: *const f32| if FULL { S::load(from) } else { S::load_first(from, count) };
        let (conv, window) = (self.scatter.conv, &self.scatter.conv.window);
        let channels = conv.outputs();
        let [[x_height, x_width], [y_height, y_width]] = [window.input(), window.output()];
        let column = self.outputs[1].start;
        let step = window.stride()[1] * channels;
        let mut sums: [S::V; G] = std::array::from_fn(|group| load(to.add(at + group * S::LANES)));
        for image in self.images.clone() {
            for row in self.outputs[0].clone() {
                let met = image * x_height + window.met(0, self.k[0], row);
                let x = (met * x_width + window.met(1, self.k[1], column)) * channels + at;
                let dy = ((image * y_height + row) * y_width + column) * channels + at;
                let (x, dy) = (self.scatter.x[x..].as_ptr(), self.scatter.dy[dy..].as_ptr());
                for pixel in 0..self.outputs[1].len() {
                    for (group, sum) in sums.iter_mut().enumerate() {
                        let dy = load(dy.add(pixel * channels + group * S::LANES));
                        *sum = S::fma(load(x.add(pixel * step + group * S::LANES)), dy, *sum);
                    }
                }
            }
        }
        for (group, sum) in sums.into_iter().enumerate() {
            let to = to.add(at + group * S::LANES);
            if FULL { S::store(to, sum) } else { S::store_first(to, count, sum) }
        }
    }
}

/// A row of x and the row of sums that its products belong to.
#[derive(Clone, Copy)]
struct Meeting {
    x: *const f32,
    sums: *mut f32,
}

struct Row<'a> {
    conv: &'a Depthwise,
    channels: usize,
    meetings: &'a [Meeting],
    /// The row of dy.
    dy: *const f32,
}

impl Row<'_> {
    /// The channels of one pixel from `at` on.
    #[inline(always)]
    unsafe fn single<S: Simd>(&self, column: usize, taps: &[Tap], mut at: usize) {
        while at < self.channels {
            let count = (self.channels - at).min(S::LANES);
            let dy = S::load_first(self.dy.add(column * self.channels + at), count);
            for meeting in self.meetings {
                for (k_column, x_column) in taps {
                    let sum = meeting.sums.add(k_column * self.channels + at);
                    let x = S::load_first(meeting.x.add(x_column * self.channels + at), count);
                    S::store_first(sum, count, S::fma(x, dy, S::load_first(sum, count)));
                }
            }
            at += S::LANES;
        }
    }

    #[inline(always)]
    unsafe fn strip<S: Simd, const MOVES: usize, const J: usize>(&self, strip: &Strip) {
        match strip.count {
            4 => self.strip_of::<S, MOVES, J, 4>(strip),
            2 => self.strip_of::<S, MOVES, J, 2>(strip),
            _ => self.strip_of::<S, MOVES, J, 1>(strip),
        }
    }

    #[inline(always)]
    unsafe fn strip_of<S: Simd, const MOVES: usize, const J: usize, const P: usize>(&self, strip: &Strip) {
        let mut at = 0;
        while at + 2 * S::LANES <= self.channels {
            self.block::<S, MOVES, J, P, 2>(strip, at);
            at += 2 * S::LANES;
        }
        if at + S::LANES <= self.channels {
            self.block::<S, MOVES, J, P, 1>(strip, at);
            at += S::LANES;
        }
        if at < self.channels {
            for pixel in 0..P {
                let taps = strip.taps(pixel, self.conv.window.input()[1]);
                self.single::<S>(strip.first + pixel, &taps, at);
            }
        }
    }

    /// `P` pixels of `G` vectors at a time, so that what windows share is loaded once.
    #[inline(always)]
    unsafe fn block<S: Simd, const MOVES: usize, const J: usize, const P: usize, const G: usize>(
        &self,
        strip: &Strip,
        at: usize,
    ) {
        let channels = self.channels;
        let met = (P - 1) * MOVES + J;
        let (before, after) = (strip.start < 0, strip.ends_in_padding);
        let mut from = self.dy.wrapping_add(strip.first * channels + at);
        let mut dy = [[S::splat(0.0); G]; P];
        for dy in &mut dy {
            for (group, lanes) in dy.iter_mut().enumerate() {
                *lanes = S::load(from.add(group * S::LANES));
            }
            from = from.wrapping_add(channels);
        }
        for meeting in self.meetings {
            let mut x = meeting.x.wrapping_offset(strip.start * channels as isize).wrapping_add(at);
            let mut sums = [[S::splat(0.0); G]; J];
            for column in 0..met {
                let padding = (column == 0 && before) || (column + 1 == met && after);
                if !padding {
                    let seen: [S::V; G] = std::array::from_fn(|group| S::load(x.add(group * S::LANES)));
                    for (pixel, dy) in dy.iter().enumerate() {
                        if column >= pixel * MOVES && column - pixel * MOVES < J {
                            let sums = &mut sums[column - pixel * MOVES];
                            for group in 0..G {
                                sums[group] = S::fma(seen[group], dy[group], sums[group]);
                            }
                        }
                    }
                }
                x = x.wrapping_add(channels);
            }
            let mut to = meeting.sums.wrapping_add(strip.ks[0] * channels + at);
            for sums in sums {
                for (group, sum) in sums.into_iter().enumerate() {
                    let to = to.add(group * S::LANES);
                    S::store(to, S::add(S::load(to), sum));
                }
                to = to.wrapping_add(channels);
            }
        }
    }
}
