//! How the rows of an image batch are divided: whole images or parts of them.

use std::ops::Range;

/// Elements of a stripe where the weights are small: half of a first-level cache.
const NEAR: usize = 5 << 10;
/// Elements of a stripe where they are not: part of a second-level cache.
const FAR: usize = 40 << 10;

/// Stripes of rows of several images, or of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stripes {
    batch: usize,
    /// Images of a stripe.
    pub(super) images: usize,
    /// Parts of an image.
    pub(super) blocks: usize,
}

impl Stripes {
    /// Returns stripes that fit a cache beside the weights.
    ///
    /// `row` are the elements read for an output row, `rows` an image's output rows, and `most` the most
    /// images that a stripe may have.
    pub(super) fn new(batch: usize, rows: usize, row: usize, weights: usize, most: usize) -> Stripes {
        let budget = if weights <= NEAR { NEAR } else { FAR };
        let fit = (budget / row.max(1)).max(1);
        if fit >= rows {
            Stripes { batch, images: (fit / rows.max(1)).clamp(1, most.max(1)), blocks: 1 }
        } else {
            Stripes { batch, images: 1, blocks: rows.div_ceil(fit) }
        }
    }

    /// Returns the number of stripes.
    pub(super) fn count(&self) -> usize {
        self.batch.div_ceil(self.images) * self.blocks
    }

    /// Returns the images of a stripe, and which of their blocks.
    pub(super) fn get(&self, index: usize) -> (Range<usize>, usize) {
        let start = index / self.blocks * self.images;
        (start..(start + self.images).min(self.batch), index % self.blocks)
    }
}
