//! The gradient of the weight.

use super::{Depthwise, transposed};
use crate::exec::Exec;
use crate::pool::{Shared, split};
use crate::simd::{Simd, Task, dispatch_at};
use crate::window::{Run, Tap, runs};
use std::ops::Range;

const PART: usize = 32768;
const PARTS: usize = 32;
/// Up to so many columns of the output, taps are summed one after the other.
const NARROW: usize = 6;

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
    let columns = runs(&window.taps(1), 1, window.stride()[1]);
    let fits = columns.iter().all(|run| run.taps.len() <= 3 && run.consecutive) && window.kernel()[0] <= 3;
    let scatter = Scatter {
        conv,
        rows: window.taps(0),
        columns,
        by_tap: !fits || window.output()[1] <= NARROW,
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
    columns: Vec<Run>,
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
        let width = window.input()[1] * channels;
        let plane = &self.x[image * window.input()[0] * width..];
        let dy = &self.dy[unit * window.output()[1] * channels..];
        let mut meetings = Vec::with_capacity(9);
        for run in &self.columns {
            meetings.clear();
            for (k_row, x_row) in &self.rows[row] {
                for (k_column, x_column) in &run.taps {
                    let k = k_row * window.kernel()[1] + k_column;
                    let x = &plane[x_row * width + x_column * channels..];
                    meetings.push((x.as_ptr(), sums[k * channels..].as_mut_ptr()));
                }
            }
            let line = Line { run, channels, meetings: &meetings, dy: dy[run.first * channels..].as_ptr() };
            match (self.rows[row].len(), run.taps.len()) {
                (3, 3) => line.add::<S, 3, 3>(),
                (2, 3) => line.add::<S, 2, 3>(),
                (3, 2) => line.add::<S, 3, 2>(),
                (2, 2) => line.add::<S, 2, 2>(),
                _ => line.each::<S>(),
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

/// A run of one row.
struct Line<'a> {
    run: &'a Run,
    channels: usize,
    /// An element of x and where its products are summed, for each tap.
    meetings: &'a [(*const f32, *mut f32)],
    dy: *const f32,
}

impl Line<'_> {
    #[inline(always)]
    unsafe fn add<S: Simd, const R: usize, const J: usize>(&self) {
        let mut at = 0;
        while at + S::LANES <= self.channels {
            self.add_at::<S, R, J, true>(0, at, S::LANES);
            at += S::LANES;
        }
        if at < self.channels {
            self.add_at::<S, R, J, false>(0, at, self.channels - at);
        }
    }

    /// As `add`, for any number of taps, each alone.
    #[inline(always)]
    unsafe fn each<S: Simd>(&self) {
        for tap in 0..self.meetings.len() {
            let mut at = 0;
            while at < self.channels {
                self.add_at::<S, 1, 1, false>(tap, at, (self.channels - at).min(S::LANES));
                at += S::LANES;
            }
        }
    }

    #[inline(always)]
    unsafe fn add_at<S: Simd, const R: usize, const J: usize, const FULL: bool>(
        &self,
        first: usize,
        at: usize,
        count: usize,
    ) {
        let load = |from: *const f32| if FULL { S::load(from) } else { S::load_first(from, count) };
        let step = self.run.source_step * self.channels;
        let mut sums = [[S::splat(0.0); J]; R];
        let from: [*const f32; R] = std::array::from_fn(|row| self.meetings[first + row * J].0.add(at));
        let mut dy = self.dy.add(at);
        let mut moved = 0;
        for _ in 0..self.run.count {
            let d = load(dy);
            for row in 0..R {
                for column in 0..J {
                    let x = load(from[row].add(moved + column * self.channels));
                    sums[row][column] = S::fma(x, d, sums[row][column]);
                }
            }
            moved += step;
            dy = dy.wrapping_add(self.channels);
        }
        for row in 0..R {
            for column in 0..J {
                let to = self.meetings[first + row * J + column].1.add(at);
                let sum = S::add(load(to), sums[row][column]);
                if FULL { S::store(to, sum) } else { S::store_first(to, count, sum) }
            }
        }
    }
}
