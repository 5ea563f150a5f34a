//! Layer normalization.
//!
//! Forward:  `y = n scale + bias`, `n = (x - mean) inv_std`, with the mean and the biased variance of each row,
//!           `inv_std = 1 / sqrt(var + epsilon)`.
//! Backward: `g = dy scale`, `dx = inv_std (g - mean(g) - n mean(g n))`, `dscale = sum over rows of dy n`,
//!           `dbias = sum over rows of dy`.
//! Shapes:   x, y `[rows, width]`, scale, bias `[width]`, mean, inv_std `[rows]`.

use crate::exec::Exec;
use crate::lanes::{by_rows, each, get, partial, put};
use crate::pool::Shared;
use crate::simd::{Simd, Task, dispatch_at};
use std::ops::Range;

struct Forward<'a> {
    rows: Range<usize>,
    width: usize,
    x: &'a [f32],
    scale: &'a [f32],
    bias: Option<&'a [f32]>,
    epsilon: f32,
    y: Shared<f32>,
    mean: Shared<f32>,
    inv_std: Shared<f32>,
}

impl Task for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Forward { rows, width, x, scale, bias, epsilon, y, mean, inv_std } = self;
        for row in rows {
            // SAFETY: the lengths were checked; every row belongs to one task.
            unsafe {
                let x = x.as_ptr().add(row * width);
                let y = y.part(row * width, width).as_mut_ptr();
                let mut sum = S::splat(0.0);
                each!(S, width, |at, count| {
                    sum = S::add(sum, get::<S>(x, at, count));
                });
                let average = S::sum(sum) / width as f32;
                let center = S::splat(average);
                let mut squares = S::splat(0.0);
                each!(S, width, |at, count| {
                    let mut d = S::sub(get::<S>(x, at, count), center);
                    if count < S::LANES {
                        d = first::<S>(d, count);
                    }
                    squares = S::fma(d, d, squares);
                });
                let factor = 1.0 / (S::sum(squares) / width as f32 + epsilon).sqrt();
                let by = S::splat(factor);
                each!(S, width, |at, count| {
                    let n = S::mul(S::sub(get::<S>(x, at, count), center), by);
                    let scale = get::<S>(scale.as_ptr(), at, count);
                    let out = match bias {
                        Some(bias) => S::fma(n, scale, get::<S>(bias.as_ptr(), at, count)),
                        None => S::mul(n, scale),
                    };
                    put::<S>(y, at, count, out);
                });
                mean.part(row, 1)[0] = average;
                inv_std.part(row, 1)[0] = factor;
            }
        }
    }
}

/// Returns the first elements of a vector and zeros.
#[inline(always)]
pub(crate) unsafe fn first<S: Simd>(v: S::V, count: usize) -> S::V {
    let mut lanes = [0.0_f32; 64];
    S::store(lanes.as_mut_ptr(), v);
    S::load_first(lanes.as_ptr(), count)
}

/// Computes y and the statistics.
///
/// # Panics
/// When the lengths do not fit.
#[allow(clippy::too_many_arguments)]
pub fn forward(
    exec: Exec<'_>,
    x: &[f32],
    scale: &[f32],
    bias: Option<&[f32]>,
    epsilon: f32,
    y: &mut [f32],
    mean: &mut [f32],
    inv_std: &mut [f32],
) {
    let (rows, width) = (mean.len(), scale.len());
    assert!(rows.checked_mul(width) == Some(x.len()) && y.len() == x.len(), "whole rows");
    assert!(inv_std.len() == rows && bias.is_none_or(|bias| bias.len() == width), "whole rows");
    let (y, mean, inv_std) = (Shared::of(y), Shared::of(mean), Shared::of(inv_std));
    by_rows(exec.pool, rows, width, &|rows| {
        dispatch_at(exec.level, Forward { rows, width, x, scale, bias, epsilon, y, mean, inv_std });
    });
}

/// What the gradients are computed from.
#[derive(Clone, Copy)]
pub struct Saved<'a> {
    /// The input.
    pub x: &'a [f32],
    /// The factors of the columns.
    pub scale: &'a [f32],
    /// The mean of each row.
    pub mean: &'a [f32],
    /// The inverse deviation of each row.
    pub inv_std: &'a [f32],
}

struct Backward<'a> {
    rows: Range<usize>,
    saved: Saved<'a>,
    dy: &'a [f32],
    dx: Option<Shared<f32>>,
    /// dscale, then dbias.
    sums: &'a mut [f32],
}

impl Task for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Backward { rows, saved, dy, dx, sums } = self;
        let width = saved.scale.len();
        let scale = saved.scale.as_ptr();
        let (dscale, dbias) = sums.split_at_mut(width);
        let (dscale, dbias) = (dscale.as_mut_ptr(), dbias.as_mut_ptr());
        for row in rows {
            // SAFETY: the lengths were checked; every row belongs to one task.
            unsafe {
                let (x, dy) = (saved.x.as_ptr().add(row * width), dy.as_ptr().add(row * width));
                let (mean, factor) = (S::splat(saved.mean[row]), S::splat(saved.inv_std[row]));
                let (mut sum, mut moment) = (S::splat(0.0), S::splat(0.0));
                each!(S, width, |at, count| {
                    let n = S::mul(S::sub(get::<S>(x, at, count), mean), factor);
                    let dy = get::<S>(dy, at, count);
                    let product = S::mul(dy, n);
                    put::<S>(dscale, at, count, S::add(get::<S>(dscale, at, count), product));
                    put::<S>(dbias, at, count, S::add(get::<S>(dbias, at, count), dy));
                    let scale = get::<S>(scale, at, count);
                    sum = S::fma(dy, scale, sum);
                    moment = S::fma(product, scale, moment);
                });
                let Some(dx) = dx else { continue };
                let dx = dx.part(row * width, width).as_mut_ptr();
                let (sum, moment) = (S::splat(S::sum(sum) / width as f32), S::splat(S::sum(moment) / width as f32));
                each!(S, width, |at, count| {
                    let n = S::mul(S::sub(get::<S>(x, at, count), mean), factor);
                    let g = S::mul(get::<S>(dy, at, count), get::<S>(scale, at, count));
                    let rest = S::sub(S::sub(g, sum), S::mul(n, moment));
                    put::<S>(dx, at, count, S::mul(rest, factor));
                });
            }
        }
    }
}

/// Computes the gradients; that of the input only where it is wanted.
///
/// # Panics
/// When the lengths do not fit.
pub fn backward(
    exec: Exec<'_>,
    saved: Saved<'_>,
    dy: &[f32],
    dx: Option<&mut [f32]>,
    dscale: &mut [f32],
    dbias: &mut [f32],
) {
    let (rows, width) = (saved.mean.len(), saved.scale.len());
    let len = saved.x.len();
    assert!(rows.checked_mul(width) == Some(len) && dy.len() == len, "whole rows");
    assert!(saved.inv_std.len() == rows && dscale.len() == width && dbias.len() == width, "whole rows");
    assert!(dx.as_ref().is_none_or(|dx| dx.len() == len), "whole rows");
    let dx = dx.map(Shared::of);
    let mut both = vec![0.0; 2 * width];
    partial(exec, rows, width, 2 * width, &mut both, &|rows, sums| {
        dispatch_at(exec.level, Backward { rows, saved, dy, dx, sums });
    });
    dscale.copy_from_slice(&both[..width]);
    dbias.copy_from_slice(&both[width..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, numbers};

    const SHAPES: [(usize, usize); 7] = [(1, 1), (3, 4), (5, 17), (130, 192), (300, 256), (2, 5000), (0, 3)];

    struct Row {
        n: Vec<f64>,
        mean: f64,
        inv_std: f64,
    }

    fn normalized(x: &[f32], epsilon: f64) -> Row {
        let count = x.len() as f64;
        let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
        let var = x.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
        let inv_std = 1.0 / (var + epsilon).sqrt();
        Row { n: x.iter().map(|x| (f64::from(*x) - mean) * inv_std).collect(), mean, inv_std }
    }

    #[test]
    fn values_and_gradients() {
        for (rows, width) in SHAPES {
            let mut x = numbers(rows * width, 1, 2.0);
            x.iter_mut().enumerate().for_each(|(at, x)| *x += (at / width % 5) as f32);
            let (scale, bias, dy) = (numbers(width, 2, 1.0), numbers(width, 3, 1.0), numbers(rows * width, 4, 1.0));
            let epsilon = 1e-3_f32;
            let normal: Vec<Row> = x.chunks(width).map(|row| normalized(row, f64::from(epsilon))).collect();
            for bias in [None, Some(bias.as_slice())] {
                let mut expected = Vec::new();
                for row in &normal {
                    let out = row.n.iter().enumerate();
                    expected.extend(
                        out.map(|(at, n)| n * f64::from(scale[at]) + bias.map_or(0.0, |bias| f64::from(bias[at]))),
                    );
                }
                expected.extend(normal.iter().map(|row| row.mean));
                expected.extend(normal.iter().map(|row| row.inv_std));
                check("forward", &expected, 2e-6, |exec| {
                    let (mut y, mut mean, mut inv_std) = (vec![0.0; x.len()], vec![0.0; rows], vec![0.0; rows]);
                    forward(exec, &x, &scale, bias, epsilon, &mut y, &mut mean, &mut inv_std);
                    [y, mean, inv_std].concat()
                });
            }
            let (mut dx, mut dscale, mut dbias) = (Vec::new(), vec![0.0; width], vec![0.0; width]);
            for (row, dy) in normal.iter().zip(dy.chunks(width)) {
                let g: Vec<f64> = dy.iter().zip(&scale).map(|(dy, scale)| f64::from(*dy) * f64::from(*scale)).collect();
                let mean = g.iter().sum::<f64>() / width as f64;
                let moment = g.iter().zip(&row.n).map(|(g, n)| g * n).sum::<f64>() / width as f64;
                for at in 0..width {
                    dx.push(row.inv_std * (g[at] - mean - row.n[at] * moment));
                    dscale[at] += f64::from(dy[at]) * row.n[at];
                    dbias[at] += f64::from(dy[at]);
                }
            }
            let mean: Vec<f32> = normal.iter().map(|row| row.mean as f32).collect();
            let inv_std: Vec<f32> = normal.iter().map(|row| row.inv_std as f32).collect();
            let saved = Saved { x: &x, scale: &scale, mean: &mean, inv_std: &inv_std };
            check("dx", &dx, 3e-6, |exec| {
                let (mut dx, mut sums) = (vec![9.0; x.len()], [vec![9.0; width], vec![9.0; width]]);
                let [dscale, dbias] = &mut sums;
                backward(exec, saved, &dy, Some(&mut dx), dscale, dbias);
                dx
            });
            check("sums", &[dscale, dbias].concat(), 3e-6, |exec| {
                let mut sums = [vec![9.0; width], vec![9.0; width]];
                let [dscale, dbias] = &mut sums;
                backward(exec, saved, &dy, None, dscale, dbias);
                sums.concat()
            });
        }
    }
}
