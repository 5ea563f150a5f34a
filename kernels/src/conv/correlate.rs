//! Sums over windows: the forward pass, and the gradient of the input.

use super::axis::Axis;
use super::fill::{Input, Pixels, fill};
use super::pack::{Weights, block, blocks, pack, padded};
use super::stripes::Stripes;
use super::tile::{Operands, shape, tile};
use super::winograd;
use crate::pool::{Pool, Shared, split};
use crate::simd::{Simd, Task};

/// Output pixels that are computed from the same taps, and their windows.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) axes: [Axis; 2],
    /// The first element of an image's input, and elements from a row to the next.
    pub(super) x: usize,
    pub(super) x_row: usize,
    /// The first element of an image's output, and elements to the next row and pixel.
    pub(super) y: usize,
    pub(super) y_row: usize,
    pub(super) y_pixel: usize,
    /// Offsets of the weights of each tap of the window.
    pub(super) taps: Vec<usize>,
}

impl Part {
    /// Whether windows are read where the input is: no zeros around it and nothing to apply.
    fn is_direct(&self, input: &Input<'_>) -> bool {
        self.taps.is_empty() || input.is_plain() && !self.axes.iter().any(Axis::leaves_input)
    }

    /// Returns the elements of the copy for some output rows.
    fn copied(&self, rows: usize, channels: usize) -> usize {
        self.axes[0].span(rows).0 * self.axes[1].span(self.axes[1].output).0 * channels
    }
}

/// A correlation of an image batch.
#[derive(Clone, Debug)]
pub(super) struct Correlation {
    pub(super) batch: usize,
    pub(super) groups: usize,
    /// Elements from an image to the next, and from a pixel to the next.
    pub(super) x_image: usize,
    pub(super) x_pixel: usize,
    pub(super) y_image: usize,
    /// Channels of a group: of the input, and of the output.
    pub(super) channels: [usize; 2],
    /// Elements of the weights from a group to the next, from an output to the next, and from an input
    /// to the next.
    pub(super) weights: [usize; 3],
    pub(super) parts: Vec<Part>,
}

/// The operands of a correlation.
pub(super) struct Correlate<'a> {
    pub(super) plan: &'a Correlation,
    pub(super) pool: &'a dyn Pool,
    pub(super) x: Input<'a>,
    pub(super) w: &'a [f32],
    pub(super) bias: Option<&'a [f32]>,
    pub(super) y: &'a mut [f32],
    pub(super) work: &'a mut Vec<f32>,
}

/// Elements of a cache line.
pub(super) const LINE: usize = 16;

/// Returns `len` elements of `work` that start at a cache line.
pub(super) fn aligned(work: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if work.len() < len + LINE {
        work.resize(len + LINE, 0.0);
    }
    let skip = work.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
    &mut work[skip..skip + len]
}

impl Task for Correlate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let plan = self.plan;
        let [channels, outputs] = plan.channels;
        if plan.batch == 0 {
            return;
        }
        if let [part] = &plan.parts[..]
            && plan.groups == 1
            && winograd::suits(&part.axes, plan.batch, plan.channels)
        {
            return winograd::Fast(self).run::<S>();
        }
        let lanes = padded::<S>(outputs);
        let taps: usize = plan.parts.iter().map(|part| part.taps.len()).sum();
        let group = taps * channels * lanes;
        let threads = self.pool.threads().max(1);
        let rows = plan.parts.iter().map(|part| part.axes[0].output).max().unwrap_or(0);
        let row = plan.parts.iter().map(|part| part.copied(rows, channels)).max().unwrap_or(0).div_ceil(rows.max(1));
        let most = if threads == 1 { plan.batch } else { plan.batch.div_ceil(4 * threads) };
        let stripes = Stripes::new(plan.batch, rows, row, group, most);
        let tasks = if threads == 1 { 1 } else { stripes.count().min(4 * threads) };
        let slot = plan.parts.iter().filter(|part| !part.is_direct(&self.x));
        let slot = slot.map(|part| part.copied(part.axes[0].output.div_ceil(stripes.blocks), channels)).max();
        let slot = (slot.unwrap_or(0) * stripes.images).next_multiple_of(LINE);

        let biases = (plan.groups * lanes).next_multiple_of(LINE);
        let packed = (plan.groups * group).next_multiple_of(LINE);
        let work = aligned(self.work, biases + packed + tasks * slot);
        let (bias, work) = work.split_at_mut(biases);
        let (packed, scratch) = work.split_at_mut(packed);
        bias.fill(0.0);
        if let Some(values) = self.bias {
            for (bias, values) in bias.chunks_exact_mut(lanes).zip(values.chunks_exact(outputs)) {
                bias[..outputs].copy_from_slice(values);
            }
        }
        let count = blocks::<S>(outputs);
        let shared = Shared::of(packed);
        self.pool.run(plan.groups * plan.parts.len() * count, &|index| {
            let pack = PackBlock { plan, w: self.w, packed: shared, group, block: index };
            // SAFETY: this runs where `S` does; every task has its own block.
            unsafe { S::outline(pack) };
        });
        let (y, scratch) = (Shared::of(self.y), Shared::of(scratch));
        let job = Job { plan, x: self.x, packed, bias, group, stripes, y, scratch, slot, tasks, task: 0 };
        // SAFETY: this runs where `S` does; every task has its own scratch and its own rows.
        self.pool.run(tasks, &|task| unsafe { S::outline(Job { task, ..job }) });
    }
}

/// Packs one block of one part of one group.
struct PackBlock<'a> {
    plan: &'a Correlation,
    w: &'a [f32],
    packed: Shared<f32>,
    group: usize,
    block: usize,
}

impl Task for PackBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let [channels, outputs] = self.plan.channels;
        let [group, output, channel] = self.plan.weights;
        let count = blocks::<S>(outputs);
        let (index, block) = (self.block / count, block::<S>(outputs, self.block % count));
        let (number, part) = (index / self.plan.parts.len(), index % self.plan.parts.len());
        let before: usize = self.plan.parts[..part].iter().map(|part| part.taps.len()).sum();
        let taps = &self.plan.parts[part].taps;
        let depth = taps.len() * channels;
        let start = number * self.group + before * channels * padded::<S>(outputs) + block.start * depth;
        let at = Weights { start: number * group, output, channel, channels, taps };
        // SAFETY: blocks do not overlap.
        let to = unsafe { self.packed.part(start, depth * block.vectors * S::LANES) };
        pack::<S>(to, self.w, &at, block);
    }
}

/// A share of the stripes.
#[derive(Clone, Copy)]
struct Job<'a> {
    plan: &'a Correlation,
    x: Input<'a>,
    packed: &'a [f32],
    bias: &'a [f32],
    /// Elements of a group's packed weights.
    group: usize,
    stripes: Stripes,
    y: Shared<f32>,
    scratch: Shared<f32>,
    slot: usize,
    tasks: usize,
    task: usize,
}

impl Task for Job<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let plan = self.plan;
        let lanes = padded::<S>(plan.channels[1]);
        for stripe in split(self.stripes.count(), 1, self.tasks, self.task) {
            for group in 0..plan.groups {
                let mut packed = group * self.group;
                for part in &plan.parts {
                    // SAFETY: this runs where `S` does; stripes and groups do not overlap.
                    unsafe { self.stripe::<S>(part, stripe, group, &self.packed[packed..]) };
                    packed += part.taps.len() * plan.channels[0] * lanes;
                }
            }
        }
    }
}

impl Job<'_> {
    /// Computes one stripe of one part of one group.
    #[inline(always)]
    unsafe fn stripe<S: Simd>(&self, part: &Part, stripe: usize, group: usize, packed: &[f32]) {
        let plan = self.plan;
        let [channels, outputs] = plan.channels;
        let [h, w] = &part.axes;
        let (images, index) = self.stripes.get(stripe);
        let rows = split(h.output, 1, self.stripes.blocks, index);
        if rows.is_empty() || w.output == 0 {
            return;
        }
        let at = Pixels {
            start: part.x + group * channels,
            image: plan.x_image,
            row: part.x_row,
            pixel: plan.x_pixel,
            channels,
            channel: group * channels,
        };
        let direct = part.is_direct(&self.x);
        // The first input of the stripe, then elements to the next image, row and pixel of the inputs and
        // from an output row and pixel to the next.
        let (x, x_image, row, pixel, strides);
        if part.taps.is_empty() {
            (x, x_image, row, pixel, strides) = (self.x.values.as_ptr(), 0, 0, 0, [0, 0]);
        } else if direct {
            let first = (rows.start * h.stride) as isize + h.origin;
            let first = first as usize * at.row + w.origin as usize * at.pixel;
            x = self.x.values.as_ptr().add(at.start + images.start * at.image + first);
            (x_image, row, pixel, strides) = (at.image, at.row, at.pixel, [h.stride, w.stride]);
        } else {
            let len = part.copied(rows.len(), channels);
            let copy = self.scratch.part(self.task * self.slot, self.slot);
            for (index, image) in images.clone().enumerate() {
                fill::<S>(&mut copy[index * len..][..len], &self.x, &at, image, [h, w], rows.clone());
            }
            x = copy.as_ptr();
            (x_image, row, pixel) = (len, w.span(w.output).0 * channels, channels);
            strides = [h.span_stride(), w.span_stride()];
        }
        let joined = w.step == 1 && pixel == channels;
        let (runs, steps, run) = if joined {
            ([h.taps, 1], [h.step * row, 0], w.taps * channels)
        } else {
            ([h.taps, w.taps], [h.step * row, w.step * pixel], channels)
        };
        let y = part.y + group * outputs + images.start * plan.y_image + rows.start * part.y_row;
        for index in 0..blocks::<S>(outputs) {
            let block = block::<S>(outputs, index);
            let (tall, wide) = shape::<S>(block.vectors, w.output);
            let depth = part.taps.len() * channels;
            let mut operands = Operands {
                x,
                x_row: strides[0] * row,
                x_pixel: strides[1] * pixel,
                runs,
                steps,
                run,
                w: packed[block.start * depth..][..depth * block.vectors * S::LANES].as_ptr(),
                bias: self.bias[group * padded::<S>(outputs) + block.start..].as_ptr(),
                y: self.y.pointer(),
                y_row: part.y_row,
                y_pixel: part.y_pixel,
                count: block.count,
            };
            for image in 0..images.len() {
                let mut tall = tall;
                let mut done = 0;
                while done < rows.len() {
                    while done + tall > rows.len() {
                        tall /= 2;
                    }
                    for column in (0..w.output).step_by(wide) {
                        operands.x = x.add(image * x_image + done * operands.x_row + column * operands.x_pixel);
                        let place = image * plan.y_image + done * part.y_row + column * part.y_pixel;
                        operands.y = self.y.pointer().add(y + block.start + place);
                        tile::<S>(block.vectors, tall, wide.min(w.output - column), &operands);
                    }
                    done += tall;
                }
            }
        }
    }
}
