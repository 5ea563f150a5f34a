//! The gradient of the weights: sums over all pixels.
//!
//! The pixels are divided into a number of shares that depends on the sizes alone. Each share sums for
//! itself, and the sums are added in order, so that results do not depend on the number of threads.

use super::axis::Axis;
use super::correlate::{LINE, aligned};
use super::fill::{Input, Pixels, fill};
use super::geometry::Conv2d;
use super::pack::{Block, VECTORS, Weights, block, blocks, padded, unpack};
use super::patch::{Operands, elements, patch};
use super::stripes::Stripes;
use super::winograd::{self, FastWeightGrad};
use crate::pool::{Pool, Shared, split};
use crate::simd::{Level, Simd, Task, dispatch_at};
use std::ops::Range;

/// Tasks to aim at.
const TASKS: usize = 16;
/// The most elements of all sums.
const SUMS: usize = 1 << 20;

impl Conv2d {
    /// Computes `dw` `[M, C / groups, kH, kW]` from `x` `[N, H, W, C]` and `dy` `[N, OH, OW, M]`.
    ///
    /// # Panics
    /// When [`check`](Conv2d::check) fails or a slice has another length.
    pub fn weight_grad<'a>(
        &self,
        pool: &dyn Pool,
        x: impl Into<Input<'a>>,
        dy: &[f32],
        dw: &mut [f32],
        work: &mut Vec<f32>,
    ) {
        self.weight_grad_at(Level::best(), pool, x.into(), dy, dw, work);
    }

    pub(super) fn weight_grad_at(
        &self,
        level: Level,
        pool: &dyn Pool,
        x: Input<'_>,
        dy: &[f32],
        dw: &mut [f32],
        work: &mut Vec<f32>,
    ) {
        self.require(x.values.len(), dw.len(), dy.len());
        self.require_channels(&x, None);
        dispatch_at(level, WeightGrad { plan: self.weight_grad_plan(), conv: self, pool, x, dy, dw, work });
    }

    fn weight_grad_plan(&self) -> Plan {
        if self.is_pointwise() {
            // An image is a row of pixels.
            let pixels = self.input[0] * self.input[1];
            return Plan { axes: [Axis::pointwise(1), Axis::pointwise(pixels)] };
        }
        let axis = |axis: usize| {
            Axis::forward(
                self.input[axis],
                self.output[axis],
                self.strides[axis],
                self.pads[axis],
                self.kernel[axis],
                self.dilations[axis],
            )
        };
        Plan { axes: [axis(0), axis(1)] }
    }
}

#[derive(Clone, Copy)]
struct Plan {
    axes: [Axis; 2],
}

struct WeightGrad<'a> {
    plan: Plan,
    conv: &'a Conv2d,
    pool: &'a dyn Pool,
    x: Input<'a>,
    dy: &'a [f32],
    dw: &'a mut [f32],
    work: &'a mut Vec<f32>,
}

impl Task for WeightGrad<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let conv = self.conv;
        let (channels, outputs) = (conv.group_inputs(), conv.group_outputs());
        if conv.batch == 0 {
            self.dw.fill(0.0);
            return;
        }
        if conv.groups == 1 && winograd::suits(&self.plan.axes, conv.batch, [channels, outputs]) {
            let WeightGrad { plan: Plan { axes }, pool, x, dy, dw, work, .. } = self;
            return FastWeightGrad { conv, axes, pool, x, dy, dw, work }.run::<S>();
        }
        let [h, w] = self.plan.axes;
        let lanes = padded::<S>(outputs);
        let depth = h.taps * w.taps * channels;
        let sums = conv.groups * depth * lanes;
        let columns = w.span(w.output).0;
        let row = (h.span(h.output).0 * columns * channels).div_ceil(h.output);
        let stripes = Stripes::new(conv.batch, h.output, row, depth * lanes, conv.batch);
        let shares = (SUMS / sums).clamp(1, TASKS).min(stripes.count());
        let count = blocks::<S>(outputs);
        let columns_of_blocks = TASKS.div_ceil(shares).min(count);

        let direct = self.x.is_plain() && !h.leaves_input() && !w.leaves_input();
        let rows = h.output.div_ceil(stripes.blocks);
        let copied = if direct { 0 } else { h.span(rows).0 * columns * channels * stripes.images };
        let slot = copied.next_multiple_of(LINE) + rows * w.output * stripes.images * VECTORS * S::LANES;
        let tasks = shares * columns_of_blocks;
        let share = sums.next_multiple_of(LINE);
        let work = aligned(self.work, shares * share + tasks * slot);
        let (sums, scratch) = work.split_at_mut(shares * share);
        let job = Job {
            plan: self.plan,
            conv,
            x: self.x,
            dy: self.dy,
            direct,
            stripes,
            shares,
            blocks: columns_of_blocks,
            sums: Shared::of(sums),
            share,
            scratch: Shared::of(scratch),
            slot,
            copied: copied.next_multiple_of(LINE),
            task: 0,
        };
        // SAFETY: this runs where `S` does; every task has its own scratch and its own sums.
        self.pool.run(tasks, &|task| unsafe { S::outline(Job { task, ..job }) });
        add_shares::<S>(self.pool, conv, sums, share, self.dw);
    }
}

/// Adds sums, packed as weights are and `share` elements apart, in order.
#[inline(always)]
pub(super) fn add_shares<S: Simd>(pool: &dyn Pool, conv: &Conv2d, sums: &[f32], share: usize, dw: &mut [f32]) {
    let dw = Shared::of(dw);
    pool.run(conv.groups * blocks::<S>(conv.group_outputs()), &|index| {
        let add = AddShares { conv, sums, share, dw, index };
        // SAFETY: this runs where `S` does; every task has its own weights.
        unsafe { S::outline(add) };
    });
}

/// Adds the sums of all shares of one block.
struct AddShares<'a> {
    conv: &'a Conv2d,
    sums: &'a [f32],
    share: usize,
    dw: Shared<f32>,
    index: usize,
}

impl Task for AddShares<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let (channels, outputs) = (self.conv.group_inputs(), self.conv.group_outputs());
        let area = self.conv.kernel[0] * self.conv.kernel[1];
        let (group, index) = (self.index / blocks::<S>(outputs), self.index % blocks::<S>(outputs));
        let block = block::<S>(outputs, index);
        let taps: Vec<_> = (0..area).collect();
        let at = Weights {
            start: group * outputs * channels * area,
            output: channels * area,
            channel: area,
            channels,
            taps: &taps,
        };
        let start = (group * padded::<S>(outputs) + block.start) * area * channels;
        // SAFETY: blocks do not overlap.
        unsafe { unpack::<S>(self.dw.pointer(), self.sums.chunks_exact(self.share), start, &at, block) };
    }
}

/// A share of the pixels, for some blocks.
#[derive(Clone, Copy)]
struct Job<'a> {
    plan: Plan,
    conv: &'a Conv2d,
    x: Input<'a>,
    dy: &'a [f32],
    direct: bool,
    stripes: Stripes,
    shares: usize,
    /// Parts of the blocks.
    blocks: usize,
    sums: Shared<f32>,
    share: usize,
    scratch: Shared<f32>,
    slot: usize,
    copied: usize,
    task: usize,
}

impl Task for Job<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let conv = self.conv;
        let (channels, outputs) = (conv.group_inputs(), conv.group_outputs());
        let [h, w] = self.plan.axes;
        let (share, part) = (self.task / self.blocks, self.task % self.blocks);
        let depth = h.taps * w.taps * channels;
        let wanted = split(blocks::<S>(outputs), 1, self.blocks, part);
        for group in 0..conv.groups {
            for index in wanted.clone() {
                let block = block::<S>(outputs, index);
                let start = (group * padded::<S>(outputs) + block.start) * depth;
                // SAFETY: tasks have different shares or blocks.
                unsafe { self.sums.part(share * self.share + start, depth * block.vectors * S::LANES) }.fill(0.0);
            }
        }
        for stripe in split(self.stripes.count(), 1, self.shares, share) {
            let (images, index) = self.stripes.get(stripe);
            let rows = split(h.output, 1, self.stripes.blocks, index);
            if rows.is_empty() {
                continue;
            }
            for group in 0..conv.groups {
                // SAFETY: this runs where `S` does; tasks have their own scratch.
                unsafe {
                    let window = self.window::<S>(group, images.clone(), rows.clone());
                    for index in wanted.clone() {
                        let block = block::<S>(outputs, index);
                        let start = (group * padded::<S>(outputs) + block.start) * depth;
                        let sums = self.sums.pointer().add(share * self.share + start);
                        let dy = self.gradients::<S>(&window, group, block, images.clone(), rows.clone());
                        self.block::<S>(&window, block, Operands { dw: sums, ..dy });
                    }
                }
            }
        }
    }
}

/// The runs of a window and where they lie.
struct Window {
    operands: Operands,
    runs: [usize; 2],
    steps: [usize; 2],
    run: usize,
}

impl Job<'_> {
    /// Makes the inputs of a stripe ready.
    #[inline(always)]
    unsafe fn window<S: Simd>(&self, group: usize, images: Range<usize>, rows: Range<usize>) -> Window {
        let conv = self.conv;
        let channels = conv.group_inputs();
        let [h, w] = &self.plan.axes;
        let at = Pixels {
            start: group * channels,
            image: conv.input[0] * conv.input[1] * conv.in_channels,
            row: w.input * conv.in_channels,
            pixel: conv.in_channels,
            channels,
            channel: group * channels,
        };
        let (x, x_image, row, pixel, strides);
        if self.direct {
            let first = (rows.start * h.stride) as isize + h.origin;
            let first = first as usize * at.row + w.origin as usize * at.pixel;
            x = self.x.values.as_ptr().add(at.start + images.start * at.image + first);
            (x_image, row, pixel, strides) = (at.image, at.row, at.pixel, [h.stride, w.stride]);
        } else {
            (row, pixel) = (w.span(w.output).0 * channels, channels);
            x_image = h.span(rows.len()).0 * row;
            let copy = self.scratch.part(self.task * self.slot, self.copied);
            for (index, image) in images.clone().enumerate() {
                fill::<S>(&mut copy[index * x_image..][..x_image], &self.x, &at, image, [h, w], rows.clone());
            }
            x = copy.as_ptr();
            strides = [h.span_stride(), w.span_stride()];
        }
        let (runs, steps, run) = if w.step == 1 && pixel == channels {
            ([h.taps, 1], [h.step * row, 0], w.taps * channels)
        } else {
            ([h.taps, w.taps], [h.step * row, w.step * pixel], channels)
        };
        let operands = Operands {
            x,
            x_image,
            x_row: strides[0] * row,
            x_pixel: strides[1] * pixel,
            dy: self.dy.as_ptr(),
            dy_image: 0,
            dy_row: 0,
            dy_pixel: 0,
            images: images.len(),
            rows: rows.len(),
            columns: w.output,
            dw: self.sums.pointer(),
        };
        Window { operands, runs, steps, run }
    }

    /// Makes the gradients of a block ready.
    #[inline(always)]
    unsafe fn gradients<S: Simd>(
        &self,
        window: &Window,
        group: usize,
        block: Block,
        images: Range<usize>,
        rows: Range<usize>,
    ) -> Operands {
        let conv = self.conv;
        let columns = self.plan.axes[1].output;
        let lanes = block.vectors * S::LANES;
        let pixel = conv.out_channels;
        let row = columns * pixel;
        let image = self.plan.axes[0].output * row;
        let start = images.start * image + rows.start * row + group * conv.group_outputs() + block.start;
        if block.count == lanes && (lanes == pixel || window.run * window.runs[0] <= 64) {
            let dy = self.dy.as_ptr().add(start);
            return Operands { dy, dy_image: image, dy_row: row, dy_pixel: pixel, ..window.operands };
        }
        let len = images.len() * rows.len() * columns * lanes;
        let copy = self.scratch.part(self.task * self.slot + self.copied, len);
        let mut to = copy.as_mut_ptr();
        for index in 0..images.len() * rows.len() {
            let from = start + index / rows.len() * image + index % rows.len() * row;
            let mut from = self.dy[from..from + row - group * conv.group_outputs() - block.start].as_ptr();
            for _ in 0..columns {
                for v in 0..block.vectors {
                    let count = (block.count - v * S::LANES).min(S::LANES);
                    let value = if count == S::LANES {
                        S::load(from.add(v * S::LANES))
                    } else {
                        S::load_first(from.add(v * S::LANES), count)
                    };
                    S::store(to.add(v * S::LANES), value);
                }
                from = from.wrapping_add(pixel);
                to = to.add(lanes);
            }
        }
        Operands {
            dy: copy.as_ptr(),
            dy_image: rows.len() * columns * lanes,
            dy_row: columns * lanes,
            dy_pixel: lanes,
            ..window.operands
        }
    }

    /// Adds the sums of a stripe for one block.
    #[inline(always)]
    unsafe fn block<S: Simd>(&self, window: &Window, block: Block, operands: Operands) {
        let lanes = block.vectors * S::LANES;
        let patches = window.run.div_ceil(elements::<S>(block.vectors));
        let mut dw = operands.dw;
        for a in 0..window.runs[0] {
            for b in 0..window.runs[1] {
                let x = operands.x.add(a * window.steps[0] + b * window.steps[1]);
                for index in 0..patches {
                    let part = split(window.run, 1, patches, index);
                    let at = Operands { x: x.add(part.start), dw, ..operands };
                    patch::<S>(block.vectors, part.len(), &at);
                    dw = dw.add(part.len() * lanes);
                }
            }
        }
    }
}
