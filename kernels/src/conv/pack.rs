//! Weights in the order in which the kernels read them.
//!
//! Blocks of [`VECTORS`] vectors of outputs; in a block `[taps, channels, outputs of the block]`, so
//! that a kernel reads on and on. The last block is one vector where that suffices.

use crate::simd::Simd;

/// Vectors of a block.
pub(super) const VECTORS: usize = 2;

/// A block of outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// The first output.
    pub(super) start: usize,
    /// Outputs that exist.
    pub(super) count: usize,
    /// Vectors.
    pub(super) vectors: usize,
}

/// Returns the number of blocks of `outputs` outputs.
#[inline(always)]
pub(super) fn blocks<S: Simd>(outputs: usize) -> usize {
    outputs.div_ceil(VECTORS * S::LANES)
}

/// Returns one of them.
#[inline(always)]
pub(super) fn block<S: Simd>(outputs: usize, index: usize) -> Block {
    let start = index * VECTORS * S::LANES;
    let count = (outputs - start).min(VECTORS * S::LANES);
    Block { start, count, vectors: count.div_ceil(S::LANES) }
}

/// Returns the outputs with those that fill up the last vector.
#[inline(always)]
pub(super) fn padded<S: Simd>(outputs: usize) -> usize {
    outputs.next_multiple_of(S::LANES)
}

/// Where the weights of a correlation stand: `w[start + output * ours + channel * theirs + taps[t]]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weights<'a> {
    pub(super) start: usize,
    pub(super) output: usize,
    pub(super) channel: usize,
    pub(super) channels: usize,
    pub(super) taps: &'a [usize],
}

/// Packs the weights of one block.
#[inline(always)]
pub(super) fn pack<S: Simd>(to: &mut [f32], w: &[f32], at: &Weights<'_>, block: Block) {
    let lanes = block.vectors * S::LANES;
    for channel in 0..at.channels {
        for (tap, offset) in at.taps.iter().enumerate() {
            let source = at.start + block.start * at.output + channel * at.channel + offset;
            let to = &mut to[(tap * at.channels + channel) * lanes..][..lanes];
            let from = &w[source..=source + (block.count - 1) * at.output];
            for (lane, to) in to.iter_mut().enumerate().take(block.count) {
                *to = from[lane * at.output];
            }
            to[block.count..].fill(0.0);
        }
    }
}

/// Sums packed partial results, `start` in each of the `parts`, in their order, and writes them to the places of the weights.
///
/// # Safety
/// No other thread writes the places of this block, and they lie inside `w`.
#[inline(always)]
pub(super) unsafe fn unpack<S: Simd>(
    w: *mut f32,
    parts: std::slice::ChunksExact<'_, f32>,
    start: usize,
    at: &Weights<'_>,
    block: Block,
) {
    let lanes = block.vectors * S::LANES;
    let mut sums = [0.0_f32; 64];
    for channel in 0..at.channels {
        for (tap, offset) in at.taps.iter().enumerate() {
            let place = start + (tap * at.channels + channel) * lanes;
            for vector in 0..block.vectors {
                let mut sum = S::splat(0.0);
                for parts in parts.clone() {
                    sum = S::add(sum, S::load(parts[place + vector * S::LANES..][..S::LANES].as_ptr()));
                }
                S::store(sums[vector * S::LANES..][..S::LANES].as_mut_ptr(), sum);
            }
            let to = w.add(at.start + block.start * at.output + channel * at.channel + offset);
            for (lane, sum) in sums.iter().enumerate().take(block.count) {
                *to.add(lane * at.output) = *sum;
            }
        }
    }
}
