//! Sums over the rows of a matrix: the gradient of a bias.
//!
//! Shapes: x `[rows, width]`, sums `[width]`. Rows are added in f32 within a task, tasks in order.

use crate::exec::Exec;
use crate::lanes::{each, get, put, tasks};
use crate::pool::{Shared, split};
use crate::simd::{Simd, Task, dispatch_at};
use std::ops::Range;

/// Partial sums that a kernel makes at most.
pub(crate) const PARTS: usize = 32;

struct Part<'a> {
    rows: Range<usize>,
    width: usize,
    x: &'a [f32],
    sums: &'a mut [f32],
}

impl Task for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Part { rows, width, x, sums } = self;
        let sums = sums.as_mut_ptr();
        let mut row = rows.start;
        while row < rows.end {
            // SAFETY: the lengths were checked.
            unsafe {
                let x = x.as_ptr().add(row * width);
                if row + 4 <= rows.end {
                    each!(S, width, |at, count| {
                        let [a, b, c, d] = [0, 1, 2, 3].map(|row| get::<S>(x.add(row * width), at, count));
                        let sum = get::<S>(sums, at, count);
                        put::<S>(sums, at, count, S::add(sum, S::add(S::add(a, b), S::add(c, d))));
                    });
                    row += 4;
                } else {
                    each!(S, width, |at, count| {
                        let sum = S::add(get::<S>(sums, at, count), get::<S>(x, at, count));
                        put::<S>(sums, at, count, sum);
                    });
                    row += 1;
                }
            }
        }
    }
}

/// Computes the sums.
///
/// # Panics
/// When the lengths do not fit.
pub fn sum_rows(exec: Exec<'_>, width: usize, x: &[f32], sums: &mut [f32]) {
    assert!(sums.len() == width && (width == 0 || x.len() % width == 0), "whole rows");
    if width == 0 {
        return;
    }
    let rows = x.len() / width;
    partial(exec, rows, width, width, sums, &|rows, sums| {
        dispatch_at(exec.level, Part { rows, width, x, sums });
    });
}

/// Calls `task` with ranges of rows and zeros of `len` each, and writes the sum of what they leave.
pub(crate) fn partial(
    exec: Exec<'_>,
    rows: usize,
    width: usize,
    len: usize,
    sums: &mut [f32],
    task: &(dyn Fn(Range<usize>, &mut [f32]) + Sync),
) {
    let count = tasks(rows, width, PARTS);
    let mut parts = vec![0.0_f32; count * len];
    let shared = Shared::of(&mut parts);
    // SAFETY: every task has a part of its own.
    exec.pool.run(count, &|index| task(split(rows, 1, count, index), unsafe { shared.part(index * len, len) }));
    let (first, rest) = parts.split_at(len);
    sums.copy_from_slice(first);
    for part in rest.chunks_exact(len.max(1)) {
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, numbers};

    #[test]
    fn sums() {
        for (rows, width) in [(1, 1), (7, 3), (1030, 17), (2000, 256), (3, 5000), (0, 4)] {
            let x = numbers(rows * width, 1, 2.0);
            let sum = |column: usize| x.iter().skip(column).step_by(width).map(|x| f64::from(*x)).sum();
            check("sums", &(0..width).map(sum).collect::<Vec<_>>(), 2e-6, |exec| {
                let mut sums = vec![9.0; width];
                sum_rows(exec, width, &x, &mut sums);
                sums
            });
        }
    }
}
