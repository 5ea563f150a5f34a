//! A matrix `[rows, channels]`, read in rows wide enough for whole groups of vectors.

use crate::pool::split;
use crate::simd::Simd;

/// Elements that a group of four of the widest vectors has.
const GROUP: usize = 64;
const WIDEST: usize = 4096;
const BLOCK: usize = 16384;
const PART: usize = 32768;
const PARTS: usize = 64;

/// Several rows of a matrix taken as one; what is left of them is a last row, shorter.
///
/// All of it follows from the sizes alone, so that results do not depend on the threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fold {
    pub channels: usize,
    /// Elements of a wide row, a multiple of `channels`.
    pub width: usize,
    rows: usize,
    rest: usize,
}

/// Wide rows that are worked on together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    /// The first element.
    pub start: usize,
    pub rows: usize,
    /// Elements of each row that there are.
    pub width: usize,
}

impl Fold {
    pub fn new(rows: usize, channels: usize) -> Fold {
        let common = 1 << channels.trailing_zeros().min(GROUP.trailing_zeros());
        let times = GROUP / common;
        let times = if channels * times <= WIDEST { times } else { 1 };
        Fold { channels, width: channels * times, rows: rows / times, rest: rows % times * channels }
    }

    /// Returns into how many parts the rows are split.
    pub fn parts(&self) -> usize {
        (self.rows * self.width / PART).clamp(1, PARTS).min(self.rows.max(1))
    }

    /// Returns the number of whole wide rows in a part.
    pub fn rows_of(&self, part: usize) -> usize {
        split(self.rows, 1, self.parts(), part).len()
    }

    /// Returns the elements of the last, shorter row in a part.
    pub fn rest_of(&self, part: usize) -> usize {
        if part + 1 == self.parts() { self.rest } else { 0 }
    }

    fn block_rows(&self) -> usize {
        (BLOCK / self.width).clamp(16, 64)
    }

    /// Returns the number of blocks in a part.
    pub fn blocks(&self, part: usize) -> usize {
        self.rows_of(part).div_ceil(self.block_rows()) + usize::from(self.rest_of(part) > 0)
    }

    pub fn block(&self, part: usize, index: usize) -> Block {
        let range = split(self.rows, 1, self.parts(), part);
        let first = range.start + index * self.block_rows();
        if first >= range.end {
            return Block { start: self.rows * self.width, rows: 1, width: self.rest };
        }
        let rows = (range.end - first).min(self.block_rows());
        Block { start: first * self.width, rows, width: self.width }
    }

    /// Returns a value per channel as values of a wide row.
    pub fn spread(&self, values: impl Fn(usize) -> f32) -> Vec<f32> {
        let mut wide = Vec::with_capacity(self.width);
        wide.extend((0..self.channels).map(values));
        for _ in 1..self.width / self.channels {
            wide.extend_from_within(..self.channels);
        }
        wide
    }
}

/// What is done to some columns of a block.
pub(crate) trait Columns {
    /// Works on `G` vectors from column `at` on; where `!FULL`, `G` is 1 and the vector has `count`
    /// elements.
    unsafe fn run<S: Simd, const G: usize, const FULL: bool>(&mut self, at: usize, count: usize);
}

/// Works on all columns of a block.
///
/// # Safety
/// As `work` asks for columns below `width`.
#[inline(always)]
pub(crate) unsafe fn columns<S: Simd>(width: usize, work: &mut impl Columns) {
    let mut at = 0;
    while at + 4 * S::LANES <= width {
        work.run::<S, 4, true>(at, S::LANES);
        at += 4 * S::LANES;
    }
    while at < width {
        work.run::<S, 1, false>(at, (width - at).min(S::LANES));
        at += S::LANES;
    }
}

/// # Safety
/// The elements can be read: all lanes where `FULL`, else the first `count`.
#[inline(always)]
pub(crate) unsafe fn load<S: Simd, const FULL: bool>(from: *const f32, count: usize) -> S::V {
    if FULL { S::load(from) } else { S::load_first(from, count) }
}

/// # Safety
/// The elements can be written: all lanes where `FULL`, else the first `count`.
#[inline(always)]
pub(crate) unsafe fn store<S: Simd, const FULL: bool>(to: *mut f32, count: usize, v: S::V) {
    if FULL { S::store(to, v) } else { S::store_first(to, count, v) }
}
