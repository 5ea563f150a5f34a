//! The inner loop of the gradient of the weights: some elements of a window times a block of outputs,
//! summed over pixels, in registers.

use super::pack::VECTORS;
use crate::simd::{Simd, Task};

/// Where the operands lie. Distances are in elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operands {
    /// The first element of the window of the first pixel.
    pub(super) x: *const f32,
    pub(super) x_image: usize,
    pub(super) x_row: usize,
    pub(super) x_pixel: usize,
    /// Gradients of the outputs: whole vectors.
    pub(super) dy: *const f32,
    pub(super) dy_image: usize,
    pub(super) dy_row: usize,
    pub(super) dy_pixel: usize,
    pub(super) images: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// `[elements, vectors]`: the sums are added to it.
    pub(super) dw: *mut f32,
}

/// `A` elements by `V` vectors.
struct Patch<'a, const A: usize, const V: usize>(&'a Operands);

impl<const A: usize, const V: usize> Task for Patch<'_, A, V> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let at = self.0;
        // SAFETY: the caller of `patch` vouches for the operands.
        unsafe {
            let place = |a: usize, v: usize| at.dw.add((a * V + v) * S::LANES);
            let mut sums: [[S::V; V]; A] = std::array::from_fn(|a| std::array::from_fn(|v| S::load(place(a, v))));
            for image in 0..at.images {
                for row in 0..at.rows {
                    let mut x = at.x.add(image * at.x_image + row * at.x_row);
                    let mut dy = at.dy.add(image * at.dy_image + row * at.dy_row);
                    for _ in 0..at.columns {
                        let gradients: [S::V; V] = std::array::from_fn(|v| S::load(dy.add(v * S::LANES)));
                        for (a, sums) in sums.iter_mut().enumerate() {
                            let value = S::splat(*x.add(a));
                            for (sum, gradient) in sums.iter_mut().zip(&gradients) {
                                *sum = S::fma(value, *gradient, *sum);
                            }
                        }
                        x = x.add(at.x_pixel);
                        dy = dy.add(at.dy_pixel);
                    }
                }
            }
            for (a, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    S::store(place(a, v), *sum);
                }
            }
        }
    }
}

/// Returns the most elements of a patch.
#[inline(always)]
pub(super) fn elements<S: Simd>(vectors: usize) -> usize {
    match vectors {
        VECTORS => (S::REGISTERS - VECTORS - 1) / VECTORS,
        _ => (S::REGISTERS - 2).min(16),
    }
}

macro_rules! choose {
    ($set:ty, $vectors:literal, $size:expr, $at:expr, $($elements:literal)*) => {
        match $size {
            $($elements => <$set>::outline(Patch::<$elements, $vectors>($at)),)*
            elements => unreachable!("a patch of {elements} elements"),
        }
    };
}

/// Adds the sums of `elements` elements by a block of `vectors` vectors.
///
/// # Safety
/// The instruction set is there; everything that the operands say lies inside their slices, and no
/// other thread uses these sums.
#[inline(always)]
pub(super) unsafe fn patch<S: Simd>(vectors: usize, elements: usize, at: &Operands) {
    match vectors {
        VECTORS => choose!(S, 2, elements, at, 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        _ => choose!(S, 1, elements, at, 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16),
    }
}
