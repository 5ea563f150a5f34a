//! Dropout whose random numbers are products of one number of the row and one of the column.
//!
//! `y = 0` where `(r[i] c[j] mod 2^32) < least`, else `x factor`. The gradient is the same function of dy.
//! Shapes: x, y `[rows, columns]`, r `[rows]`, c `[columns]`.

use crate::exec::Exec;
use crate::lanes::by_rows;
use crate::pool::Shared;
use crate::simd::{Simd, Task, dispatch_at};
use std::ops::Range;

/// Returns `2^32` times the ratio, below which an element is dropped.
pub fn least(ratio: f64) -> u64 {
    (ratio.clamp(0.0, 1.0) * 4_294_967_296.0) as u64
}

struct Part<'a> {
    rows: Range<usize>,
    r: &'a [i64],
    c: &'a [u32],
    least: u32,
    factor: f32,
    x: &'a [f32],
    y: Shared<f32>,
}

impl Task for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Part { rows, r, c, least, factor, x, y } = self;
        let columns = c.len();
        for row in rows {
            let own = r[row] as u32;
            // SAFETY: the lengths were checked; every row belongs to one task.
            let y = unsafe { y.part(row * columns, columns) };
            for ((y, x), c) in y.iter_mut().zip(&x[row * columns..]).zip(c) {
                let kept = x * factor;
                *y = if own.wrapping_mul(*c) < least { 0.0 } else { kept };
            }
        }
    }
}

/// Computes y.
///
/// # Panics
/// When the lengths do not fit.
pub fn dropout(exec: Exec<'_>, r: &[i64], c: &[i64], least: u64, factor: f32, x: &[f32], y: &mut [f32]) {
    assert!(r.len().checked_mul(c.len()) == Some(x.len()) && y.len() == x.len(), "whole rows");
    let Ok(least) = u32::try_from(least) else {
        y.fill(0.0);
        return;
    };
    let narrow: Vec<u32> = c.iter().map(|c| *c as u32).collect();
    let (c, y) = (narrow.as_slice(), Shared::of(y));
    by_rows(exec.pool, r.len(), c.len(), &|rows| {
        dispatch_at(exec.level, Part { rows, r, c, least, factor, x, y });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, numbers};

    #[test]
    fn values() {
        for (rows, columns, ratio) in [(1, 1, 0.5), (7, 13, 0.1), (300, 128, 0.3), (4, 5, 0.0), (4, 5, 1.0)] {
            let x = numbers(rows * columns, 1, 1.0);
            let odd = |count: usize, salt: i64| -> Vec<i64> {
                (0..count as i64).map(|at| ((at + salt) * 1_103_515_245 % 2_147_483_647) | 1).collect()
            };
            let (r, c) = (odd(rows, 5), odd(columns, 77));
            let factor = if ratio < 1.0 { (1.0 / (1.0 - ratio)) as f32 } else { 0.0 };
            let value = |at: usize| {
                let bits = (i128::from(r[at / columns]) * i128::from(c[at % columns])) & 0xffff_ffff;
                if (bits as f64) < ratio * 4_294_967_296.0 { 0.0 } else { f64::from(x[at] * factor) }
            };
            let expected: Vec<f64> = (0..x.len()).map(value).collect();
            check("dropout", &expected, 0.0, |exec| {
                let mut y = vec![9.0; x.len()];
                dropout(exec, &r, &c, least(ratio), factor, &x, &mut y);
                y
            });
        }
    }
}
