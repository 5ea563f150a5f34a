//! Forward and the gradient of the input: sums over what each element of the result meets.

use super::Depthwise;
use crate::activation::Activation;
use crate::exec::Exec;
use crate::pool::{Shared, split};
use crate::simd::{Simd, Task, dispatch_at};
use crate::window::{Run, Tap, runs};

const PART: usize = 16384;
const PARTS: usize = 256;

/// Computes `y = activation(conv(x, weight) + bias)`.
///
/// # Panics
/// When a slice has the wrong length.
pub fn forward(
    exec: Exec<'_>,
    conv: &Depthwise,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    activation: Activation,
    y: &mut [f32],
) {
    let outputs = conv.outputs();
    assert!(x.len() == conv.input_pixels() * conv.channels, "x has the elements of the input");
    assert!(weight.len() == outputs * conv.taps(), "the weight has a kernel for each output channel");
    assert!(y.len() == conv.output_pixels() * outputs, "y has the elements of the output");
    assert!(bias.is_none_or(|bias| bias.len() == outputs), "the bias has a value for each output channel");
    let wide = (conv.multiplier > 1).then(|| conv.widen(x));
    let window = &conv.window;
    let gather = Gather {
        rows: window.taps(0),
        columns: runs(&window.taps(1), 1, window.stride()[1]),
        source: window.input(),
        target: window.output(),
        kernel_width: window.kernel()[1],
        channels: outputs,
        weight: conv.pack(weight),
        bias: bias.map_or_else(|| vec![0.0; outputs], <[f32]>::to_vec),
        limits: match activation {
            Activation::None => None,
            Activation::Relu => Some((0.0, f32::INFINITY)),
            Activation::Clip { min, max } => Some((min, max)),
        },
    };
    gather.run(exec, wide.as_deref().unwrap_or(x), y);
}

/// Computes the gradient of x from that of the convolution.
///
/// # Panics
/// When a slice has the wrong length.
pub fn input_gradient(exec: Exec<'_>, conv: &Depthwise, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
    let outputs = conv.outputs();
    assert!(dx.len() == conv.input_pixels() * conv.channels, "dx has the elements of the input");
    assert!(weight.len() == outputs * conv.taps(), "the weight has a kernel for each output channel");
    assert!(dy.len() == conv.output_pixels() * outputs, "dy has the elements of the output");
    let window = &conv.window;
    let gather = Gather {
        rows: window.outputs(0),
        columns: runs(&window.outputs(1), window.stride()[1], 1),
        source: window.output(),
        target: window.input(),
        kernel_width: window.kernel()[1],
        channels: outputs,
        weight: conv.pack(weight),
        bias: vec![0.0; outputs],
        limits: None,
    };
    if conv.multiplier == 1 {
        return gather.run(exec, dy, dx);
    }
    let mut wide = vec![0.0; dx.len() * conv.multiplier];
    gather.run(exec, dy, &mut wide);
    if conv.multiplier == 0 {
        return dx.fill(0.0);
    }
    for (dx, wide) in dx.iter_mut().zip(wide.chunks(conv.multiplier)) {
        *dx = wide.iter().sum();
    }
}

/// `target[h, w] = bias + sum of weight * source` over the taps of row h and column w.
struct Gather {
    rows: Vec<Vec<Tap>>,
    columns: Vec<Run>,
    source: [usize; 2],
    target: [usize; 2],
    kernel_width: usize,
    channels: usize,
    weight: Vec<f32>,
    bias: Vec<f32>,
    limits: Option<(f32, f32)>,
}

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
            dispatch_at(exec.level, Rows { gather: self, source, target, first: range.start });
        });
    }
}

struct Rows<'a> {
    gather: &'a Gather,
    source: &'a [f32],
    target: &'a mut [f32],
    first: usize,
}

/// What a sum meets: an element of the source and a row of the weight.
#[derive(Clone, Copy)]
struct Meeting {
    source: *const f32,
    weight: *const f32,
}

impl Task for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Rows { gather, source, target, first } = self;
        let row_of_target = gather.target[1] * gather.channels;
        let row_of_source = gather.source[1] * gather.channels;
        let mut meetings = Vec::new();
        for (index, target) in target.chunks_exact_mut(row_of_target).enumerate() {
            let (image, row) = ((first + index) / gather.target[0], (first + index) % gather.target[0]);
            let plane = &source[image * gather.source[0] * row_of_source..];
            for run in &gather.columns {
                meetings.clear();
                for (k_row, source_row) in &gather.rows[row] {
                    for (k_column, source_column) in &run.taps {
                        let weight = (k_row * gather.kernel_width + k_column) * gather.channels;
                        let source = source_row * row_of_source + source_column * gather.channels;
                        let (source, weight) = (&plane[source..], &gather.weight[weight..]);
                        meetings.push(Meeting { source: source.as_ptr(), weight: weight.as_ptr() });
                    }
                }
                let line = Line { gather, run, meetings: &meetings, target: target.as_mut_ptr() };
                // SAFETY: the taps lie in the source, the run in the row of the target.
                unsafe { line.work::<S>(gather.rows[row].len()) };
            }
        }
    }
}

/// A run of one row.
struct Line<'a> {
    gather: &'a Gather,
    run: &'a Run,
    meetings: &'a [Meeting],
    target: *mut f32,
}

impl Line<'_> {
    #[inline(always)]
    unsafe fn work<S: Simd>(&self, rows: usize) {
        let shape = if self.run.consecutive && self.run.count > 2 { (rows, self.run.taps.len()) } else { (0, 0) };
        match (shape, self.run.source_step == 1) {
            ((3, 3), true) => self.held::<S, 3, 3, true>(),
            ((2, 3), true) => self.held::<S, 2, 3, true>(),
            ((3, 2), true) => self.held::<S, 3, 2, true>(),
            ((2, 2), true) => self.held::<S, 2, 2, true>(),
            ((1, 2), true) => self.held::<S, 1, 2, true>(),
            ((2, 1), true) => self.held::<S, 2, 1, true>(),
            ((1, 1), true) => self.held::<S, 1, 1, true>(),
            ((3, 3), false) => self.held::<S, 3, 3, false>(),
            ((2, 3), false) => self.held::<S, 2, 3, false>(),
            _ => self.any::<S>(),
        }
    }

    #[inline(always)]
    unsafe fn limited<S: Simd>(&self, value: S::V) -> S::V {
        match self.gather.limits {
            Some((min, max)) => S::min(S::splat(max), S::max(S::splat(min), value)),
            None => value,
        }
    }

    /// Any taps: some channels of one pixel after the other.
    #[inline(always)]
    unsafe fn any<S: Simd>(&self) {
        let channels = self.gather.channels;
        for index in 0..self.run.count {
            let target = self.target.add((self.run.first + index * self.run.step) * channels);
            let moved = index * self.run.source_step * channels;
            let mut at = 0;
            while at + 4 * S::LANES <= channels {
                let mut sums = [S::splat(0.0); 4];
                for (group, sum) in sums.iter_mut().enumerate() {
                    *sum = S::load(self.gather.bias.as_ptr().add(at + group * S::LANES));
                }
                for meeting in self.meetings {
                    let (source, weight) = (meeting.source.add(moved + at), meeting.weight.add(at));
                    for (group, sum) in sums.iter_mut().enumerate() {
                        let lanes = group * S::LANES;
                        *sum = S::fma(S::load(source.add(lanes)), S::load(weight.add(lanes)), *sum);
                    }
                }
                for (group, sum) in sums.into_iter().enumerate() {
                    S::store(target.add(at + group * S::LANES), self.limited::<S>(sum));
                }
                at += 4 * S::LANES;
            }
            while at < channels {
                let count = (channels - at).min(S::LANES);
                let mut sum = S::load_first(self.gather.bias.as_ptr().add(at), count);
                for meeting in self.meetings {
                    let source = S::load_first(meeting.source.add(moved + at), count);
                    sum = S::fma(source, S::load_first(meeting.weight.add(at), count), sum);
                }
                S::store_first(target.add(at), count, self.limited::<S>(sum));
                at += S::LANES;
            }
        }
    }

    /// `R` rows of `J` neighbours: their weights stay in registers for all pixels of the run.
    #[inline(always)]
    unsafe fn held<S: Simd, const R: usize, const J: usize, const NEXT: bool>(&self) {
        let channels = self.gather.channels;
        let mut at = 0;
        while at + S::LANES <= channels {
            self.held_at::<S, R, J, NEXT, true>(at, S::LANES);
            at += S::LANES;
        }
        if at < channels {
            self.held_at::<S, R, J, NEXT, false>(at, channels - at);
        }
    }

    #[inline(always)]
    unsafe fn held_at<S: Simd, const R: usize, const J: usize, const NEXT: bool, const FULL: bool>(
        &self,
        at: usize,
        count: usize,
    ) {
        let channels = self.gather.channels;
        let load = |from: *const f32| if FULL { S::load(from) } else { S::load_first(from, count) };
        let store = |to: *mut f32, v: S::V| if FULL { S::store(to, v) } else { S::store_first(to, count, v) };
        let weight: [[S::V; J]; R] = std::array::from_fn(|row| {
            std::array::from_fn(|column| load(self.meetings[row * J + column].weight.add(at)))
        });
        let mut source: [*const f32; R] = std::array::from_fn(|row| self.meetings[row * J].source.add(at));
        let bias = load(self.gather.bias.as_ptr().add(at));
        let step = self.run.source_step * channels;
        let mut target = self.target.add(self.run.first * channels + at);
        let mut left = self.run.count;
        while left >= 4 {
            let mut sums = [bias; 4];
            for row in 0..R {
                if NEXT {
                    let mut seen = [S::splat(0.0); 6];
                    for (column, seen) in seen.iter_mut().enumerate().take(J + 3) {
                        *seen = load(source[row].add(column * channels));
                    }
                    for (pixel, sum) in sums.iter_mut().enumerate() {
                        for column in 0..J {
                            *sum = S::fma(seen[pixel + column], weight[row][column], *sum);
                        }
                    }
                } else {
                    for (pixel, sum) in sums.iter_mut().enumerate() {
                        for column in 0..J {
                            let seen = load(source[row].add(pixel * step + column * channels));
                            *sum = S::fma(seen, weight[row][column], *sum);
                        }
                    }
                }
                source[row] = source[row].add(4 * step);
            }
            for sum in sums {
                store(target, self.limited::<S>(sum));
                target = target.wrapping_add(self.run.step * channels);
            }
            left -= 4;
        }
        for _ in 0..left {
            let mut sum = bias;
            for row in 0..R {
                for column in 0..J {
                    sum = S::fma(load(source[row].add(column * channels)), weight[row][column], sum);
                }
                source[row] = source[row].wrapping_add(step);
            }
            store(target, self.limited::<S>(sum));
            target = target.wrapping_add(self.run.step * channels);
        }
    }
}
