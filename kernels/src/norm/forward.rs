//! Statistics, and what is normalized with them.

use super::{Moments, Normalization, Statistics};
use crate::activation::{Activate, with_activation};
use crate::exec::Exec;
use crate::fold::{Columns, Fold, columns, load, store};
use crate::pool::Shared;
use crate::simd::{Simd, Task, dispatch_at};

/// Computes the statistics of the rows, per channel.
///
/// Sums are taken in blocks, each relative to a mean of its own rows, and blocks are combined in
/// `f64`: a mean that is large against the standard deviation costs nothing.
///
/// # Panics
/// When a slice has the wrong length.
pub fn statistics(exec: Exec<'_>, rows: usize, channels: usize, x: &[f32], epsilon: f32, out: &mut Statistics<'_>) {
    moments(exec, rows, channels, x).finish(epsilon, out);
}

/// Computes the moments of the rows, per channel.
///
/// # Panics
/// When `x` has not `rows * channels` elements.
pub fn moments(exec: Exec<'_>, rows: usize, channels: usize, x: &[f32]) -> Moments {
    assert_eq!(Some(x.len()), rows.checked_mul(channels), "x has {rows} rows of {channels} channels");
    let mut total = Moments::new(channels);
    if x.is_empty() {
        return total;
    }
    let fold = Fold::new(rows, channels);
    let mut parts: Vec<Option<Moments>> = (0..fold.parts()).map(|_| None).collect();
    let shared = Shared::of(&mut parts);
    exec.pool.run(fold.parts(), &|part| {
        let found = dispatch_at(exec.level, MomentsOf { fold, x, part });
        // SAFETY: every part has its own element.
        unsafe { shared.part(part, 1)[0] = Some(found) };
    });
    for (part, wide) in parts.iter().enumerate() {
        if let Some(wide) = wide {
            total.merge_folded(wide, fold.rows_of(part), fold.rest_of(part));
        }
    }
    total
}

struct MomentsOf<'a> {
    fold: Fold,
    x: &'a [f32],
    part: usize,
}

impl Task for MomentsOf<'_> {
    type Output = Moments;

    #[inline(always)]
    fn run<S: Simd>(self) -> Moments {
        let width = self.fold.width;
        let mut found = Moments::new(width);
        let mut buffer = vec![0.0; 3 * width];
        let (shift, sums) = buffer.split_at_mut(width);
        let (sums, squares) = sums.split_at_mut(width);
        for index in 0..self.fold.blocks(self.part) {
            let block = self.fold.block(self.part, index);
            let mut work = ShiftedSums {
                x: &self.x[block.start..],
                rows: block.rows,
                stride: width,
                shift: shift.as_mut_ptr(),
                sums: sums.as_mut_ptr(),
                squares: squares.as_mut_ptr(),
            };
            // SAFETY: the block lies in x, the buffers have `width` elements.
            unsafe { columns::<S>(block.width, &mut work) };
            found.add(block.rows, &shift[..block.width], &sums[..block.width], &squares[..block.width]);
        }
        found
    }
}

struct ShiftedSums<'a> {
    x: &'a [f32],
    rows: usize,
    stride: usize,
    shift: *mut f32,
    sums: *mut f32,
    squares: *mut f32,
}

/// Of so many rows one is looked at for the shift. The mean of `n / 8` of `n` values lies within
/// `sqrt(8)` standard deviations of the mean of all.
const SAMPLE: usize = 8;

impl Columns for ShiftedSums<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const G: usize, const FULL: bool>(&mut self, at: usize, count: usize) {
        let from = self.x.as_ptr().add(at);
        let mut shift = [S::splat(0.0); G];
        for row in (0..self.rows).step_by(SAMPLE) {
            for (group, shift) in shift.iter_mut().enumerate() {
                *shift = S::add(*shift, load::<S, FULL>(from.add(row * self.stride + group * S::LANES), count));
            }
        }
        let share = S::splat(1.0 / self.rows.div_ceil(SAMPLE) as f32);
        for shift in &mut shift {
            *shift = S::mul(*shift, share);
        }
        let mut sums = [S::splat(0.0); G];
        let mut squares = [S::splat(0.0); G];
        for row in 0..self.rows {
            for group in 0..G {
                let x = load::<S, FULL>(from.add(row * self.stride + group * S::LANES), count);
                let distance = S::sub(x, shift[group]);
                sums[group] = S::add(sums[group], distance);
                squares[group] = S::fma(distance, distance, squares[group]);
            }
        }
        for group in 0..G {
            let at = at + group * S::LANES;
            store::<S, FULL>(self.shift.add(at), count, shift[group]);
            store::<S, FULL>(self.sums.add(at), count, sums[group]);
            store::<S, FULL>(self.squares.add(at), count, squares[group]);
        }
    }
}

/// Normalizes with given statistics: `y = activation(scale (x - mean) inv_std + bias + residual)`.
///
/// # Panics
/// When a slice has the wrong length.
pub fn apply(
    exec: Exec<'_>,
    norm: &Normalization<'_>,
    x: &[f32],
    mean: &[f32],
    inv_std: &[f32],
    residual: Option<&[f32]>,
    y: &mut [f32],
) {
    norm.check();
    let elements = norm.rows * norm.channels;
    assert!(x.len() == elements && y.len() == elements, "x and y have {elements} elements");
    assert!(residual.is_none_or(|residual| residual.len() == elements), "the residual has {elements} elements");
    assert!([mean.len(), inv_std.len()] == [norm.channels; 2], "statistics have {} channels", norm.channels);
    if elements == 0 {
        return;
    }
    let fold = Fold::new(norm.rows, norm.channels);
    let factor = fold.spread(|channel| norm.scale[channel] * inv_std[channel]);
    let mean = fold.spread(|channel| mean[channel]);
    let bias = fold.spread(|channel| norm.bias[channel]);
    let y = Shared::of(y);
    let parts = fold.parts();
    exec.pool.run(parts, &|index| {
        // The last part was read last and may still be in a cache.
        let part = parts - 1 - index;
        for block in (0..fold.blocks(part)).rev().map(|index| fold.block(part, index)) {
            let elements = (block.rows - 1) * fold.width + block.width;
            // SAFETY: every block has its own rows.
            let y = unsafe { y.part(block.start, elements) };
            let x = &x[block.start..block.start + elements];
            let residual = residual.map(|residual| &residual[block.start..block.start + elements]);
            with_activation!(norm.activation, activation => {
                let (mean, factor, bias) = (&mean, &factor, &bias);
                let (rows, stride, width) = (block.rows, fold.width, block.width);
                dispatch_at(exec.level, Apply { x, residual, y, rows, stride, width, mean, factor, bias, activation });
            });
        }
    });
}

struct Apply<'a, A> {
    x: &'a [f32],
    residual: Option<&'a [f32]>,
    y: &'a mut [f32],
    rows: usize,
    stride: usize,
    width: usize,
    mean: &'a [f32],
    factor: &'a [f32],
    bias: &'a [f32],
    activation: A,
}

impl<A: Activate> Task for Apply<'_, A> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self) {
        // SAFETY: the slices hold `rows` rows of `width` elements, the parameters one row.
        unsafe { columns::<S>(self.width, &mut self) };
    }
}

impl<A: Activate> Columns for Apply<'_, A> {
    #[inline(always)]
    unsafe fn run<S: Simd, const G: usize, const FULL: bool>(&mut self, at: usize, count: usize) {
        let row_of = |values: &[f32]| -> [S::V; G] {
            std::array::from_fn(|group| load::<S, FULL>(values.as_ptr().add(at + group * S::LANES), count))
        };
        let (mean, factor, bias) = (row_of(self.mean), row_of(self.factor), row_of(self.bias));
        for row in 0..self.rows {
            let start = row * self.stride + at;
            let mut values = [S::splat(0.0); G];
            for group in 0..G {
                let x = load::<S, FULL>(self.x.as_ptr().add(start + group * S::LANES), count);
                values[group] = S::fma(S::sub(x, mean[group]), factor[group], bias[group]);
            }
            if let Some(residual) = self.residual {
                for (group, value) in values.iter_mut().enumerate() {
                    let residual = load::<S, FULL>(residual.as_ptr().add(start + group * S::LANES), count);
                    *value = S::add(*value, residual);
                }
            }
            for (group, value) in values.into_iter().enumerate() {
                let y = self.activation.of::<S>(value);
                store::<S, FULL>(self.y.as_mut_ptr().add(start + group * S::LANES), count, y);
            }
        }
    }
}
