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
    let start = at.start + block.start * at.output;
    let whole = if at.output == 1 || w.len() < S::LANES { 0 } else { block.count / S::LANES * S::LANES };
    let line = Line::new(at);
    let mut square = [0.0_f32; 256];
    for output in (0..whole).step_by(S::LANES) {
        for first in (0..at.channels).step_by(line.channels) {
            let source = start + output * at.output + first * at.channel;
            for done in (0..line.len()).step_by(S::LANES) {
                // What lies behind the end is not read: the square starts earlier.
                let last = source + done + (S::LANES - 1) * at.output + S::LANES;
                let skip = last.saturating_sub(w.len());
                if skip >= S::LANES || source + done < skip {
                    line.each(done, S::LANES, |element, channel, tap| {
                        let place = (tap * at.channels + first + channel) * lanes + output;
                        for lane in 0..S::LANES {
                            to[place + lane] = w[source + element + lane * at.output];
                        }
                    });
                    continue;
                }
                let from = &w[source + done - skip..];
                assert!(from.len() >= (S::LANES - 1) * at.output + S::LANES, "a square of weights");
                // SAFETY: this runs where `S` does; all rows lie inside `w`, and a square has 256 elements at most.
                unsafe { S::transpose(from.as_ptr(), at.output, square.as_mut_ptr(), S::LANES) };
                line.each(done, S::LANES - skip, |element, channel, tap| {
                    let place = (tap * at.channels + first + channel) * lanes + output;
                    let row = &square[(element - done + skip) * S::LANES..][..S::LANES];
                    // SAFETY: as above; both are whole vectors.
                    unsafe { S::store(to[place..place + S::LANES].as_mut_ptr(), S::load(row.as_ptr())) };
                });
            }
        }
    }
    for channel in 0..at.channels {
        for (tap, offset) in at.taps.iter().enumerate() {
            let source = start + channel * at.channel + offset;
            let to = &mut to[(tap * at.channels + channel) * lanes..][..lanes];
            if at.output == 1 && block.count == lanes {
                to.copy_from_slice(&w[source..source + lanes]);
                continue;
            }
            for output in whole..block.count {
                to[output] = w[source + output * at.output];
            }
            to[block.count..].fill(0.0);
        }
    }
}

/// Elements of the weights of one output that lie side by side: taps of some channels.
struct Line {
    channels: usize,
    /// Elements of a channel, and the number of the tap at each, if any.
    taps: Vec<Option<usize>>,
}

impl Line {
    fn new(at: &Weights<'_>) -> Line {
        let most = at.taps.iter().max().map_or(0, |tap| tap + 1);
        let joined = most <= at.channel && at.channel <= 2 * most;
        let mut taps = vec![None; if joined { at.channel } else { most }];
        for (number, tap) in at.taps.iter().enumerate() {
            taps[*tap] = Some(number);
        }
        Line { channels: if joined { at.channels } else { 1 }, taps }
    }

    fn len(&self) -> usize {
        self.channels * self.taps.len()
    }

    /// Calls `f(element, channel, tap)` for up to `count` elements from `start` on.
    #[inline(always)]
    fn each(&self, start: usize, count: usize, mut f: impl FnMut(usize, usize, usize)) {
        let (mut channel, mut place) = (start / self.taps.len(), start % self.taps.len());
        for element in start..self.len().min(start + count) {
            if let Some(tap) = self.taps[place] {
                f(element, channel, tap);
            }
            place += 1;
            if place == self.taps.len() {
                (channel, place) = (channel + 1, 0);
            }
        }
    }
}

/// Sums packed partial results, `start` in each of the `parts`, in their order, and writes them to the
/// places of the weights, where the taps of all channels lie side by side.
///
/// # Safety
/// The instruction set is there; no other thread writes the places of this block, and they lie inside `w`.
#[inline(always)]
pub(super) unsafe fn unpack<S: Simd>(
    w: *mut f32,
    parts: std::slice::ChunksExact<'_, f32>,
    start: usize,
    at: &Weights<'_>,
    block: Block,
) {
    let lanes = block.vectors * S::LANES;
    let area = at.taps.len();
    let len = at.channels * area;
    let w = w.add(at.start + block.start * at.output);
    let mut square = [0.0_f32; 256];
    for vector in 0..block.vectors {
        let first = vector * S::LANES;
        let count = (block.count - first).min(S::LANES);
        for done in (0..len).step_by(S::LANES) {
            let rows = S::LANES.min(len - done);
            for row in 0..rows {
                let (channel, tap) = ((done + row) / area, (done + row) % area);
                let place = start + (tap * at.channels + channel) * lanes + first;
                let mut sum = S::splat(0.0);
                for part in parts.clone() {
                    sum = S::add(sum, S::load(part[place..place + S::LANES].as_ptr()));
                }
                S::store(square[row * S::LANES..][..S::LANES].as_mut_ptr(), sum);
            }
            let to = w.add(first * at.output + done);
            if rows == S::LANES && count == S::LANES {
                S::transpose(square.as_ptr(), S::LANES, to, at.output);
                continue;
            }
            for lane in 0..count {
                for row in 0..rows {
                    *to.add(lane * at.output + row) = square[row * S::LANES + lane];
                }
            }
        }
    }
}
