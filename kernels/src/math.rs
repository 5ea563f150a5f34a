//! Elementary functions of vectors.
//!
//! | function  | largest error, in units of the last place of the result |
//! |-----------|----------------------------------------------------------|
//! | `exp`     | 2 where the result is a normal number                     |
//! | `erf`     | 8                                                         |
//! | `tanh`    | 8                                                         |
//! | `sigmoid` | 4 where `exp(-x)` is finite                               |
//!
//! NaN gives NaN. `erf` and `tanh` are quotients of polynomials in `x^2` times `x`.

use crate::exec::Exec;
use crate::lanes::{by_elements, each, get, put};
use crate::pool::Shared;
use crate::simd::{Simd, Task, dispatch_at};
use std::ops::Range;

/// Numerator and denominator of `erf(x) / x` in powers of `x^2`, to `|x| = 4`.
const ERF: ([f32; 7], [f32; 6]) = (
    [
        std::f32::consts::FRAC_2_SQRT_PI,
        0.185_203_3,
        0.054_316_92,
        0.003_849_614_5,
        0.000_379_608_74,
        4.684_772e-6,
        -1.320_220_7e-8,
    ],
    [1.0, 0.497_465_58, 0.113_958_45, 0.015_462_096, 0.001_307_570_4, 6.311_053e-5],
);

/// Numerator and denominator of `tanh(x) / x` in powers of `x^2`, to `|x| = 9`.
const TANH: ([f32; 6], [f32; 5]) = (
    [1.0, 0.136_808_59, 0.003_869_511, 2.803_136_9e-5, 3.064_266_4e-8, -1.224_634_3e-11],
    [1.0, 0.470_141_92, 0.027_250_167, 0.000_394_071_86, 1.289_039_1e-6],
);

/// `exp(r) = 1 + r + r^2 (..)` to `|r| = ln(2) / 2`.
const EXP: [f32; 5] = [0.499_999_94, 0.166_665_21, 0.041_668_39, 0.008_368_745, 0.001_381_453_9];

#[inline(always)]
unsafe fn polynomial<S: Simd, const N: usize>(x: S::V, coefficients: &[f32; N]) -> S::V {
    let mut sum = S::splat(coefficients[N - 1]);
    for at in (0..N - 1).rev() {
        sum = S::fma(sum, x, S::splat(coefficients[at]));
    }
    sum
}

/// Returns the nearest integer of each, for magnitudes below `2^22`.
#[inline(always)]
pub(crate) unsafe fn round<S: Simd>(x: S::V) -> S::V {
    let magic = S::splat(12_582_912.0);
    S::sub(S::add(x, magic), magic)
}

/// Returns `e^x` of each; 0 and infinity beyond the range.
#[inline(always)]
pub(crate) unsafe fn exp<S: Simd>(x: S::V) -> S::V {
    let x = S::min(S::splat(89.0), S::max(S::splat(-105.0), x));
    let n = round::<S>(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
    let r = S::fma(n, S::splat(-0.693_359_4), x);
    let r = S::fma(n, S::splat(2.121_944_4e-4), r);
    let tail = polynomial::<S, 5>(r, &EXP);
    let sum = S::add(S::fma(S::mul(r, r), tail, r), S::splat(1.0));
    S::scale2(sum, n)
}

#[inline(always)]
unsafe fn odd<S: Simd, const N: usize, const M: usize>(x: S::V, end: f32, parts: &([f32; N], [f32; M])) -> S::V {
    let x = S::min(S::splat(end), S::max(S::splat(-end), x));
    let square = S::mul(x, x);
    let above = S::mul(x, polynomial::<S, N>(square, &parts.0));
    let ratio = S::div(above, polynomial::<S, M>(square, &parts.1));
    S::min(S::splat(1.0), S::max(S::splat(-1.0), ratio))
}

/// Returns the error function of each.
#[inline(always)]
pub(crate) unsafe fn erf<S: Simd>(x: S::V) -> S::V {
    odd::<S, 7, 6>(x, 4.0, &ERF)
}

/// Returns the hyperbolic tangent of each.
#[inline(always)]
pub(crate) unsafe fn tanh<S: Simd>(x: S::V) -> S::V {
    odd::<S, 6, 5>(x, 9.0, &TANH)
}

/// Returns `1 / (1 + e^-x)` of each.
#[inline(always)]
pub(crate) unsafe fn sigmoid<S: Simd>(x: S::V) -> S::V {
    let one = S::splat(1.0);
    S::div(one, S::add(one, exp::<S>(S::sub(S::splat(0.0), x))))
}

/// A function of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// `e^x`
    Exp,
    /// The error function.
    Erf,
    /// The hyperbolic tangent.
    Tanh,
    /// `1 / (1 + e^-x)`
    Sigmoid,
}

struct Map<'a> {
    function: Function,
    range: Range<usize>,
    x: &'a [f32],
    y: Shared<f32>,
}

impl Task for Map<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Map { function, range, x, y } = self;
        // SAFETY: the lengths were checked; tasks have ranges of their own.
        unsafe {
            let (x, y) = (x.as_ptr().add(range.start), y.part(range.start, range.len()).as_mut_ptr());
            each!(S, range.len(), |at, count| {
                let x = get::<S>(x, at, count);
                let made = match function {
                    Function::Exp => exp::<S>(x),
                    Function::Erf => erf::<S>(x),
                    Function::Tanh => tanh::<S>(x),
                    Function::Sigmoid => sigmoid::<S>(x),
                };
                put::<S>(y, at, count, made);
            });
        }
    }
}

/// Computes a function of every element.
///
/// # Panics
/// When the lengths differ.
pub fn map(exec: Exec<'_>, function: Function, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "slices of one length");
    let y = Shared::of(y);
    by_elements(exec.pool, x.len(), &|range| dispatch_at(exec.level, Map { function, range, x, y }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Serial;
    use crate::simd::Level;

    fn at(level: Level, function: Function, x: &[f32]) -> Vec<f32> {
        let mut y = vec![9.0; x.len()];
        map(Exec { pool: &Serial, level }, function, x, &mut y);
        y
    }

    /// The error function by its series, and by its continued fraction far from 0.
    fn true_erf(x: f64) -> f64 {
        let a = x.abs();
        let value = if a < 2.5 {
            let (mut term, mut sum) = (a, a);
            for n in 1..120 {
                term *= -a * a / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            sum * std::f64::consts::FRAC_2_SQRT_PI
        } else {
            let fraction = (1..200).rev().fold(0.0, |rest, n| f64::from(n) / 2.0 / (a + rest));
            1.0 - (-a * a).exp() / std::f64::consts::PI.sqrt() / (a + fraction)
        };
        value.copysign(x)
    }

    fn ulps(found: f32, expected: f64) -> f64 {
        let near = (expected as f32).abs().max(f32::MIN_POSITIVE);
        let unit = f64::from(f32::from_bits(near.to_bits() + 1)) - f64::from(near);
        (f64::from(found) - expected).abs() / unit
    }

    #[test]
    fn errors_stay_below_what_the_head_says() {
        type Truth = fn(f64) -> f64;
        let cases: [(&str, Function, Truth, f32, f64); 4] = [
            ("exp", Function::Exp, f64::exp, 87.0, 2.0),
            ("erf", Function::Erf, true_erf, 5.0, 8.0),
            ("tanh", Function::Tanh, f64::tanh, 12.0, 8.0),
            ("sigmoid", Function::Sigmoid, |x| 1.0 / (1.0 + (-x).exp()), 87.0, 4.0),
        ];
        for (name, function, truth, end, most) in cases {
            let x: Vec<f32> = (0..40_003).map(|at| (at as f32 / 20_001.0 - 1.0) * end).collect();
            for level in Level::available() {
                let found = at(*level, function, &x);
                let errors = x.iter().zip(&found).map(|(x, found)| (ulps(*found, truth(f64::from(*x))), *x));
                let worst = errors.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
                assert!(worst.0 <= most, "{name}, {}: {} at {}", level.name(), worst.0, worst.1);
            }
        }
    }

    #[test]
    fn special_values() {
        let x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -104.5, 88.9, -1e9, 1e9];
        for level in Level::available() {
            let of = |function| at(*level, function, &x);
            let (exp, erf, tanh, sigmoid) =
                (of(Function::Exp), of(Function::Erf), of(Function::Tanh), of(Function::Sigmoid));
            assert!([exp[0], erf[0], tanh[0], sigmoid[0]].iter().all(|value| value.is_nan()), "{}", level.name());
            assert_eq!(exp[1..], [f32::INFINITY, 0.0, 1.0, 0.0, f32::INFINITY, 0.0, f32::INFINITY]);
            for odd in [erf, tanh] {
                assert_eq!(odd[1..], [1.0, -1.0, 0.0, -1.0, 1.0, -1.0, 1.0]);
            }
            assert_eq!(sigmoid[1..4], [1.0, 0.0, 0.5]);
        }
    }
}
