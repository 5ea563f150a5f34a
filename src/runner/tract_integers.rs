//! Integer arithmetic in forms that tract computes right.
//!
//! tract reads `Cast` to int64, `Shape` and `Size` as dimensions, a type of its own: what meets one
//! is cut to 32 bits. It sums integers in 32 bits and multiplies them in float32, takes the
//! operands of `Mod` for exchangeable, and takes `Greater` of a `Range` and a number for
//! `GreaterOrEqual` of one less where it selects by the result.

use super::tract_stable::last;
use crate::graph::{Attributes, Builder, DType, Node, Tensor, ValueId};

/// A cast to int64 that stays one; the last node is returned, not appended.
pub(super) fn cast(b: &mut Builder, node: &Node, x: ValueId) -> Option<Node> {
    (node.attributes.int("to", 0).ok()? == i64::from(DType::I64.code())).then(|| cast_like(b, node, x))
}

fn cast_like(b: &mut Builder, node: &Node, x: ValueId) -> Node {
    let like = b.constant("like", Tensor::scalar(0_i64));
    last(node, "CastLike", &[x, like])
}

/// The sizes of a value as a constant, where they are known.
pub(super) fn shape(b: &mut Builder, node: &Node, x: ValueId) -> Option<Node> {
    let sizes: Vec<i64> = b.fact(x).sizes()?.iter().map(|size| *size as i64).collect();
    let rank = i64::try_from(sizes.len()).ok()?;
    let place = |axis: i64| usize::try_from((if axis < 0 { axis + rank } else { axis }).clamp(0, rank)).ok();
    let start = place(node.attributes.int("start", 0).ok()?)?;
    let end = place(node.attributes.int("end", rank).ok()?)?;
    let sizes = b.ints("sizes", sizes.get(start..end.max(start))?);
    Some(last(node, "Identity", &[sizes]))
}

/// The number of elements of a value as a constant, where it is known.
pub(super) fn size(b: &mut Builder, node: &Node, x: ValueId) -> Option<Node> {
    let count: usize = b.fact(x).sizes()?.iter().product();
    let count = b.constant("size", Tensor::scalar(i64::try_from(count).ok()?));
    Some(last(node, "Identity", &[count]))
}

/// `Mod` with a first operand that is not the smaller one; tract would take an `Expand` out again.
pub(super) fn modulo(b: &mut Builder, node: &Node, x: ValueId, y: ValueId) -> Option<Node> {
    let count = |value: ValueId| Some(b.fact(value).sizes()?.iter().product::<usize>());
    if matches!((count(x), count(y)), (Some(x), Some(y)) if x >= y) {
        return None;
    }
    let any = b.op("Equal", &[x, y], Attributes::none());
    let wide = b.select(any, x, x);
    Some(Node { inputs: vec![Some(wide), Some(y)], ..node.clone() })
}

/// A power of two of integers: tract has squares of floats only.
pub(super) fn pow(b: &mut Builder, node: &Node, x: ValueId, y: ValueId) -> Option<Node> {
    let dtype = b.dtype(x);
    let exponent = b.graph().constant(y)?;
    if b.dtype(y).is_float() || exponent.to_f64s()?.iter().any(|number| *number != 2.0) {
        return None;
    }
    let ones = match dtype {
        DType::I32 => Tensor::from_vec(exponent.shape(), vec![1_i32; exponent.len()]),
        DType::I64 => Tensor::from_vec(exponent.shape(), vec![1_i64; exponent.len()]),
        _ => return None,
    };
    let ones = b.constant("ones", ones);
    let negative = b.unary("Neg", x);
    let negative = b.mul(negative, ones);
    let square = b.mul(negative, x);
    Some(last(node, "Neg", &[square]))
}

/// An integer times itself, `-(-x * x)`.
pub(super) fn square(b: &mut Builder, node: &Node, x: ValueId) -> Option<Node> {
    if !matches!(b.dtype(x), DType::I32 | DType::I64) {
        return None;
    }
    let negative = b.unary("Neg", x);
    let square = b.mul(negative, x);
    Some(last(node, "Neg", &[square]))
}

/// A `Range` of integers of which tract does not know what it starts with.
pub(super) fn range(b: &mut Builder, node: &Node, [start, limit, step]: [ValueId; 3]) -> Option<Node> {
    let fixed = |value: ValueId| b.graph().constant(value).is_some();
    if b.dtype(limit).is_float() || (fixed(start) && fixed(limit) && fixed(step)) {
        return None;
    }
    let nothing = b.sub(limit, limit);
    let start = b.add(start, nothing);
    Some(last(node, "Range", &[start, limit, step]))
}

/// A sum or product of integers, in float64.
pub(super) fn reduce(b: &mut Builder, node: &Node, x: ValueId, axes: Option<ValueId>) -> Option<Node> {
    let dtype = b.dtype(x);
    if dtype.is_float() || dtype == DType::Bool {
        return None;
    }
    let wide = b.cast(x, DType::F64);
    let inputs: Vec<Option<ValueId>> = [Some(Some(wide)), axes.map(Some)].into_iter().flatten().collect();
    let total = *b.ops(&node.op, &inputs, node.attributes.clone(), 1).first()?;
    if dtype == DType::I64 {
        return Some(cast_like(b, node, total));
    }
    let to = Attributes::none().with("to", i64::from(dtype.code()));
    Some(Node { attributes: to, ..last(node, "Cast", &[total]) })
}
