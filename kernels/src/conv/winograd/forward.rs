//! A correlation by fast convolution.
//!
//! The maps of the weights and of the inputs are large; the smaller ones of all weights, or of all tiles,
//! are kept, and the others made for a block of outputs, or some tiles, at a time.

use super::super::correlate::{Correlate, Correlation, LINE, aligned};
use super::super::fill::Pixels;
use super::super::moments::{Partial, SHARES, SharedMoments};
use super::super::pack::{VECTORS, Weights, block, blocks, pack, padded};
use super::super::tile::{Operands, shape, tile};
use super::transform::{Sums, Target, outputs, weights};
use super::{POSITIONS, TILE, Tiles, spread};
use crate::input::Input;
use crate::pool::{Shared, split};
use crate::simd::{Simd, Task};

/// Elements of the maps of some tiles: part of a second-level cache.
const CHUNK: usize = 64 << 10;

/// Returns how many tiles are computed at a time.
pub(super) fn chunk(elements: usize, tiles: usize) -> usize {
    let most = (CHUNK / (POSITIONS * elements)).clamp(14, 56);
    tiles.div_ceil(tiles.div_ceil(most))
}

/// Computes a correlation that [`suits`](super::suits).
pub(in super::super) struct Fast<'a>(pub(in super::super) Correlate<'a>);

impl Task for Fast<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Correlate { plan, pool, x, w, bias, y, moments, work } = self.0;
        let [channels, outputs] = plan.channels;
        let tiles = Tiles::new(plan.parts[0].axes);
        let total = tiles.count(plan.batch);
        let all_tiles = total < outputs;
        let size = chunk(channels + VECTORS * S::LANES, total);
        let chunks = total.div_ceil(size);
        let count = blocks::<S>(outputs);
        let (threads, lanes) = (pool.threads().max(1), padded::<S>(outputs));
        let most = if threads == 1 { 1 } else { 4 * threads };
        let tasks = chunks.min(if moments.is_some() { SHARES } else { most });

        // Lengths of the maps: of the tiles of a chunk, of a block's weights, and of a block's products.
        let distances =
            [spread(size * channels), spread(channels * VECTORS * S::LANES), spread(size * VECTORS * S::LANES)];
        let [input, weight, product] = distances.map(|distance| POSITIONS * distance);
        let packed = 9 * channels * VECTORS * S::LANES;
        let workers = tasks.max(count);
        let slot = packed + product + if all_tiles { weight } else { input };
        let kept = if all_tiles { chunks * input } else { count * weight };
        let memory = aligned(work, lanes.next_multiple_of(LINE) + kept + workers * slot);
        let (biases, memory) = memory.split_at_mut(lanes.next_multiple_of(LINE));
        let (kept, scratch) = memory.split_at_mut(kept);
        biases.fill(0.0);
        if let Some(bias) = bias {
            biases[..outputs].copy_from_slice(bias);
        }
        let (kept, scratch, y) = (Shared::of(kept), Shared::of(scratch), Shared::of(y));
        let mut partial = Partial::new(moments.as_ref(), if all_tiles { 1 } else { tasks }, outputs);
        let job = Job {
            plan,
            x,
            w,
            bias: biases,
            y,
            moments: partial.shared(),
            tiles,
            total,
            size,
            distances,
            kept,
            scratch,
            slot,
            packed,
            tasks: 0,
            task: 0,
            step: Step::Weights,
        };
        // Every task has its own scratch, and its own part of what is kept or written.
        let go = |tasks: usize, step: Step| {
            // SAFETY: this runs where `S` does.
            pool.run(tasks, &|task| unsafe { S::outline(Job { tasks, task, step, ..job }) });
        };
        if all_tiles {
            go(tasks, Step::Inputs);
            go(count, Step::Blocks);
        } else {
            go(count, Step::Weights);
            go(tasks, Step::Chunks);
        }
        partial.finish(moments);
    }
}

/// What the tasks of a call do.
#[derive(Clone, Copy)]
enum Step {
    /// Map the weights of a block, and keep them.
    Weights,
    /// Compute some chunks of tiles, from the weights that were kept.
    Chunks,
    /// Map the inputs of some chunks of tiles, and keep them.
    Inputs,
    /// Compute a block of outputs, from the inputs that were kept.
    Blocks,
}

#[derive(Clone, Copy)]
struct Job<'a> {
    plan: &'a Correlation,
    x: Input<'a>,
    w: &'a [f32],
    bias: &'a [f32],
    y: Shared<f32>,
    moments: Option<SharedMoments<'a>>,
    tiles: Tiles,
    total: usize,
    /// Tiles of a chunk.
    size: usize,
    distances: [usize; 3],
    kept: Shared<f32>,
    scratch: Shared<f32>,
    slot: usize,
    /// Elements of a slot for a block's packed weights.
    packed: usize,
    tasks: usize,
    task: usize,
    step: Step,
}

impl Task for Job<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let [input, weight, _] = self.distances.map(|distance| POSITIONS * distance);
        let chunks = self.total.div_ceil(self.size);
        let mine = split(chunks, 1, self.tasks, self.task);
        let count = blocks::<S>(self.plan.channels[1]);
        // SAFETY: this runs where `S` does; every task has its own slot, and its own part of what is kept.
        unsafe {
            let scratch = self.scratch.part(self.task * self.slot, self.slot);
            let (packed, scratch) = scratch.split_at_mut(self.packed);
            match self.step {
                Step::Weights => {
                    let to = self.kept.part(self.task * weight, weight);
                    self.weights::<S>(self.task, packed, to);
                }
                Step::Chunks => {
                    let (inputs, products) = scratch.split_at_mut(input);
                    let kept = self.kept.pointer();
                    for chunk in mine {
                        self.inputs::<S>(chunk, inputs);
                        for block in 0..count {
                            self.outputs::<S>(chunk, block, inputs.as_ptr(), kept.add(block * weight), products);
                        }
                    }
                }
                Step::Inputs => {
                    for chunk in mine {
                        self.inputs::<S>(chunk, self.kept.part(chunk * input, input));
                    }
                }
                Step::Blocks => {
                    let (weights, products) = scratch.split_at_mut(weight);
                    self.weights::<S>(self.task, packed, weights);
                    let kept = self.kept.pointer();
                    for chunk in 0..chunks {
                        self.outputs::<S>(chunk, self.task, kept.add(chunk * input), weights.as_ptr(), products);
                    }
                }
            }
        }
    }
}

impl Job<'_> {
    /// Maps the weights of a block.
    #[inline(always)]
    unsafe fn weights<S: Simd>(&self, index: usize, packed: &mut [f32], to: &mut [f32]) {
        let [channels, outputs] = self.plan.channels;
        let [_, output, channel] = self.plan.weights;
        let block = block::<S>(outputs, index);
        let at = Weights { start: 0, output, channel, channels, taps: &self.plan.parts[0].taps };
        pack::<S>(packed, self.w, &at, block);
        let len = channels * block.vectors * S::LANES;
        weights::<S>(packed.as_ptr(), len, to.as_mut_ptr(), self.distances[1]);
    }

    /// Maps the inputs of a chunk of tiles.
    #[inline(always)]
    unsafe fn inputs<S: Simd>(&self, chunk: usize, to: &mut [f32]) {
        let channels = self.plan.channels[0];
        let at = Pixels {
            start: self.plan.parts[0].x,
            image: self.plan.x_image,
            row: self.plan.parts[0].x_row,
            pixel: self.plan.x_pixel,
            channels,
            channel: 0,
        };
        for index in 0..self.size.min(self.total - chunk * self.size) {
            let to = to.as_mut_ptr().add(index * channels);
            self.tiles.inputs::<S>(&self.x, &at, chunk * self.size + index, to, self.distances[0]);
        }
    }

    /// Computes a block of outputs of a chunk of tiles.
    #[inline(always)]
    unsafe fn outputs<S: Simd>(
        &self,
        chunk: usize,
        index: usize,
        inputs: *const f32,
        weights: *const f32,
        products: &mut [f32],
    ) {
        let [channels, count] = self.plan.channels;
        let part = &self.plan.parts[0];
        let block = block::<S>(count, index);
        let lanes = block.vectors * S::LANES;
        let tiles = self.size.min(self.total - chunk * self.size);
        let (_, wide) = shape::<S>(block.vectors, tiles);
        let zeros = [0.0_f32; 64];
        // The stores of the outputs would wait for their lines otherwise.
        for index in 0..tiles {
            let [image, row, column] = self.tiles.place(chunk * self.size + index);
            let place = part.y + image * self.plan.y_image + row * part.y_row + column * part.y_pixel + block.start;
            for row in 0..TILE {
                for element in (0..TILE * part.y_pixel).step_by(part.y_pixel) {
                    let at = self.y.pointer().wrapping_add(place + row * part.y_row + element);
                    S::prefetch(at);
                    if block.vectors > 1 {
                        S::prefetch(at.wrapping_add(S::LANES));
                    }
                }
            }
        }
        for position in 0..POSITIONS {
            for start in (0..tiles).step_by(wide) {
                let operands = Operands {
                    x: inputs.add(position * self.distances[0] + start * channels),
                    x_row: 0,
                    x_pixel: channels,
                    runs: [1, 1],
                    steps: [0, 0],
                    run: channels,
                    w: weights.add(position * self.distances[1]),
                    bias: zeros.as_ptr(),
                    y: products.as_mut_ptr().add(position * self.distances[2] + start * lanes),
                    y_row: 0,
                    y_pixel: lanes,
                    count: lanes,
                };
                tile::<S>(block.vectors, 1, wide.min(tiles - start), &operands);
            }
        }
        let share = if let Step::Blocks = self.step { 0 } else { self.task };
        for v in 0..block.vectors {
            let (channel, exist) = (block.start + v * S::LANES, block.count - v * S::LANES);
            let shift = self.moments.map(|moments| moments.shift::<S>(channel, exist));
            let mut sums = Sums::<S>::new(shift.unwrap_or(S::splat(0.0)));
            for index in 0..tiles {
                let [image, row, column] = self.tiles.place(chunk * self.size + index);
                let place = part.y + image * self.plan.y_image + row * part.y_row + column * part.y_pixel + channel;
                let to = Target {
                    bias: S::load(self.bias[channel..].as_ptr()),
                    to: self.y.pointer().add(place),
                    steps: [part.y_row, part.y_pixel],
                    exist: self.tiles.exist(row, column),
                    count: exist,
                };
                let from = products.as_ptr().add(index * lanes + v * S::LANES);
                match shift {
                    None => outputs::<S, false>(from, self.distances[2], to, &mut sums),
                    Some(_) => outputs::<S, true>(from, self.distances[2], to, &mut sums),
                }
            }
            if let Some(moments) = &self.moments {
                moments.flush::<S>(share, channel, exist, sums.sums);
            }
        }
    }
}
