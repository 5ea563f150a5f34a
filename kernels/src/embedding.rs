//! The gradient of rows taken from a table.
//!
//! `dw[indices[q]] += dy[q]` in the order of q, from zeros; negative indices count from the end, others are not rows
//! and add nothing.
//! Shapes: dw `[rows, width]`, dy `[indices, width]`.

use crate::exec::Exec;
use crate::pool::{Shared, split};
use crate::simd::{Simd, Task, dispatch_at};
use std::ops::Range;

/// An index of a file's dtype.
pub trait Index: Copy + Sync {
    /// Returns it as a number.
    fn number(self) -> i64;
}

impl Index for i64 {
    fn number(self) -> i64 {
        self
    }
}

impl Index for i32 {
    fn number(self) -> i64 {
        i64::from(self)
    }
}

struct Part<'a> {
    rows: Range<usize>,
    width: usize,
    /// Which row each line of dy goes to, ordered by row.
    places: &'a [(usize, usize)],
    dy: &'a [f32],
    dw: &'a mut [f32],
}

impl Task for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Part { rows, width, places, dy, dw } = self;
        dw.fill(0.0);
        for (row, line) in places {
            let dw = &mut dw[(row - rows.start) * width..][..width];
            dw.iter_mut().zip(&dy[line * width..][..width]).for_each(|(dw, dy)| *dw += dy);
        }
    }
}

/// Computes dw.
///
/// # Panics
/// When the lengths do not fit.
pub fn backward<I: Index>(exec: Exec<'_>, width: usize, indices: &[I], dy: &[f32], dw: &mut [f32]) {
    assert!(indices.len().checked_mul(width) == Some(dy.len()), "a line of each index");
    assert!(width == 0 || dw.len().is_multiple_of(width), "whole rows");
    let rows = dw.len().checked_div(width).unwrap_or(0);
    let place = |(line, index): (usize, &I)| {
        let index = index.number();
        let row = usize::try_from(if index < 0 { index + rows as i64 } else { index }).ok()?;
        (row < rows).then_some((row, line))
    };
    let mut places: Vec<(usize, usize)> = indices.iter().enumerate().filter_map(place).collect();
    places.sort_unstable();
    let count = (dw.len() >> 14).clamp(1, 256).min(rows.max(1));
    let dw = Shared::of(dw);
    exec.pool.run(count, &|index| {
        let rows = split(rows, 1, count, index);
        let from = places.partition_point(|(row, _)| *row < rows.start);
        let to = places.partition_point(|(row, _)| *row < rows.end);
        // SAFETY: every row belongs to one task.
        let dw = unsafe { dw.part(rows.start * width, rows.len() * width) };
        dispatch_at(exec.level, Part { rows, width, places: &places[from..to], dy, dw });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, numbers};

    #[test]
    fn sums() {
        for (rows, width, count) in [(1, 1, 3), (5, 7, 40), (3000, 32, 500), (2, 3000, 9), (0, 3, 0)] {
            let dy = numbers(count * width, 1, 1.0);
            let indices: Vec<i64> =
                (0..count as i64).map(|at| at * 7919 % (2 * rows as i64 + 1) - rows as i64).collect();
            let mut expected = vec![0.0; rows * width];
            for (line, index) in indices.iter().enumerate() {
                let row = if *index < 0 { index + rows as i64 } else { *index } as usize;
                if row < rows {
                    (0..width).for_each(|at| expected[row * width + at] += f64::from(dy[line * width + at]));
                }
            }
            check("int64", &expected, 1e-6, |exec| {
                let mut dw = vec![9.0; rows * width];
                backward(exec, width, &indices, &dy, &mut dw);
                dw
            });
            let narrow: Vec<i32> = indices.iter().map(|index| *index as i32).collect();
            check("int32", &expected, 1e-6, |exec| {
                let mut dw = vec![9.0; rows * width];
                backward(exec, width, &narrow, &dy, &mut dw);
                dw
            });
        }
    }
}
