//! Inverse trigonometric functions by polynomials, for float32, whose last digit they miss by little (after Cephes).
//!
//! - `asin a = s + s z P(z)`, `z = a^2`, for `a <= 1/2`, else `pi/2 - 2 asin(sqrt((1 - a) / 2))`
//! - `atan a` by `-1/a` above tan(3 pi/8) and by `(a - 1) / (a + 1)` above tan(pi/8)

use super::hyperbolic::with_sign;
use super::{Call, in_float};
use crate::graph::{Builder, ValueId};
use std::f64::consts::{FRAC_PI_2, FRAC_PI_4, PI};

const ASIN: [f64; 5] = [4.2163199048e-2, 2.4181311049e-2, 4.5470025998e-2, 7.4953002686e-2, 1.6666752422e-1];
const ATAN: [f64; 4] = [8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1];
const TAN_3_PI_8: f64 = 2.414_213_562_373_095;
const TAN_PI_8: f64 = 0.414_213_562_373_095_04;

pub(super) fn asin(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    in_float(call, |b, x| {
        let Arc { large, part } = arc(b, x);
        let double = b.scale(part, -2.0);
        let rest = b.shift(double, FRAC_PI_2);
        let y = b.select(large, rest, part);
        with_sign(b, x, y)
    })
}

pub(super) fn acos(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    in_float(call, |b, x| {
        let Arc { large, part } = arc(b, x);
        let double = b.scale(part, 2.0);
        let minus = b.scale(part, -2.0);
        let rest = b.shift(minus, PI);
        let negative = b.compare("Less", x, 0.0);
        let far = b.select(negative, rest, double);
        let signed = with_sign(b, x, part);
        let quarter = b.like(x, FRAC_PI_2);
        let near = b.sub(quarter, signed);
        b.select(large, far, near)
    })
}

pub(super) fn atan(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    in_float(call, |b, x| {
        let a = b.unary("Abs", x);
        let (far, middle) = (b.compare("Greater", a, TAN_3_PI_8), b.compare("Greater", a, TAN_PI_8));
        let minus = b.like(x, -1.0);
        let inverse = b.div(minus, a);
        let (less, more) = (b.shift(a, -1.0), b.shift(a, 1.0));
        let turned = b.div(less, more);
        let r = b.select(middle, turned, a);
        let r = b.select(far, inverse, r);
        let (zero, eighth, quarter) = (b.like(x, 0.0), b.like(x, FRAC_PI_4), b.like(x, FRAC_PI_2));
        let base = b.select(middle, eighth, zero);
        let base = b.select(far, quarter, base);
        let z = b.mul(r, r);
        let y = corrected(b, &ATAN, z, r);
        let y = b.add(base, y);
        with_sign(b, x, y)
    })
}

struct Arc {
    /// Where |x| is above 1/2.
    large: ValueId,
    /// asin |x| there, and elsewhere asin(sqrt((1 - |x|) / 2)).
    part: ValueId,
}

fn arc(b: &mut Builder, x: ValueId) -> Arc {
    let a = b.unary("Abs", x);
    let large = b.compare("Greater", a, 0.5);
    let one = b.like(x, 1.0);
    let rest = b.sub(one, a);
    let half = b.scale(rest, 0.5);
    let square = b.mul(a, a);
    let z = b.select(large, half, square);
    let root = b.unary("Sqrt", half);
    let s = b.select(large, root, a);
    Arc { large, part: corrected(b, &ASIN, z, s) }
}

/// `s + s z P(z)`
fn corrected(b: &mut Builder, coefficients: &[f64], z: ValueId, s: ValueId) -> ValueId {
    let mut sum = b.like(z, coefficients.first().copied().unwrap_or(0.0));
    for coefficient in coefficients.iter().skip(1) {
        let product = b.mul(sum, z);
        sum = b.shift(product, *coefficient);
    }
    let z_s = b.mul(z, s);
    let correction = b.mul(sum, z_s);
    b.add(s, correction)
}
