//! Tangent, hyperbolic functions and their inverses, of `Exp`, `Log`, `Sqrt`, `Tanh`, `Sin` and `Cos`.
//!
//! - `cosh x = (e^h / 2) e^h + (e^-h / 2) e^-h` with `h = |x| / 2`, which overflows only where cosh does
//! - `sinh x = tanh(x / 2) (cosh x + 1)`, exact near 0
//! - `asinh x = sign x log1p(a + a^2 / (1 + sqrt(a^2 + 1)))`, `a = |x|`
//! - `acosh x = log1p(t + sqrt(t (t + 2)))`, `t = x - 1`
//! - `atanh x = sign x log1p(2 a / (1 - a)) / 2`
//! - `log1p u = u log(w) / (w - 1)` with `w = 1 + u` as rounded (Kahan), and `u` where `w = 1`

use super::{Call, in_wide_float};
use crate::graph::{Builder, ValueId};
use std::f64::consts::LN_2;

/// From here on `log(2 x)` is asinh and acosh to the last digit of float64, and a square does not overflow before.
const FAR: f64 = 1e9;

pub(super) fn tan(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    in_wide_float(call, |b, x| {
        let (sin, cos) = (b.unary("Sin", x), b.unary("Cos", x));
        b.div(sin, cos)
    })
}

pub(super) fn cosh(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    in_wide_float(call, cosh_of)
}

pub(super) fn sinh(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    in_wide_float(call, |b, x| {
        let half = b.scale(x, 0.5);
        let tanh = b.unary("Tanh", half);
        let cosh = cosh_of(b, x);
        let more = b.shift(cosh, 1.0);
        b.mul(tanh, more)
    })
}

pub(super) fn asinh(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    in_wide_float(call, |b, x| {
        let a = b.unary("Abs", x);
        let square = b.mul(a, a);
        let root = b.shift(square, 1.0);
        let root = b.unary("Sqrt", root);
        let root = b.shift(root, 1.0);
        let rest = b.div(square, root);
        let near = b.add(a, rest);
        let near = log1p(b, near);
        let y = or_far(b, a, near);
        with_sign(b, x, y)
    })
}

pub(super) fn acosh(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    in_wide_float(call, |b, x| {
        let t = b.shift(x, -1.0);
        let more = b.shift(t, 2.0);
        let square = b.mul(t, more);
        let root = b.unary("Sqrt", square);
        let near = b.add(t, root);
        let near = log1p(b, near);
        let y = or_far(b, x, near);
        let outside = b.compare("Less", x, 1.0);
        let nan = b.like(x, f64::NAN);
        b.select(outside, nan, y)
    })
}

pub(super) fn atanh(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    in_wide_float(call, |b, x| {
        let a = b.unary("Abs", x);
        let double = b.scale(a, 2.0);
        let one = b.like(x, 1.0);
        let rest = b.sub(one, a);
        let ratio = b.div(double, rest);
        let log = log1p(b, ratio);
        let y = b.scale(log, 0.5);
        with_sign(b, x, y)
    })
}

fn cosh_of(b: &mut Builder, x: ValueId) -> ValueId {
    let a = b.unary("Abs", x);
    let half = b.scale(a, 0.5);
    let e = b.unary("Exp", half);
    let grown = b.scale(e, 0.5);
    let grown = b.mul(grown, e);
    let part = b.like(x, 0.5);
    let shrunk = b.div(part, e);
    let shrunk = b.div(shrunk, e);
    b.add(grown, shrunk)
}

/// Returns log(1 + u).
fn log1p(b: &mut Builder, u: ValueId) -> ValueId {
    let w = b.shift(u, 1.0);
    let log = b.unary("Log", w);
    let rounded = b.shift(w, -1.0);
    let ratio = b.mul(u, log);
    let ratio = b.div(ratio, rounded);
    let large = b.compare("Greater", u, 1.0);
    let y = b.select(large, log, ratio);
    let tiny = b.compare("Equal", w, 1.0);
    b.select(tiny, u, y)
}

/// Returns `near`, but log(2 a) where `a` is large.
fn or_far(b: &mut Builder, a: ValueId, near: ValueId) -> ValueId {
    let log = b.unary("Log", a);
    let far = b.shift(log, LN_2);
    let is_far = b.compare("Greater", a, FAR);
    b.select(is_far, far, near)
}

/// Returns `y` with the sign of `x`.
pub(super) fn with_sign(b: &mut Builder, x: ValueId, y: ValueId) -> ValueId {
    let negative = b.compare("Less", x, 0.0);
    let minus = b.unary("Neg", y);
    b.select(negative, minus, y)
}
