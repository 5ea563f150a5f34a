//! Normalization by the root of the mean square.
//!
//! Forward:  `y = x r scale`, `r = 1 / sqrt(mean(x^2) + epsilon)` of each row.
//! Backward: `g = dy scale`, `dx = r (g - x r^2 mean(g x))`, `dscale = sum over rows of dy x r`.
//! Shapes:   x, y `[rows, width]`, scale `[width]`, inv_rms (r) `[rows]`.

use crate::exec::Exec;
use crate::lanes::{by_rows, each, get, partial, put};
use crate::pool::Shared;
use crate::simd::{Simd, Task, dispatch_at};
use std::ops::Range;

struct Forward<'a> {
    rows: Range<usize>,
    width: usize,
    x: &'a [f32],
    scale: Option<&'a [f32]>,
    epsilon: f32,
    y: Shared<f32>,
    inv_rms: Shared<f32>,
}

#[inline(always)]
unsafe fn factors<S: Simd>(scale: Option<&[f32]>, at: usize, count: usize) -> S::V {
    match scale {
        Some(scale) => get::<S>(scale.as_ptr(), at, count),
        None => S::splat(1.0),
    }
}

impl Task for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Forward { rows, width, x, scale, epsilon, y, inv_rms } = self;
        for row in rows {
            // SAFETY: the lengths were checked; every row belongs to one task.
            unsafe {
                let x = x.as_ptr().add(row * width);
                let y = y.part(row * width, width).as_mut_ptr();
                let mut squares = S::splat(0.0);
                each!(S, width, |at, count| {
                    let x = get::<S>(x, at, count);
                    squares = S::fma(x, x, squares);
                });
                let factor = 1.0 / (S::sum(squares) / width as f32 + epsilon).sqrt();
                let by = S::splat(factor);
                each!(S, width, |at, count| {
                    let n = S::mul(get::<S>(x, at, count), by);
                    put::<S>(y, at, count, S::mul(n, factors::<S>(scale, at, count)));
                });
                inv_rms.part(row, 1)[0] = factor;
            }
        }
    }
}

/// Computes y and r.
///
/// # Panics
/// When the lengths do not fit.
pub fn forward(
    exec: Exec<'_>,
    width: usize,
    x: &[f32],
    scale: Option<&[f32]>,
    epsilon: f32,
    y: &mut [f32],
    inv_rms: &mut [f32],
) {
    let rows = inv_rms.len();
    assert!(rows.checked_mul(width) == Some(x.len()) && y.len() == x.len(), "whole rows");
    assert!(scale.is_none_or(|scale| scale.len() == width), "whole rows");
    let (y, inv_rms) = (Shared::of(y), Shared::of(inv_rms));
    by_rows(exec.pool, rows, width, &|rows| {
        dispatch_at(exec.level, Forward { rows, width, x, scale, epsilon, y, inv_rms });
    });
}

struct Backward<'a> {
    rows: Range<usize>,
    width: usize,
    x: &'a [f32],
    scale: Option<&'a [f32]>,
    inv_rms: &'a [f32],
    dy: &'a [f32],
    dx: Option<Shared<f32>>,
    dscale: &'a mut [f32],
}

impl Task for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Backward { rows, width, x, scale, inv_rms, dy, dx, dscale } = self;
        let dscale = dscale.as_mut_ptr();
        for row in rows {
            // SAFETY: the lengths were checked; every row belongs to one task.
            unsafe {
                let (x, dy) = (x.as_ptr().add(row * width), dy.as_ptr().add(row * width));
                let r = S::splat(inv_rms[row]);
                let mut moment = S::splat(0.0);
                each!(S, width, |at, count| {
                    let product = S::mul(S::mul(get::<S>(dy, at, count), get::<S>(x, at, count)), r);
                    put::<S>(dscale, at, count, S::add(get::<S>(dscale, at, count), product));
                    moment = S::fma(product, factors::<S>(scale, at, count), moment);
                });
                let Some(dx) = dx else { continue };
                let dx = dx.part(row * width, width).as_mut_ptr();
                let along = S::mul(S::splat(S::sum(moment) / width as f32), r);
                each!(S, width, |at, count| {
                    let g = S::mul(get::<S>(dy, at, count), factors::<S>(scale, at, count));
                    let rest = S::sub(g, S::mul(get::<S>(x, at, count), along));
                    put::<S>(dx, at, count, S::mul(rest, r));
                });
            }
        }
    }
}

/// Computes the gradients; that of the input only where it is wanted.
///
/// # Panics
/// When the lengths do not fit.
#[allow(clippy::too_many_arguments)]
pub fn backward(
    exec: Exec<'_>,
    x: &[f32],
    scale: Option<&[f32]>,
    inv_rms: &[f32],
    dy: &[f32],
    dx: Option<&mut [f32]>,
    dscale: &mut [f32],
) {
    let (rows, width) = (inv_rms.len(), dscale.len());
    assert!(rows.checked_mul(width) == Some(x.len()) && dy.len() == x.len(), "whole rows");
    assert!(scale.is_none_or(|scale| scale.len() == width), "whole rows");
    assert!(dx.as_ref().is_none_or(|dx| dx.len() == x.len()), "whole rows");
    let dx = dx.map(Shared::of);
    partial(exec, rows, width, width, dscale, &|rows, dscale| {
        dispatch_at(exec.level, Backward { rows, width, x, scale, inv_rms, dy, dx, dscale });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, numbers};

    #[test]
    fn values_and_gradients() {
        for (rows, width) in [(1, 3), (3, 4), (5, 17), (300, 256), (2, 5000), (0, 3)] {
            let (x, dy, scale) = (numbers(rows * width, 1, 2.0), numbers(rows * width, 2, 1.0), numbers(width, 3, 1.0));
            for scale in [None, Some(scale.as_slice())] {
                let by = |at: usize| scale.map_or(1.0, |scale| f64::from(scale[at]));
                let (mut y, mut r, mut dx, mut dscale) = (Vec::new(), Vec::new(), Vec::new(), vec![0.0; width]);
                for (x, dy) in x.chunks(width).zip(dy.chunks(width)) {
                    let (x, dy): (Vec<f64>, Vec<f64>) = (widened(x), widened(dy));
                    let own = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / width as f64 + 0.01).sqrt();
                    let moment = (0..width).map(|at| dy[at] * by(at) * x[at]).sum::<f64>() / width as f64;
                    for at in 0..width {
                        y.push(x[at] * own * by(at));
                        dx.push(own * (dy[at] * by(at) - x[at] * own * own * moment));
                        dscale[at] += dy[at] * x[at] * own;
                    }
                    r.push(own);
                }
                let narrow: Vec<f32> = r.iter().map(|r| *r as f32).collect();
                check("forward", &[y, r].concat(), 2e-6, |exec| {
                    let (mut y, mut r) = (vec![9.0; x.len()], vec![9.0; rows]);
                    forward(exec, width, &x, scale, 0.01, &mut y, &mut r);
                    [y, r].concat()
                });
                check("dx", &dx, 3e-6, |exec| {
                    let (mut dx, mut dscale) = (vec![9.0; x.len()], vec![9.0; width]);
                    backward(exec, &x, scale, &narrow, &dy, Some(&mut dx), &mut dscale);
                    dx
                });
                check("dscale", &dscale, 3e-6, |exec| {
                    let mut dscale = vec![9.0; width];
                    backward(exec, &x, scale, &narrow, &dy, None, &mut dscale);
                    dscale
                });
            }
        }
    }

    fn widened(values: &[f32]) -> Vec<f64> {
        values.iter().map(|value| f64::from(*value)).collect()
    }
}
