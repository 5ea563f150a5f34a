//! Gelu of `x + bias`, in both of its forms.
//!
//! Forward:  `y = z (1 + erf(z / sqrt(2))) / 2`, or with `u = sqrt(2 / pi) (z + 0.044715 z^3)`
//!           `y = z / (1 + exp(-2 u))`, which is `z (1 + tanh(u)) / 2`; `z = x + bias`.
//! Backward: `dx = dy ((1 + erf(z / sqrt(2))) / 2 + z exp(-z^2 / 2) / sqrt(2 pi))`, or with
//!           `s = 1 / (1 + exp(-2 u))` `dx = dy s (1 + z (1 - s) 2 du/dz)`, whose slope is taken at 6 or
//!           -6 beyond those, where it changes by less than 1e-8.
//! Shapes:   x, y `[rows, width]`, bias `[width]`.

use crate::exec::Exec;
use crate::lanes::{by_rows, each, get, put};
use crate::math::{erf, exp, sigmoid};
use crate::pool::Shared;
use crate::simd::{Simd, Task, dispatch_at};
use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};
use std::ops::Range;

/// `sqrt(2 / pi)`
const C: f32 = FRAC_1_SQRT_2 * FRAC_2_SQRT_PI;
const CUBIC: f32 = 0.044_715;
const FAR: f32 = 6.0;

/// Which formula.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// With the error function.
    Erf,
    /// With the hyperbolic tangent.
    Tanh,
}

#[inline(always)]
unsafe fn value<S: Simd>(form: Form, x: S::V) -> S::V {
    let half = S::splat(0.5);
    match form {
        Form::Erf => {
            let area = S::fma(erf::<S>(S::mul(x, S::splat(FRAC_1_SQRT_2))), half, half);
            S::mul(x, area)
        }
        Form::Tanh => {
            let square = S::mul(x, x);
            let factor = S::fma(square, S::splat(2.0 * CUBIC * C), S::splat(2.0 * C));
            S::mul(x, sigmoid::<S>(S::mul(x, factor)))
        }
    }
}

#[inline(always)]
unsafe fn slope<S: Simd>(form: Form, x: S::V) -> S::V {
    let (half, one) = (S::splat(0.5), S::splat(1.0));
    match form {
        Form::Erf => {
            let area = S::fma(erf::<S>(S::mul(x, S::splat(FRAC_1_SQRT_2))), half, half);
            let bell = exp::<S>(S::mul(S::mul(x, x), S::splat(-0.5)));
            S::fma(x, S::mul(bell, S::splat(C * 0.5)), area)
        }
        Form::Tanh => {
            let x = S::min(S::splat(FAR), S::max(S::splat(-FAR), x));
            let cubic = S::mul(S::mul(x, x), S::splat(2.0 * CUBIC * C));
            let s = sigmoid::<S>(S::mul(x, S::add(cubic, S::splat(2.0 * C))));
            let inner = S::fma(cubic, S::splat(3.0), S::splat(2.0 * C));
            let bend = S::mul(x, S::mul(S::sub(one, s), inner));
            S::mul(s, S::add(bend, one))
        }
    }
}

struct Part<'a> {
    form: Form,
    rows: Range<usize>,
    width: usize,
    bias: Option<&'a [f32]>,
    x: &'a [f32],
    dy: Option<&'a [f32]>,
    out: Shared<f32>,
}

impl Task for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Part { form, rows, width, bias, x, dy, out } = self;
        let first = rows.start * width;
        let (rows, width) = if bias.is_some() { (rows.len(), width) } else { (1, rows.len() * width) };
        for row in 0..rows {
            // SAFETY: the lengths were checked; tasks have rows of their own.
            unsafe {
                let at = first + row * width;
                let (x, out) = (x.as_ptr().add(at), out.part(at, width).as_mut_ptr());
                let dy = dy.map(|dy| dy.as_ptr().add(at));
                each!(S, width, |at, count| {
                    let mut z = get::<S>(x, at, count);
                    if let Some(bias) = bias {
                        z = S::add(z, get::<S>(bias.as_ptr(), at, count));
                    }
                    let made = match dy {
                        None => value::<S>(form, z),
                        Some(dy) => S::mul(get::<S>(dy, at, count), slope::<S>(form, z)),
                    };
                    put::<S>(out, at, count, made);
                });
            }
        }
    }
}

fn run(exec: Exec<'_>, form: Form, bias: Option<&[f32]>, x: &[f32], dy: Option<&[f32]>, out: &mut [f32]) {
    let width = bias.map_or(1, <[f32]>::len);
    assert!(x.len() == out.len() && dy.is_none_or(|dy| dy.len() == x.len()), "slices of one length");
    assert!(width > 0 && x.len().is_multiple_of(width), "whole rows");
    let len = x.len();
    let out = Shared::of(out);
    let part = |rows: Range<usize>| {
        dispatch_at(exec.level, Part { form, rows, width, bias, x, dy, out });
    };
    match bias {
        Some(_) => by_rows(exec.pool, len / width, width, &|rows| part(rows)),
        None => crate::lanes::by_elements(exec.pool, len, &|elements| part(elements)),
    }
}

/// Computes y.
///
/// # Panics
/// When the lengths do not fit.
pub fn forward(exec: Exec<'_>, form: Form, bias: Option<&[f32]>, x: &[f32], y: &mut [f32]) {
    run(exec, form, bias, x, None, y);
}

/// Computes dx, whose sum over rows is the gradient of the bias.
///
/// # Panics
/// When the lengths do not fit.
pub fn backward(exec: Exec<'_>, form: Form, bias: Option<&[f32]>, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    run(exec, form, bias, x, Some(dy), dx);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, numbers};

    /// `y` by the formula with tanh, or by integrating the bell.
    fn formula(form: Form, x: f64) -> f64 {
        let c = (2.0 / std::f64::consts::PI).sqrt();
        match form {
            Form::Tanh => 0.5 * x * (1.0 + (c * (x + 0.044_715 * x.powi(3))).tanh()),
            Form::Erf => {
                let steps = 400;
                let h = x / f64::from(steps);
                let bell = |t: f64| (-t * t / 2.0).exp();
                let inner: f64 = (1..steps).map(|n| bell(h * f64::from(n)) * if n % 2 == 1 { 4.0 } else { 2.0 }).sum();
                x * (0.5 + (bell(0.0) + bell(x) + inner) * h / 3.0 / (2.0 * std::f64::consts::PI).sqrt())
            }
        }
    }

    #[test]
    fn values_and_gradients() {
        for form in [Form::Erf, Form::Tanh] {
            for (rows, width) in [(1, 1), (3, 17), (5, 64), (40, 1000)] {
                let (x, bias) = (numbers(rows * width, 1, 4.0), numbers(width, 2, 0.5));
                let dy = numbers(rows * width, 3, 1.0);
                for bias in [None, Some(bias.as_slice())] {
                    let wide = |at: usize| f64::from(x[at]) + bias.map_or(0.0, |bias| f64::from(bias[at % width]));
                    let few = |at: &usize| *at < 200 || *at + 200 > x.len();
                    let kept: Vec<usize> = (0..x.len()).filter(few).collect();
                    let pick = |all: Vec<f32>| kept.iter().map(|at| all[*at]).collect::<Vec<_>>();
                    let y: Vec<f64> = kept.iter().map(|at| formula(form, wide(*at))).collect();
                    check("forward", &y, 5e-7, |exec| {
                        let mut y = vec![0.0; x.len()];
                        forward(exec, form, bias, &x, &mut y);
                        pick(y)
                    });
                    let slope = |z: f64| (formula(form, z + 1e-4) - formula(form, z - 1e-4)) / 2e-4;
                    let dx: Vec<f64> = kept.iter().map(|at| f64::from(dy[*at]) * slope(wide(*at))).collect();
                    check("backward", &dx, 1e-6, |exec| {
                        let mut dx = vec![0.0; x.len()];
                        backward(exec, form, bias, &x, &dy, &mut dx);
                        pick(dx)
                    });
                }
            }
        }
    }

    #[test]
    fn far_from_zero() {
        let x = [1e30, -1e30, 40.0, -40.0, 0.0];
        for form in [Form::Erf, Form::Tanh] {
            check("forward", &[1e30_f32.into(), 0.0, 40.0, 0.0, 0.0], 1e-30, |exec| {
                let mut y = vec![1.0; 5];
                forward(exec, form, None, &x, &mut y);
                y
            });
            check("backward", &[1.0, 0.0, 1.0, 0.0, 0.5], 1e-6, |exec| {
                let mut dx = vec![1.0; 5];
                backward(exec, form, None, &x, &[1.0; 5], &mut dx);
                dx
            });
        }
    }
}
