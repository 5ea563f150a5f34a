//! Pooling over windows and over whole images, channels-last, and its gradients.

use crate::exec::Exec;
use crate::pool::{Shared, split};
use crate::simd::{Simd, Task, dispatch_at};
use crate::window::{Tap, Window};
use std::ops::Range;

/// Sizes of a pooling: images `[batch, H, W, channels]`.
#[derive(Clone, Copy, Debug)]
pub struct Pooling {
    batch: usize,
    channels: usize,
    window: Window,
}

impl Pooling {
    /// Returns the sizes, or nothing where a tensor would have too many elements.
    pub fn new(batch: usize, channels: usize, window: Window) -> Option<Pooling> {
        for [height, width] in [window.input(), window.output()] {
            let elements = batch.max(1).checked_mul(height)?.checked_mul(width)?.checked_mul(channels)?;
            (elements <= isize::MAX as usize / 8).then_some(())?;
        }
        Some(Pooling { batch, channels, window })
    }

    fn inputs(&self) -> usize {
        self.batch * self.window.input()[0] * self.window.input()[1] * self.channels
    }

    fn outputs(&self) -> usize {
        self.batch * self.window.output()[0] * self.window.output()[1] * self.channels
    }

    /// Returns, for each output of both axes, how many elements of the input its window has.
    pub fn counts(&self) -> [Vec<usize>; 2] {
        [0, 1].map(|axis| self.window.taps(axis).iter().map(Vec::len).collect())
    }
}

/// Computes the maximum of each window; padding never wins.
///
/// # Panics
/// When a slice has the wrong length.
pub fn max(exec: Exec<'_>, pooling: &Pooling, x: &[f32], y: &mut [f32]) {
    assert!(x.len() == pooling.inputs() && y.len() == pooling.outputs(), "x and y have the sizes of the pooling");
    let window = &pooling.window;
    let gather = Gather {
        taps: [window.taps(0), window.taps(1)],
        source: window.input(),
        target: window.output(),
        channels: pooling.channels,
        source_factors: None,
        target_factors: None,
        greatest: true,
    };
    gather.run(exec, x, y);
}

/// Computes the mean of each window, which is divided by the product of its counts along both axes.
///
/// # Panics
/// When a slice has the wrong length.
pub fn average(exec: Exec<'_>, pooling: &Pooling, counts: [&[usize]; 2], x: &[f32], y: &mut [f32]) {
    assert!(x.len() == pooling.inputs() && y.len() == pooling.outputs(), "x and y have the sizes of the pooling");
    let window = &pooling.window;
    let gather = Gather {
        taps: [window.taps(0), window.taps(1)],
        source: window.input(),
        target: window.output(),
        channels: pooling.channels,
        source_factors: None,
        target_factors: Some(factors(pooling, counts)),
        greatest: false,
    };
    gather.run(exec, x, y);
}

/// Computes the gradient of the input of [`average`].
///
/// # Panics
/// When a slice has the wrong length.
pub fn average_gradient(exec: Exec<'_>, pooling: &Pooling, counts: [&[usize]; 2], dy: &[f32], dx: &mut [f32]) {
    assert!(dx.len() == pooling.inputs() && dy.len() == pooling.outputs(), "dx and dy have the sizes of the pooling");
    let window = &pooling.window;
    let gather = Gather {
        taps: [window.outputs(0), window.outputs(1)],
        source: window.output(),
        target: window.input(),
        channels: pooling.channels,
        source_factors: Some(factors(pooling, counts)),
        target_factors: None,
        greatest: false,
    };
    gather.run(exec, dy, dx);
}

fn factors(pooling: &Pooling, counts: [&[usize]; 2]) -> [Vec<f32>; 2] {
    let expected = pooling.window.output();
    assert!(counts.map(<[usize]>::len) == expected, "counts for {expected:?} outputs");
    counts.map(|counts| counts.iter().map(|count| 1.0 / (*count).max(1) as f32).collect())
}

/// Sums or maxima of the elements that each element of the target meets.
struct Gather {
    taps: [Vec<Vec<Tap>>; 2],
    source: [usize; 2],
    target: [usize; 2],
    channels: usize,
    /// What elements of the source are multiplied by, per row and per column.
    source_factors: Option<[Vec<f32>; 2]>,
    /// What elements of the target are multiplied by, per row and per column.
    target_factors: Option<[Vec<f32>; 2]>,
    greatest: bool,
}

const PART: usize = 16384;
const PARTS: usize = 256;

impl Gather {
    fn run(&self, exec: Exec<'_>, source: &[f32], target: &mut [f32]) {
        let row = self.target[1] * self.channels;
        if target.is_empty() {
            return;
        }
        let rows = target.len() / row;
        let parts = (target.len() / PART).clamp(1, PARTS).min(rows);
        let target = Shared::of(target);
        exec.pool.run(parts, &|part| {
            let range = split(rows, 1, parts, part);
            // SAFETY: every part has its own rows.
            let target = unsafe { target.part(range.start * row, range.len() * row) };
            dispatch_at(exec.level, GatherRows { gather: self, source, target, first: range.start });
        });
    }
}

struct GatherRows<'a> {
    gather: &'a Gather,
    source: &'a [f32],
    target: &'a mut [f32],
    first: usize,
}

impl Task for GatherRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let GatherRows { gather, source, target, first } = self;
        let (channels, [height, width]) = (gather.channels, gather.source);
        let mut met = Vec::new();
        for (index, target) in target.chunks_exact_mut(gather.target[1] * channels).enumerate() {
            let (image, row) = ((first + index) / gather.target[0], (first + index) % gather.target[0]);
            let plane = &source[image * height * width * channels..];
            for (column, target) in target.chunks_exact_mut(channels).enumerate() {
                met.clear();
                for (_, source_row) in &gather.taps[0][row] {
                    for (_, source_column) in &gather.taps[1][column] {
                        let at = &plane[(source_row * width + source_column) * channels..][..channels];
                        let factor = |of: &[Vec<f32>; 2]| of[0][*source_row] * of[1][*source_column];
                        met.push((at.as_ptr(), gather.source_factors.as_ref().map_or(1.0, factor)));
                    }
                }
                let factor = gather.target_factors.as_ref().map_or(1.0, |of| of[0][row] * of[1][column]);
                // SAFETY: all elements that are met have `channels` channels.
                unsafe { if gather.greatest { maxima::<S>(&met, target) } else { sums::<S>(&met, factor, target) } }
            }
        }
    }
}

#[inline(always)]
unsafe fn maxima<S: Simd>(met: &[(*const f32, f32)], target: &mut [f32]) {
    let (channels, to) = (target.len(), target.as_mut_ptr());
    let mut at = 0;
    while at + 4 * S::LANES <= channels {
        let mut best = [S::splat(f32::NEG_INFINITY); 4];
        for (from, _) in met {
            for (group, best) in best.iter_mut().enumerate() {
                *best = S::max(*best, S::load(from.add(at + group * S::LANES)));
            }
        }
        for (group, best) in best.into_iter().enumerate() {
            S::store(to.add(at + group * S::LANES), best);
        }
        at += 4 * S::LANES;
    }
    while at < channels {
        let count = (channels - at).min(S::LANES);
        let mut best = S::splat(f32::NEG_INFINITY);
        for (from, _) in met {
            best = S::max(best, S::load_first(from.add(at), count));
        }
        S::store_first(to.add(at), count, best);
        at += S::LANES;
    }
}

#[inline(always)]
unsafe fn sums<S: Simd>(met: &[(*const f32, f32)], factor: f32, target: &mut [f32]) {
    let (channels, to) = (target.len(), target.as_mut_ptr());
    for at in (0..channels).step_by(S::LANES) {
        let count = (channels - at).min(S::LANES);
        let mut sum = S::splat(0.0);
        for (from, factor) in met {
            sum = S::fma(S::load_first(from.add(at), count), S::splat(*factor), sum);
        }
        S::store_first(to.add(at), count, S::mul(sum, S::splat(factor)));
    }
}

/// Computes the gradient of the input of [`max`]: the first maximum of a window takes all.
///
/// # Panics
/// When a slice has the wrong length.
pub fn max_gradient(exec: Exec<'_>, pooling: &Pooling, x: &[f32], y: &[f32], dy: &[f32], dx: &mut [f32]) {
    let (inputs, outputs) = (pooling.inputs(), pooling.outputs());
    assert!([x.len(), dx.len()] == [inputs; 2], "x and dx have the sizes of the input");
    assert!([y.len(), dy.len()] == [outputs; 2], "y and dy have the sizes of the output");
    if dx.is_empty() {
        return;
    }
    let chunks = if pooling.batch >= PARTS { 1 } else { pooling.channels.div_ceil(CHUNK) };
    let window = &pooling.window;
    let scatter = Scatter {
        pooling,
        taps: [window.taps(0), window.taps(1)],
        disjoint: (0..2).all(|axis| window.dilation()[axis] == 1 && window.stride()[axis] >= window.kernel()[axis]),
        x,
        y,
        dy,
        dx: Shared::of(dx),
    };
    exec.pool.run(pooling.batch * chunks, &|unit| {
        let channels = split(pooling.channels, CHUNK, chunks, unit % chunks);
        dispatch_at(exec.level, ScatterImage { scatter: &scatter, image: unit / chunks, channels });
    });
}

/// Channels of an image that are a task of their own where there are few images.
const CHUNK: usize = 64;

struct Scatter<'a> {
    pooling: &'a Pooling,
    taps: [Vec<Vec<Tap>>; 2],
    /// Whether no element lies in two windows.
    disjoint: bool,
    x: &'a [f32],
    y: &'a [f32],
    dy: &'a [f32],
    dx: Shared<f32>,
}

struct ScatterImage<'a> {
    scatter: &'a Scatter<'a>,
    image: usize,
    channels: Range<usize>,
}

impl Task for ScatterImage<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let ScatterImage { scatter, image, channels: chunk } = self;
        let (channels, window) = (scatter.pooling.channels, &scatter.pooling.window);
        let ([height, width], [out_height, out_width]) = (window.input(), window.output());
        let plane = image * height * width * channels;
        let (x, dx) = (scatter.x[plane..].as_ptr(), scatter.dx.pointer().wrapping_add(plane));
        let mut met = Vec::new();
        // Rows of dx below this one hold gradients or zeros.
        let mut cleared = 0;
        let clear = |rows: Range<usize>| {
            for pixel in rows.start * width..rows.end * width {
                // SAFETY: every task has its own image and channels.
                unsafe { std::slice::from_raw_parts_mut(dx.add(pixel * channels + chunk.start), chunk.len()) }
                    .fill(0.0);
            }
        };
        for row in 0..out_height {
            let end = scatter.taps[0][row].last().map_or(cleared, |tap| (tap.1 + 1).max(cleared));
            clear(cleared..end);
            cleared = end;
            for column in 0..out_width {
                met.clear();
                for (_, x_row) in &scatter.taps[0][row] {
                    met.extend(scatter.taps[1][column].iter().map(|tap| (x_row * width + tap.1) * channels));
                }
                let from = ((image * out_height + row) * out_width + column) * channels;
                let (y, dy) = (scatter.y[from..].as_ptr(), scatter.dy[from..].as_ptr());
                let one = Winner { x, y, dy, dx, met: &met, add: !scatter.disjoint };
                let mut at = chunk.start;
                // SAFETY: what is met lies in the image; every task has its own image and channels.
                unsafe {
                    while at + 2 * S::LANES <= chunk.end {
                        one.take::<S, 2, true>(at, S::LANES);
                        at += 2 * S::LANES;
                    }
                    while at < chunk.end {
                        one.take::<S, 1, false>(at, (chunk.end - at).min(S::LANES));
                        at += S::LANES;
                    }
                }
            }
        }
        clear(cleared..height);
    }
}

/// A window.
struct Winner<'a> {
    x: *const f32,
    y: *const f32,
    dy: *const f32,
    dx: *mut f32,
    met: &'a [usize],
    add: bool,
}

impl Winner<'_> {
    #[inline(always)]
    unsafe fn take<S: Simd, const G: usize, const FULL: bool>(&self, at: usize, count: usize) {
        let load = |from: *const f32| if FULL { S::load(from) } else { S::load_first(from, count) };
        let one = S::splat(1.0);
        let y: [S::V; G] = std::array::from_fn(|group| load(self.y.add(at + group * S::LANES)));
        let mut left: [S::V; G] = std::array::from_fn(|group| load(self.dy.add(at + group * S::LANES)));
        for met in self.met {
            for group in 0..G {
                let at = met + at + group * S::LANES;
                let below = S::where_positive(S::sub(y[group], load(self.x.add(at))), one);
                let taken = S::where_positive(S::sub(one, below), left[group]);
                left[group] = S::where_positive(below, left[group]);
                let to = self.dx.add(at);
                let value = if self.add { S::add(load(to), taken) } else { taken };
                if FULL { S::store(to, value) } else { S::store_first(to, count, value) }
            }
        }
    }
}

/// Computes the mean of each image `[pixels, channels]`.
///
/// # Panics
/// When a slice has the wrong length.
pub fn global_average(exec: Exec<'_>, batch: usize, pixels: usize, channels: usize, x: &[f32], y: &mut [f32]) {
    let image = pixels.checked_mul(channels).filter(|image| image.checked_mul(batch) == Some(x.len()));
    assert!(image.is_some() && y.len() == batch * channels, "x and y have {batch} images");
    let y = Shared::of(y);
    exec.pool.run(batch, &|index| {
        // SAFETY: every image has its own means.
        let y = unsafe { y.part(index * channels, channels) };
        let x = &x[index * pixels * channels..][..pixels * channels];
        dispatch_at(exec.level, ImageMean { pixels, x, y });
    });
}

struct ImageMean<'a> {
    pixels: usize,
    x: &'a [f32],
    y: &'a mut [f32],
}

/// Pixels whose sum is added to that of the others.
const BLOCK: usize = 32;

impl Task for ImageMean<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let ImageMean { pixels, x, y } = self;
        let channels = y.len();
        for at in (0..channels).step_by(S::LANES) {
            let count = (channels - at).min(S::LANES);
            // SAFETY: x has `pixels` rows of the channels.
            unsafe {
                let mut total = S::splat(0.0);
                for block in (0..pixels).step_by(BLOCK) {
                    let mut sum = S::splat(0.0);
                    for pixel in block..(block + BLOCK).min(pixels) {
                        sum = S::add(sum, S::load_first(x.as_ptr().add(pixel * channels + at), count));
                    }
                    total = S::add(total, sum);
                }
                let mean = S::mul(total, S::splat(1.0 / pixels as f32));
                S::store_first(y.as_mut_ptr().add(at), count, mean);
            }
        }
    }
}

/// Computes the gradient of the input of [`global_average`].
///
/// # Panics
/// When a slice has the wrong length.
pub fn global_average_gradient(
    exec: Exec<'_>,
    batch: usize,
    pixels: usize,
    channels: usize,
    dy: &[f32],
    dx: &mut [f32],
) {
    let image = pixels.checked_mul(channels).filter(|image| image.checked_mul(batch) == Some(dx.len()));
    assert!(image.is_some() && dy.len() == batch * channels, "dx and dy have {batch} images");
    let factor = 1.0 / pixels as f32;
    let dx = Shared::of(dx);
    exec.pool.run(batch, &|index| {
        // SAFETY: every image is its own part.
        let dx = unsafe { dx.part(index * pixels * channels, pixels * channels) };
        let Some((first, others)) = dx.split_at_mut_checked(channels) else { return };
        for (dx, dy) in first.iter_mut().zip(&dy[index * channels..]) {
            *dx = dy * factor;
        }
        for other in others.chunks_exact_mut(channels.max(1)) {
            other.copy_from_slice(first);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{Serial, Threads};
    use crate::simd::Level;
    use crate::testing::{Random, close};

    struct Case {
        input: [usize; 2],
        output: [usize; 2],
        kernel: [usize; 2],
        stride: [usize; 2],
        dilation: [usize; 2],
        begin: [usize; 2],
    }

    fn cases() -> Vec<Case> {
        let case =
            |input, output, kernel, stride, dilation, begin| Case { input, output, kernel, stride, dilation, begin };
        vec![
            case([8, 8], [4, 4], [2, 2], [2, 2], [1, 1], [0, 0]),
            case([9, 7], [5, 4], [3, 3], [2, 2], [1, 1], [1, 1]),
            case([6, 5], [6, 5], [3, 3], [1, 1], [1, 1], [1, 1]),
            case([7, 9], [3, 4], [2, 2], [2, 2], [1, 1], [0, 0]),
            case([5, 9], [2, 3], [1, 2], [3, 3], [1, 1], [0, 0]),
            case([7, 7], [4, 4], [3, 3], [2, 2], [1, 1], [0, 0]),
            case([6, 7], [3, 5], [2, 3], [1, 1], [3, 1], [0, 0]),
        ]
    }

    fn exec_of(level: Level) -> [Exec<'static>; 2] {
        [Exec { pool: &Serial, level }, Exec { pool: &Threads(3), level }]
    }

    #[test]
    fn windows_agree_with_plain_loops() {
        for (number, case) in cases().iter().enumerate() {
            let Case { input, output, kernel, stride, dilation, begin } = *case;
            let window = Window::new(input, output, kernel, stride, dilation, begin).unwrap();
            for (batch, channels) in [(2, 5), (3, 70)] {
                let pooling = Pooling::new(batch, channels, window).unwrap();
                let mut random = Random::new(number as u64 + channels as u64);
                // Few values, so that there are ties.
                let x: Vec<f32> = random.floats(pooling.inputs()).iter().map(|x| (x * 4.0).round()).collect();
                let dy = random.floats(pooling.outputs());
                let counts = pooling.counts();
                let counts = [counts[0].as_slice(), counts[1].as_slice()];
                let (mut y, mut mean) = (vec![0.0_f64; dy.len()], vec![0.0_f64; dy.len()]);
                let (mut dx, mut spread) = (vec![0.0_f64; x.len()], vec![0.0_f64; x.len()]);
                for at_y in 0..dy.len() {
                    let (pixel, channel) = (at_y / channels, at_y % channels);
                    let (image, row) = (pixel / output[1] / output[0], pixel / output[1] % output[0]);
                    let column = pixel % output[1];
                    let mut met = Vec::new();
                    for k_row in 0..kernel[0] {
                        for k_column in 0..kernel[1] {
                            let x_row = (row * stride[0] + k_row * dilation[0]).wrapping_sub(begin[0]);
                            let x_column = (column * stride[1] + k_column * dilation[1]).wrapping_sub(begin[1]);
                            if x_row < input[0] && x_column < input[1] {
                                met.push(((image * input[0] + x_row) * input[1] + x_column) * channels + channel);
                            }
                        }
                    }
                    let greatest = met.iter().map(|at| x[*at]).fold(f32::NEG_INFINITY, f32::max);
                    y[at_y] = f64::from(greatest);
                    let first = met.iter().find(|at| x[**at] == greatest).unwrap();
                    dx[*first] += f64::from(dy[at_y]);
                    for at in &met {
                        mean[at_y] += f64::from(x[*at]) / met.len() as f64;
                        spread[*at] += f64::from(dy[at_y]) / met.len() as f64;
                    }
                }
                for level in Level::available().iter().copied() {
                    for exec in exec_of(level) {
                        let (mut found, mut found_mean) = (vec![9.0; dy.len()], vec![9.0; dy.len()]);
                        let (mut found_dx, mut found_spread) = (vec![9.0; x.len()], vec![9.0; x.len()]);
                        max(exec, &pooling, &x, &mut found);
                        max_gradient(exec, &pooling, &x, &found, &dy, &mut found_dx);
                        average(exec, &pooling, counts, &x, &mut found_mean);
                        average_gradient(exec, &pooling, counts, &dy, &mut found_spread);
                        close(&format!("case {number}: max"), &found, &y, 0.0);
                        close(&format!("case {number}: gradient of max"), &found_dx, &dx, 1e-6);
                        close(&format!("case {number}: mean"), &found_mean, &mean, 2e-6);
                        close(&format!("case {number}: gradient of mean"), &found_spread, &spread, 1e-6);
                    }
                }
            }
        }
    }

    #[test]
    fn means_of_images_agree_with_plain_loops() {
        for (batch, pixels, channels) in [(3, 49, 70), (1, 100, 3), (2, 1, 16)] {
            let mut random = Random::new(pixels as u64);
            let (x, dy) = (random.floats(batch * pixels * channels), random.floats(batch * channels));
            let mut y = vec![0.0; dy.len()];
            let mut dx = vec![0.0; x.len()];
            for at in 0..x.len() {
                let mean = at / channels / pixels * channels + at % channels;
                y[mean] += f64::from(x[at]) / pixels as f64;
                dx[at] = f64::from(dy[mean]) / pixels as f64;
            }
            for level in Level::available().iter().copied() {
                for exec in exec_of(level) {
                    let (mut found, mut found_dx) = (vec![9.0; dy.len()], vec![9.0; x.len()]);
                    global_average(exec, batch, pixels, channels, &x, &mut found);
                    global_average_gradient(exec, batch, pixels, channels, &dy, &mut found_dx);
                    close("mean", &found, &y, 1e-6);
                    close("gradient", &found_dx, &dx, 1e-6);
                }
            }
        }
    }
}
