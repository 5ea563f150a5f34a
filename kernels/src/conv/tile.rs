//! The inner loop of a correlation: some pixels times a block of outputs, in registers.

use super::pack::VECTORS;
use crate::simd::{Simd, Task};

/// Where the operands of a tile lie. Distances are in elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operands {
    /// The first input of the first pixel.
    pub(super) x: *const f32,
    pub(super) x_row: usize,
    pub(super) x_pixel: usize,
    /// A window is `runs[0]` times `runs[1]` runs of `run` elements, `steps` apart.
    pub(super) runs: [usize; 2],
    pub(super) steps: [usize; 2],
    pub(super) run: usize,
    /// Packed weights.
    pub(super) w: *const f32,
    /// What the sums start from: whole vectors.
    pub(super) bias: *const f32,
    pub(super) y: *mut f32,
    pub(super) y_row: usize,
    pub(super) y_pixel: usize,
    /// Outputs that exist.
    pub(super) count: usize,
}

/// `R` rows of `Q` pixels by `V` vectors.
struct Tile<'a, const R: usize, const Q: usize, const V: usize>(&'a Operands);

impl<const R: usize, const Q: usize, const V: usize> Task for Tile<'_, R, Q, V> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let at = self.0;
        // SAFETY: the caller of `tile` vouches for the operands.
        unsafe {
            let mut sums = [[[S::splat(0.0); V]; Q]; R];
            for row in sums.iter_mut() {
                for pixel in row.iter_mut() {
                    for (v, sum) in pixel.iter_mut().enumerate() {
                        *sum = S::load(at.bias.add(v * S::LANES));
                    }
                }
            }
            let mut w = at.w;
            let pixel = at.x_pixel;
            for a in 0..at.runs[0] {
                for b in 0..at.runs[1] {
                    let start = at.x.add(a * at.steps[0] + b * at.steps[1]);
                    // One pointer for four pixels: three more lie at multiples of one distance.
                    let mut x = [[start; 4]; R];
                    for (row, x) in x.iter_mut().enumerate() {
                        for (group, x) in x.iter_mut().enumerate() {
                            *x = start.add(row * at.x_row + group * 4 * pixel);
                        }
                    }
                    for _ in 0..at.run {
                        let weights: [S::V; V] = std::array::from_fn(|v| S::load(w.add(v * S::LANES)));
                        w = w.add(V * S::LANES);
                        for (row, x) in sums.iter_mut().zip(&x) {
                            for (index, sums) in row.iter_mut().enumerate() {
                                let value = S::splat(*x[index / 4].add(index % 4 * pixel));
                                for (sum, weight) in sums.iter_mut().zip(&weights) {
                                    *sum = S::fma(value, *weight, *sum);
                                }
                            }
                        }
                        for x in x.iter_mut() {
                            for x in x.iter_mut() {
                                *x = x.add(1);
                            }
                        }
                    }
                }
            }
            for (row, sums) in sums.iter().enumerate() {
                for (index, sums) in sums.iter().enumerate() {
                    let y = at.y.add(row * at.y_row + index * at.y_pixel);
                    for (v, sum) in sums.iter().enumerate() {
                        if at.count >= (v + 1) * S::LANES {
                            S::store(y.add(v * S::LANES), *sum);
                        } else {
                            S::store_first(y.add(v * S::LANES), at.count - v * S::LANES, *sum);
                        }
                    }
                }
            }
        }
    }
}

/// Returns the most pixels of a tile.
#[inline(always)]
pub(super) fn pixels<S: Simd>(vectors: usize) -> usize {
    match vectors {
        VECTORS => (S::REGISTERS - VECTORS - 1) / VECTORS,
        _ => (S::REGISTERS - 2).min(16),
    }
}

/// Returns rows and columns of the tiles for rows of `width` pixels.
#[inline(always)]
pub(super) fn shape<S: Simd>(vectors: usize, width: usize) -> (usize, usize) {
    let most = pixels::<S>(vectors);
    let columns = width.div_ceil(width.div_ceil(most));
    let rows = if columns <= 4 && 4 * columns <= most {
        4
    } else if columns <= 8 && 2 * columns <= most {
        2
    } else {
        1
    };
    (rows, columns)
}

macro_rules! choose {
    ($set:ty, $vectors:literal, $size:expr, $at:expr, $($rows:literal: $($columns:literal)*;)*) => {
        match $size {
            $($(($rows, $columns) => <$set>::outline(Tile::<$rows, $columns, $vectors>($at)),)*)*
            (rows, columns) => unreachable!("a tile of {rows} x {columns} pixels"),
        }
    };
}

/// Computes a tile of `rows` (1, 2 or 4) times `columns` pixels by a block of `vectors` vectors.
///
/// # Safety
/// The instruction set is there; everything that the operands say lies inside their slices, and no
/// other thread writes these outputs.
#[inline(always)]
pub(super) unsafe fn tile<S: Simd>(vectors: usize, rows: usize, columns: usize, at: &Operands) {
    match vectors {
        VECTORS => choose!(S, 2, (rows, columns), at,
            1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14; 2: 1 2 3 4 5 6 7; 4: 1 2 3;),
        _ => choose!(S, 1, (rows, columns), at,
            1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; 2: 1 2 3 4 5 6 7 8; 4: 1 2 3 4;),
    }
}
