//! The gradient of the weights by fast convolution.
//!
//! Where there are few tiles, the maps of all inputs and gradients are kept, and each block of outputs is
//! summed over all tiles at once. Otherwise shares of the tiles are summed for themselves, some tiles at a
//! time.

use super::super::axis::Axis;
use super::super::correlate::{LINE, aligned};
use super::super::fill::Pixels;
use super::super::geometry::Conv2d;
use super::super::pack::{Block, VECTORS, block, blocks, padded};
use super::super::patch::{Operands, elements, patch};
use super::super::weight_grad::add_shares;
use super::forward::chunk;
use super::transform::{gradients, weight_gradients};
use super::{POSITIONS, Tiles, spread};
use crate::input::Input;
use crate::pool::{Pool, Shared, split};
use crate::simd::{Simd, Task};

/// Tiles of a share, at least: fewer do not pay for sums of their own.
const SHARE: usize = 128;
/// The most shares.
const SHARES: usize = 16;
/// Tasks to aim at.
const TASKS: usize = 4;

/// Computes a gradient of weights that [`suits`](super::suits).
pub(in super::super) struct FastWeightGrad<'a> {
    pub(in super::super) conv: &'a Conv2d,
    pub(in super::super) axes: [Axis; 2],
    pub(in super::super) pool: &'a dyn Pool,
    pub(in super::super) x: Input<'a>,
    pub(in super::super) dy: &'a [f32],
    pub(in super::super) dw: &'a mut [f32],
    pub(in super::super) work: &'a mut Vec<f32>,
}

impl Task for FastWeightGrad<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let FastWeightGrad { conv, axes, pool, x, dy, dw, work } = self;
        let (channels, outputs) = (conv.in_channels, conv.out_channels);
        let tiles = Tiles::new(axes);
        let total = tiles.count(conv.batch);
        let at_once = total * (channels + outputs) <= channels * outputs;
        let count = blocks::<S>(outputs);
        let shares = if at_once { 1 } else { (total / SHARE).clamp(1, SHARES) };
        let parts = if at_once { 1 } else { TASKS.div_ceil(shares).min(count) };
        let widest = VECTORS * S::LANES;
        let size = if at_once { total } else { chunk(channels + widest, total.div_ceil(shares)) };
        let few = elements::<S>(1).max(elements::<S>(VECTORS));
        let wide = if at_once { few } else { channels };
        let distances = [spread(size * channels), spread(size * widest), spread(wide * widest)];
        let [input, gradient, sum] = distances.map(|distance| POSITIONS * distance);

        let share = (9 * channels * padded::<S>(outputs)).next_multiple_of(LINE);
        let mapping = if at_once { total.min(SHARES) } else { 0 };
        let (kept, slot, tasks) = if at_once {
            (input + count * gradient, sum, mapping.max(count))
        } else {
            (0, input + gradient + count.div_ceil(parts) * sum, shares * parts)
        };
        let memory = aligned(work, shares * share + kept + tasks * slot);
        let (sums, memory) = memory.split_at_mut(shares * share);
        let (kept, scratch) = memory.split_at_mut(kept);
        let job = Job {
            conv,
            x,
            dy,
            tiles,
            total,
            size,
            shares,
            parts,
            distances,
            sums: Shared::of(sums),
            share,
            kept: Shared::of(kept),
            scratch: Shared::of(scratch),
            slot,
            mapping,
            task: 0,
            step: Step::Share,
        };
        // Every task has its own scratch, and its own part of what is kept or summed.
        let go = |tasks: usize, step: Step| {
            // SAFETY: this runs where `S` does.
            pool.run(tasks, &|task| unsafe { S::outline(Job { task, step, ..job }) });
        };
        if at_once {
            go(mapping, Step::Map);
            go(count, Step::Block);
        } else {
            go(shares * parts, Step::Share);
        }
        add_shares::<S>(pool, conv, sums, share, dw);
    }
}

/// What the tasks of a call do.
#[derive(Clone, Copy)]
enum Step {
    /// Map the inputs and gradients of some tiles, and keep them.
    Map,
    /// Sum a block of outputs over all tiles.
    Block,
    /// Sum some blocks of outputs over a share of the tiles.
    Share,
}

#[derive(Clone, Copy)]
struct Job<'a> {
    conv: &'a Conv2d,
    x: Input<'a>,
    dy: &'a [f32],
    tiles: Tiles,
    total: usize,
    /// Tiles at a time.
    size: usize,
    shares: usize,
    /// Parts of the blocks.
    parts: usize,
    distances: [usize; 3],
    sums: Shared<f32>,
    share: usize,
    kept: Shared<f32>,
    scratch: Shared<f32>,
    slot: usize,
    mapping: usize,
    task: usize,
    step: Step,
}

impl Task for Job<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let outputs = self.conv.out_channels;
        let [input, gradient, sum] = self.distances.map(|distance| POSITIONS * distance);
        // SAFETY: this runs where `S` does; every task has its own slot, and its own part of the others.
        unsafe {
            let scratch = self.scratch.part(self.task * self.slot, self.slot);
            match self.step {
                Step::Map => {
                    let kept = self.kept.pointer();
                    for tile in split(self.total, 1, self.mapping, self.task) {
                        self.input::<S>(tile, kept.add(tile * self.conv.in_channels));
                        for index in 0..blocks::<S>(outputs) {
                            let block = block::<S>(outputs, index);
                            let to = kept.add(input + index * gradient + tile * block.vectors * S::LANES);
                            self.gradient::<S>(tile, block, to);
                        }
                    }
                }
                Step::Block => self.block::<S>(self.task, scratch),
                Step::Share => {
                    let (share, part) = (self.task / self.parts, self.task % self.parts);
                    let mine = split(blocks::<S>(outputs), 1, self.parts, part);
                    let (inputs, scratch) = scratch.split_at_mut(input);
                    let (gradients, sums) = scratch.split_at_mut(gradient);
                    sums[..mine.len() * sum].fill(0.0);
                    let all = split(self.total, 1, self.shares, share);
                    for start in all.clone().step_by(self.size) {
                        let tiles = start..all.end.min(start + self.size);
                        for (index, tile) in tiles.clone().enumerate() {
                            let to = inputs.as_mut_ptr().add(index * self.conv.in_channels);
                            self.input::<S>(tile, to);
                        }
                        for (number, index) in mine.clone().enumerate() {
                            let block = block::<S>(outputs, index);
                            for (index, tile) in tiles.clone().enumerate() {
                                let to = gradients.as_mut_ptr().add(index * block.vectors * S::LANES);
                                self.gradient::<S>(tile, block, to);
                            }
                            let sums = sums.as_mut_ptr().add(number * sum);
                            self.add::<S>(block, tiles.len(), inputs.as_ptr(), gradients.as_ptr(), sums);
                        }
                    }
                    for (number, index) in mine.enumerate() {
                        let block = block::<S>(outputs, index);
                        let len = self.conv.in_channels * block.vectors * S::LANES;
                        let to = self.sums.pointer().add(share * self.share + block.start * 9 * self.conv.in_channels);
                        weight_gradients::<S>(sums.as_ptr().add(number * sum), self.distances[2], len, to, len);
                    }
                }
            }
        }
    }
}

impl Job<'_> {
    /// Maps the inputs of a tile.
    #[inline(always)]
    unsafe fn input<S: Simd>(&self, tile: usize, to: *mut f32) {
        let conv = self.conv;
        let row = conv.input[1] * conv.in_channels;
        let at = Pixels {
            start: 0,
            image: conv.input[0] * row,
            row,
            pixel: conv.in_channels,
            channels: conv.in_channels,
            channel: 0,
        };
        self.tiles.inputs::<S>(&self.x, &at, tile, to, self.distances[0]);
    }

    /// Maps the gradients of a tile's outputs, of one block.
    #[inline(always)]
    unsafe fn gradient<S: Simd>(&self, tile: usize, block: Block, to: *mut f32) {
        let conv = self.conv;
        let [image, row, column] = self.tiles.place(tile);
        let pixel = (image * conv.output[0] + row) * conv.output[1] + column;
        let from = self.dy.as_ptr().add(pixel * conv.out_channels + block.start);
        let steps = [conv.output[1] * conv.out_channels, conv.out_channels];
        let exist = self.tiles.exist(row, column);
        for v in 0..block.vectors {
            let start = v * S::LANES;
            gradients::<S>(from.add(start), steps, exist, block.count - start, to.add(start), self.distances[1]);
        }
    }

    /// Adds the products of some tiles for one block.
    #[inline(always)]
    unsafe fn add<S: Simd>(
        &self,
        block: Block,
        tiles: usize,
        inputs: *const f32,
        gradients: *const f32,
        sums: *mut f32,
    ) {
        let channels = self.conv.in_channels;
        let parts = channels.div_ceil(elements::<S>(block.vectors));
        for position in 0..POSITIONS {
            for index in 0..parts {
                let part = split(channels, 1, parts, index);
                let sums = sums.add(position * self.distances[2] + part.start * block.vectors * S::LANES);
                let inputs = inputs.add(position * self.distances[0] + part.start);
                let gradients = gradients.add(position * self.distances[1]);
                self.products::<S>(block, part.len(), tiles, [inputs, gradients], sums);
            }
        }
    }

    /// Adds the products of some tiles at one position for some channels.
    #[inline(always)]
    unsafe fn products<S: Simd>(
        &self,
        block: Block,
        channels: usize,
        tiles: usize,
        [inputs, gradients]: [*const f32; 2],
        sums: *mut f32,
    ) {
        let operands = Operands {
            x: inputs,
            x_image: 0,
            x_row: 0,
            x_pixel: self.conv.in_channels,
            dy: gradients,
            dy_image: 0,
            dy_row: 0,
            dy_pixel: block.vectors * S::LANES,
            images: 1,
            rows: 1,
            columns: tiles,
            dw: sums,
        };
        patch::<S>(block.vectors, channels, &operands);
    }

    /// Sums one block over all tiles, some channels at a time.
    #[inline(always)]
    unsafe fn block<S: Simd>(&self, index: usize, sums: &mut [f32]) {
        let channels = self.conv.in_channels;
        let block = block::<S>(self.conv.out_channels, index);
        let lanes = block.vectors * S::LANES;
        let [input, gradient, _] = self.distances.map(|distance| POSITIONS * distance);
        let inputs = self.kept.pointer();
        let gradients = inputs.add(input + index * gradient);
        let to = self.sums.pointer().add(block.start * 9 * channels);
        let parts = channels.div_ceil(elements::<S>(block.vectors));
        for index in 0..parts {
            let part = split(channels, 1, parts, index);
            sums.fill(0.0);
            for position in 0..POSITIONS {
                let inputs = inputs.add(position * self.distances[0] + part.start);
                let gradients = gradients.add(position * self.distances[1]);
                let sums = sums.as_mut_ptr().add(position * self.distances[2]);
                self.products::<S>(block, part.len(), self.total, [inputs, gradients], sums);
            }
            let len = part.len() * lanes;
            let to = to.add(part.start * lanes);
            weight_gradients::<S>(sums.as_ptr(), self.distances[2], len, to, channels * lanes);
        }
    }
}
