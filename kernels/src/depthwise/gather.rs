//! Forward and the gradient of the input: sums over what each element of the result meets.

use super::Depthwise;
use super::strips::{Piece, Strip, of_input, of_output, rows_ahead};
use crate::activation::Activation;
use crate::exec::Exec;
use crate::pool::{Shared, split};
use crate::prefetch::Ahead;
use crate::simd::{Simd, Task, dispatch_at};
use crate::window::Tap;

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
        columns: of_output(window),
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
        columns: of_input(window),
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
    columns: Vec<Piece>,
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

impl Task for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Rows { gather, source, target, first } = self;
        let (channels, [height, width]) = (gather.channels, gather.source);
        let mut meetings = Vec::new();
        for (index, target) in target.chunks_exact_mut(gather.target[1] * channels).enumerate() {
            let (image, row) = ((first + index) / gather.target[0], (first + index) % gather.target[0]);
            let plane = &source[image * height * width * channels..];
            let taps = &gather.rows[row];
            meetings.clear();
            for (k_row, source_row) in taps {
                let weight = &gather.weight[k_row * gather.kernel_width * channels..];
                meetings
                    .push(Meeting { source: plane[source_row * width * channels..].as_ptr(), weight: weight.as_ptr() });
            }
            let ahead = rows_ahead(&gather.rows, row, height);
            let ahead = ahead.start * width * channels..ahead.end * width * channels;
            let ahead = Ahead::of(plane, ahead, gather.columns.len());
            let row = Row { gather, meetings: &meetings, target };
            // SAFETY: the taps lie in the source, the pieces in the row of the target.
            unsafe { row.work::<S>(ahead) };
        }
    }
}

/// A row of the source and the row of the weight that it meets.
#[derive(Clone, Copy)]
struct Meeting {
    source: *const f32,
    weight: *const f32,
}

struct Row<'a> {
    gather: &'a Gather,
    meetings: &'a [Meeting],
    target: &'a mut [f32],
}

impl Row<'_> {
    #[inline(always)]
    unsafe fn work<S: Simd>(mut self, ahead: Ahead) {
        for (index, piece) in self.gather.columns.iter().enumerate() {
            ahead.share(index);
            match piece {
                Piece::Single(column, taps) => self.single::<S>(*column, taps, 0),
                Piece::Strip(strip) => match (strip.moves, strip.ks.len()) {
                    (1, 1) => self.strip::<S, 1, 1>(strip),
                    (1, 2) => self.strip::<S, 1, 2>(strip),
                    (1, 3) => self.strip::<S, 1, 3>(strip),
                    (2, 3) => self.strip::<S, 2, 3>(strip),
                    (1, 5) => self.strip::<S, 1, 5>(strip),
                    _ => self.strip::<S, 2, 5>(strip),
                },
            }
        }
    }

    #[inline(always)]
    unsafe fn limited<S: Simd>(&self, value: S::V) -> S::V {
        match self.gather.limits {
            Some((min, max)) => S::min(S::splat(max), S::max(S::splat(min), value)),
            None => value,
        }
    }

    /// The channels of one pixel from `at` on.
    #[inline(always)]
    unsafe fn single<S: Simd>(&mut self, column: usize, taps: &[Tap], mut at: usize) {
        let channels = self.gather.channels;
        let target = self.target[column * channels..].as_mut_ptr();
        while at < channels {
            let count = (channels - at).min(S::LANES);
            let mut sum = S::load_first(self.gather.bias.as_ptr().add(at), count);
            for meeting in self.meetings {
                for (k_column, source_column) in taps {
                    let source = S::load_first(meeting.source.add(source_column * channels + at), count);
                    let weight = S::load_first(meeting.weight.add(k_column * channels + at), count);
                    sum = S::fma(source, weight, sum);
                }
            }
            S::store_first(target.add(at), count, self.limited::<S>(sum));
            at += S::LANES;
        }
    }

    #[inline(always)]
    unsafe fn strip<S: Simd, const MOVES: usize, const J: usize>(&mut self, strip: &Strip) {
        match strip.count {
            4 => self.strip_of::<S, MOVES, J, 4>(strip),
            2 => self.strip_of::<S, MOVES, J, 2>(strip),
            _ => self.strip_of::<S, MOVES, J, 1>(strip),
        }
    }

    #[inline(always)]
    unsafe fn strip_of<S: Simd, const MOVES: usize, const J: usize, const P: usize>(&mut self, strip: &Strip) {
        let channels = self.gather.channels;
        let mut at = 0;
        while at + 2 * S::LANES <= channels {
            self.block::<S, MOVES, J, P, 2>(strip, at);
            at += 2 * S::LANES;
        }
        if at + S::LANES <= channels {
            self.block::<S, MOVES, J, P, 1>(strip, at);
            at += S::LANES;
        }
        if at < channels {
            for pixel in 0..P {
                let taps = strip.taps(pixel, self.gather.source[1]);
                self.single::<S>(strip.first + pixel * strip.step, &taps, at);
            }
        }
    }

    /// `P` pixels of `G` vectors at a time, so that weights and what windows share are loaded once.
    #[inline(always)]
    unsafe fn block<S: Simd, const MOVES: usize, const J: usize, const P: usize, const G: usize>(
        &mut self,
        strip: &Strip,
        at: usize,
    ) {
        let channels = self.gather.channels;
        let met = (P - 1) * MOVES + J;
        let (before, after) = (strip.start < 0, strip.ends_in_padding);
        let k_step = strip.k_step() * channels as isize;
        let bias = self.gather.bias.as_ptr().add(at);
        let bias: [S::V; G] = std::array::from_fn(|group| S::load(bias.add(group * S::LANES)));
        let mut sums = [bias; P];
        for meeting in self.meetings {
            let mut source = meeting.source.wrapping_offset(strip.start * channels as isize).wrapping_add(at);
            let mut weight = meeting.weight.wrapping_add(strip.ks[0] * channels + at);
            let mut weights = [[S::splat(0.0); G]; J];
            for weights in &mut weights {
                for (group, lanes) in weights.iter_mut().enumerate() {
                    *lanes = S::load(weight.add(group * S::LANES));
                }
                weight = weight.wrapping_offset(k_step);
            }
            for column in 0..met {
                let padding = (column == 0 && before) || (column + 1 == met && after);
                if !padding {
                    let seen: [S::V; G] = std::array::from_fn(|group| S::load(source.add(group * S::LANES)));
                    for (pixel, sums) in sums.iter_mut().enumerate() {
                        if column >= pixel * MOVES && column - pixel * MOVES < J {
                            let weights = &weights[column - pixel * MOVES];
                            for group in 0..G {
                                sums[group] = S::fma(seen[group], weights[group], sums[group]);
                            }
                        }
                    }
                }
                source = source.wrapping_add(channels);
            }
        }
        let mut target = self.target[strip.first * channels + at..].as_mut_ptr();
        for sums in sums {
            for (group, sum) in sums.into_iter().enumerate() {
                S::store(target.add(group * S::LANES), self.limited::<S>(sum));
            }
            target = target.wrapping_add(strip.step * channels);
        }
    }
}
