//! How the rows of a tensor are shared out on a device.
//!
//! A row lies in the registers of a warp's or a block's threads from when it is read until it is written; rows that are
//! longer than that are read again by the block that has them. Elements are read and written 16 bytes at once where the
//! width is a multiple of them.

use super::super::gpu::{Arguments, Element, Gpu, Source};
use super::Array;

/// Threads of a block whose warps have rows of their own.
const WARPS: usize = 128;
/// Most threads of a block that has a row.
const BLOCK: usize = 512;
/// Blocks for each multiprocessor; with more rows than those have, they go on.
const BLOCKS: usize = 64;

/// Rows of one width.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    pub rows: usize,
    pub width: usize,
}

impl Rows {
    /// Returns those along the last axis.
    ///
    /// # Errors
    /// It is a scalar.
    pub(super) fn of(array: &Array) -> Result<Rows, String> {
        let (width, rest) = array.shape.split_last().ok_or("a scalar has no rows")?;
        Ok(Rows { rows: rest.iter().product(), width: *width })
    }

    /// Returns how many elements are read at once.
    pub(super) fn at_once(self, element: Element) -> usize {
        let many = 16 / element.size();
        if self.width.is_multiple_of(many) { many } else { 1 }
    }
}

/// Kernels for rows of every width: each alone, and with elements 16 bytes at once.
pub(super) struct Kernels {
    pub source: &'static Source,
    /// For a warp whose threads keep few elements.
    pub short: [&'static str; 2],
    /// For a warp.
    pub warp: [&'static str; 2],
    /// For a block.
    pub block: [&'static str; 2],
    /// For a block, of rows of any width.
    pub long: [&'static str; 2],
    /// Elements that a thread keeps in the first three.
    pub kept: [usize; 3],
}

impl Kernels {
    /// Starts the kernel for these rows.
    ///
    /// # Errors
    /// Those of the device.
    pub(super) fn start<A: Arguments>(
        &self,
        gpu: &dyn Gpu,
        element: Element,
        rows: Rows,
        arguments: &A,
    ) -> Result<(), String> {
        if rows.rows == 0 || rows.width == 0 {
            return Ok(());
        }
        let (names, block) = self.choose(rows.width);
        let many = rows.at_once(element);
        let block = block.unwrap_or_else(|kept| threads(rows.width / many, kept / many));
        let of_block = if block == WARPS && names != &self.block { WARPS / 32 } else { 1 };
        let blocks = rows.rows.div_ceil(of_block).min(gpu.processors() as usize * BLOCKS);
        gpu.blocks(self.source, names[usize::from(many > 1)], element, [blocks, 1], block, arguments)
    }

    /// Returns the kernels for a width and the threads of their blocks, or how many elements each of them keeps.
    fn choose(&self, width: usize) -> (&[&'static str; 2], Result<usize, usize>) {
        let [short, warp, block] = self.kept;
        match width {
            _ if width <= 32 * short => (&self.short, Ok(WARPS)),
            _ if width <= 32 * warp => (&self.warp, Ok(WARPS)),
            _ if width <= BLOCK * block => (&self.block, Err(block)),
            _ => (&self.long, Ok(BLOCK)),
        }
    }
}

/// Returns the threads of a block for so many pieces of work, of which each does `kept` at most.
pub(super) fn threads(work: usize, kept: usize) -> usize {
    work.div_ceil(kept).next_multiple_of(32)
}
