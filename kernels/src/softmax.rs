//! Softmax and its logarithm along the last axis.
//!
//! Forward:  `y = exp(x - m) / s`, or `y = x - m - ln(s)`; `m = max(x)`, `s = sum(exp(x - m))` of each row.
//! Backward: `dx = y (dy - sum(dy y))`, or `dx = dy - exp(y) sum(dy)`.
//! Shapes:   x, y `[rows, width]`.

use crate::exec::Exec;
use crate::lanes::{by_rows, each, get, get_or, put};
use crate::math::exp;
use crate::pool::Shared;
use crate::simd::{Simd, Task, dispatch_at};
use std::ops::Range;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Probabilities.
    Softmax,
    /// Their logarithms.
    LogSoftmax,
}

/// Returns the maximum of a row and the sum of `exp(x - maximum)`, which is written where it is wanted.
#[inline(always)]
pub(crate) unsafe fn summed<S: Simd>(x: *const f32, width: usize, out: Option<*mut f32>) -> (f32, f32) {
    let mut most = S::splat(f32::NEG_INFINITY);
    each!(S, width, |at, count| {
        most = S::max(get_or::<S>(x, at, count, f32::NEG_INFINITY), most);
    });
    let mut lanes = [f32::NEG_INFINITY; 64];
    S::store(lanes.as_mut_ptr(), most);
    let most = lanes.iter().fold(f32::NEG_INFINITY, |most, x| most.max(*x));
    let (center, mut sum) = (S::splat(most), S::splat(0.0));
    each!(S, width, |at, count| {
        let e = exp::<S>(S::sub(get_or::<S>(x, at, count, f32::NEG_INFINITY), center));
        sum = S::add(sum, e);
        if let Some(out) = out {
            put::<S>(out, at, count, e);
        }
    });
    (most, S::sum(sum))
}

struct Forward<'a> {
    kind: Kind,
    rows: Range<usize>,
    width: usize,
    x: &'a [f32],
    y: Shared<f32>,
}

impl Task for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Forward { kind, rows, width, x, y } = self;
        for row in rows {
            // SAFETY: the lengths were checked; every row belongs to one task.
            unsafe {
                let x = x.as_ptr().add(row * width);
                let y = y.part(row * width, width).as_mut_ptr();
                match kind {
                    Kind::Softmax => {
                        let (_, sum) = summed::<S>(x, width, Some(y));
                        let factor = S::splat(1.0 / sum);
                        each!(S, width, |at, count| {
                            put::<S>(y, at, count, S::mul(get::<S>(y, at, count), factor));
                        });
                    }
                    Kind::LogSoftmax => {
                        let (most, sum) = summed::<S>(x, width, None);
                        let (center, log) = (S::splat(most), S::splat(sum.ln()));
                        each!(S, width, |at, count| {
                            put::<S>(y, at, count, S::sub(S::sub(get::<S>(x, at, count), center), log));
                        });
                    }
                }
            }
        }
    }
}

struct Backward<'a> {
    kind: Kind,
    rows: Range<usize>,
    width: usize,
    y: &'a [f32],
    dy: &'a [f32],
    dx: Shared<f32>,
}

impl Task for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Backward { kind, rows, width, y, dy, dx } = self;
        for row in rows {
            // SAFETY: the lengths were checked; every row belongs to one task.
            unsafe {
                let (y, dy) = (y.as_ptr().add(row * width), dy.as_ptr().add(row * width));
                let dx = dx.part(row * width, width).as_mut_ptr();
                let mut sum = S::splat(0.0);
                each!(S, width, |at, count| {
                    let dy = get::<S>(dy, at, count);
                    sum = match kind {
                        Kind::Softmax => S::fma(dy, get::<S>(y, at, count), sum),
                        Kind::LogSoftmax => S::add(sum, dy),
                    };
                });
                let sum = S::splat(S::sum(sum));
                each!(S, width, |at, count| {
                    let (y, dy) = (get::<S>(y, at, count), get::<S>(dy, at, count));
                    let out = match kind {
                        Kind::Softmax => S::mul(y, S::sub(dy, sum)),
                        Kind::LogSoftmax => S::sub(dy, S::mul(exp::<S>(y), sum)),
                    };
                    put::<S>(dx, at, count, out);
                });
            }
        }
    }
}

fn rows(width: usize, len: usize) -> usize {
    assert!(width > 0 && len.is_multiple_of(width) || len == 0, "whole rows");
    len.checked_div(width).unwrap_or(0)
}

/// Computes y.
///
/// # Panics
/// When the lengths do not fit.
pub fn forward(exec: Exec<'_>, kind: Kind, width: usize, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "slices of one length");
    let rows = rows(width, x.len());
    let y = Shared::of(y);
    by_rows(exec.pool, rows, width, &|rows| dispatch_at(exec.level, Forward { kind, rows, width, x, y }));
}

/// Computes dx from y.
///
/// # Panics
/// When the lengths do not fit.
pub fn backward(exec: Exec<'_>, kind: Kind, width: usize, y: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert!(y.len() == dy.len() && y.len() == dx.len(), "slices of one length");
    let rows = rows(width, y.len());
    let dx = Shared::of(dx);
    by_rows(exec.pool, rows, width, &|rows| dispatch_at(exec.level, Backward { kind, rows, width, y, dy, dx }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, numbers};

    fn truth(kind: Kind, x: &[f32]) -> Vec<f64> {
        let most = x.iter().fold(f64::NEG_INFINITY, |most, x| most.max(f64::from(*x)));
        let sum: f64 = x.iter().map(|x| (f64::from(*x) - most).exp()).sum();
        let log = x.iter().map(|x| f64::from(*x) - most - sum.ln());
        if kind == Kind::LogSoftmax { log.collect() } else { log.map(f64::exp).collect() }
    }

    #[test]
    fn values_and_gradients() {
        for kind in [Kind::Softmax, Kind::LogSoftmax] {
            for (rows, width) in [(1, 1), (4, 5), (7, 65), (200, 128), (2, 3001), (0, 3)] {
                let (x, dy) = (numbers(rows * width, 1, 8.0), numbers(rows * width, 2, 1.0));
                let y: Vec<f64> = x.chunks(width).flat_map(|row| truth(kind, row)).collect();
                check("forward", &y, 1e-6, |exec| {
                    let mut y = vec![9.0; x.len()];
                    forward(exec, kind, width, &x, &mut y);
                    y
                });
                let mut dx = Vec::new();
                for (y, dy) in y.chunks(width).zip(dy.chunks(width)) {
                    let dy: Vec<f64> = dy.iter().map(|dy| f64::from(*dy)).collect();
                    let sum: f64 = match kind {
                        Kind::Softmax => y.iter().zip(&dy).map(|(y, dy)| y * dy).sum(),
                        Kind::LogSoftmax => dy.iter().sum(),
                    };
                    dx.extend(y.iter().zip(&dy).map(|(y, dy)| match kind {
                        Kind::Softmax => y * (dy - sum),
                        Kind::LogSoftmax => dy - y.exp() * sum,
                    }));
                }
                let narrow: Vec<f32> = y.iter().map(|y| *y as f32).collect();
                check("backward", &dx, 3e-6, |exec| {
                    let mut dx = vec![9.0; x.len()];
                    backward(exec, kind, width, &narrow, &dy, &mut dx);
                    dx
                });
            }
        }
    }

    #[test]
    fn masked_and_not_a_number() {
        let x = [0.0, f32::NEG_INFINITY, -1e9, 0.0, 1.0, f32::NAN, 2.0, 3.0];
        check("masked", &[0.5, 0.0, 0.0, 0.5, f64::NAN, f64::NAN, f64::NAN, f64::NAN], 1e-7, |exec| {
            let mut y = vec![9.0; 8];
            forward(exec, Kind::Softmax, 4, &x, &mut y);
            y
        });
    }
}
