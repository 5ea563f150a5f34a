//! Bits of integers by arithmetic, where one side is a constant of one element.
//!
//! Bits `from` to `to` of `x` are `x mod 2^to - x mod 2^from`, with a remainder that is never negative.

use super::Call;
use crate::graph::{Attributes, Builder, DType, Tensor, ValueId};

/// `x & mask`
pub(super) fn and(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    let Masked { x, mask, .. } = masked(call)?;
    Some(vec![and_of(call.b, x, mask)?])
}

/// `x | mask = x + mask - (x & mask)`
pub(super) fn or(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    let Masked { x, mask, constant } = masked(call)?;
    let both = and_of(call.b, x, mask)?;
    let sum = call.b.add(x, constant);
    Some(vec![call.b.sub(sum, both)])
}

/// `x ^ mask = x + mask - 2 (x & mask)`
pub(super) fn xor(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    let Masked { x, mask, constant } = masked(call)?;
    let both = and_of(call.b, x, mask)?;
    let sum = call.b.add(x, constant);
    let less = call.b.sub(sum, both);
    Some(vec![call.b.sub(less, both)])
}

/// `!x = -1 - x`
pub(super) fn not(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    let x = call.input(0)?;
    if !matches!(call.dtype(0)?, DType::I32 | DType::I64) {
        return None;
    }
    let minus = call.b.like(x, -1.0);
    Some(vec![call.b.sub(minus, x)])
}

/// `x << n = x 2^n`, `x >> n = x / 2^n`
pub(super) fn shift(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    let (x, dtype) = (call.input(0)?, call.dtype(0)?);
    let amounts = call.b.graph().constant(call.input(1)?)?.to_f64s()?;
    let [amount] = amounts.as_slice() else { return None };
    let amount = &(*amount as i64);
    let bits = i64::try_from(dtype.bits()).ok()?;
    let left = call.node.attributes.text("direction", "").ok()? == "LEFT";
    if !(0..bits.min(63)).contains(amount) || call.fact(1)?.rank() > call.fact(0)?.rank() {
        return None;
    }
    let factor = power(call.b, dtype, *amount)?;
    Some(vec![if left { call.b.mul(x, factor) } else { call.b.div(x, factor) }])
}

struct Masked {
    x: ValueId,
    mask: i64,
    constant: ValueId,
}

/// Returns the operand that is not constant, and the one that is.
fn masked(call: &mut Call<'_>) -> Option<Masked> {
    let of = |call: &Call<'_>, index: usize| match call.ints(index)?.as_slice() {
        [mask] => Some(*mask),
        _ => None,
    };
    let (at, mask) = of(call, 1).map(|mask| (0, mask)).or_else(|| of(call, 0).map(|mask| (1, mask)))?;
    let fits = matches!(call.dtype(0)?, DType::I32 | DType::I64) && call.fact(1 - at)?.rank() <= call.fact(at)?.rank();
    let (x, constant) = (call.input(at)?, call.input(1 - at)?);
    fits.then_some(Masked { x, mask, constant })
}

fn and_of(b: &mut Builder, x: ValueId, mask: i64) -> Option<ValueId> {
    let bits = i64::try_from(b.dtype(x).bits()).ok()?;
    let set = |at: i64| mask >> at & 1 == 1;
    let mut parts = Vec::new();
    let mut at = 0;
    while at < bits {
        if !set(at) {
            at += 1;
            continue;
        }
        let from = at;
        while at < bits && set(at) {
            at += 1;
        }
        let upper = if at == bits { x } else { remainder(b, x, at)? };
        parts.push(if from == 0 {
            upper
        } else {
            let lower = remainder(b, x, from)?;
            b.sub(upper, lower)
        });
    }
    let mut parts = parts.into_iter();
    let Some(first) = parts.next() else {
        return Some(b.scale(x, 0.0));
    };
    let mut sum = first;
    let mut fresh = first != x;
    for part in parts {
        sum = b.add(sum, part);
        fresh = true;
    }
    Some(if fresh { sum } else { b.unary("Identity", sum) })
}

/// `x mod 2^bits`
fn remainder(b: &mut Builder, x: ValueId, bits: i64) -> Option<ValueId> {
    let dtype = b.dtype(x);
    let divisor = power(b, dtype, bits)?;
    Some(b.op("Mod", &[x, divisor], Attributes::none()))
}

fn power(b: &mut Builder, dtype: DType, exponent: i64) -> Option<ValueId> {
    let exponent = u32::try_from(exponent).ok()?;
    let tensor = match dtype {
        DType::U8 => Tensor::scalar(1_u8.checked_shl(exponent)?),
        DType::U16 => Tensor::scalar(1_u16.checked_shl(exponent)?),
        DType::U32 => Tensor::scalar(1_u32.checked_shl(exponent)?),
        DType::U64 => Tensor::scalar(1_u64.checked_shl(exponent)?),
        DType::I32 => Tensor::scalar(1_i32.checked_shl(exponent).filter(|power| *power > 0)?),
        DType::I64 => Tensor::scalar(1_i64.checked_shl(exponent).filter(|power| *power > 0)?),
        _ => return None,
    };
    Some(b.constant("power", tensor))
}
