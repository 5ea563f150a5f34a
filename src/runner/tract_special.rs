//! Functions in forms in which tract lets NaN through and does not overflow.
//!
//! tract takes the other operand of a minimum or maximum where one is NaN, so `Relu` and `Clip`
//! would hide a loss that has become NaN. Its `Sigmoid` and `Tanh` of float32 hide NaN too, and
//! `Sigmoid` stays above 4e-7. `MaxPool` and `TopK` still pass over NaN there, as do the gates of
//! recurrent layers.

use super::tract_stable::last;
use crate::graph::{Attributes, Builder, DType, Node, ValueId};

/// Returns true for the dtypes for which the forms here hold.
pub(super) fn holds(b: &Builder, x: ValueId) -> bool {
    matches!(b.dtype(x), DType::F32 | DType::F64)
}

/// `x < 0 ? 0 : x`; the last node is returned, not appended.
pub(super) fn relu(b: &mut Builder, node: &Node, x: ValueId) -> Node {
    let zero = b.like(x, 0.0);
    let below = b.op("Less", &[x, zero], Attributes::none());
    last(node, "Where", &[below, zero, x])
}

/// `x` within bounds; the last node is returned, not appended.
pub(super) fn clip(b: &mut Builder, node: &Node, x: ValueId, bounds: [Option<ValueId>; 2]) -> Node {
    let mut selected = x;
    for (op, bound) in ["Less", "Greater"].iter().zip(bounds) {
        if let Some(bound) = bound {
            let outside = b.op(op, &[selected, bound], Attributes::none());
            selected = b.select(outside, bound, selected);
        }
    }
    last(node, "Identity", &[selected])
}

/// `IsNaN`, which tract has for float32 only; the last node is returned, not appended.
pub(super) fn is_nan(b: &mut Builder, node: &Node, x: ValueId) -> Node {
    let number = b.op("Equal", &[x, x], Attributes::none());
    last(node, "Not", &[number])
}

/// `IsInf` of either sign, which tract has for float32 only; the last node is returned, not appended.
pub(super) fn is_inf(b: &mut Builder, node: &Node, x: ValueId) -> Option<Node> {
    let attributes = &node.attributes;
    if attributes.int("detect_negative", 1).ok()? == 0 || attributes.int("detect_positive", 1).ok()? == 0 {
        return None;
    }
    let size = b.unary("Abs", x);
    let infinity = b.scalar(b.dtype(x), f64::INFINITY);
    Some(last(node, "Equal", &[size, infinity]))
}

/// `1 / (1 + exp(-x))`; the last node is returned, not appended.
pub(super) fn sigmoid(b: &mut Builder, node: &Node, x: ValueId) -> Node {
    let negative = b.unary("Neg", x);
    let exp = b.unary("Exp", negative);
    let sum = b.shift(exp, 1.0);
    last(node, "Reciprocal", &[sum])
}

/// `alpha * x + beta` within 0 and 1; the last node is returned, not appended.
pub(super) fn hard_sigmoid(b: &mut Builder, node: &Node, x: ValueId) -> Option<Node> {
    let alpha = f64::from(node.attributes.float("alpha", 0.2).ok()?);
    let beta = f64::from(node.attributes.float("beta", 0.5).ok()?);
    let scaled = b.scale(x, alpha);
    let line = b.shift(scaled, beta);
    let bounds = [0.0, 1.0].map(|bound| Some(b.scalar(b.dtype(x), bound)));
    Some(clip(b, node, line, bounds))
}

/// `Tanh` where `x` is a number; the last node is returned, not appended.
pub(super) fn tanh(b: &mut Builder, node: &Node, x: ValueId) -> Node {
    let number = b.op("Equal", &[x, x], Attributes::none());
    let tanh = b.unary("Tanh", x);
    last(node, "Where", &[number, tanh, x])
}

/// The largest or smallest of several values; the last node is returned, not appended.
pub(super) fn extremum(b: &mut Builder, node: &Node, inputs: &[Option<ValueId>]) -> Option<Node> {
    let first = if node.op.is("Max") { "GreaterOrEqual" } else { "LessOrEqual" };
    let values: Vec<ValueId> = inputs.iter().copied().collect::<Option<_>>()?;
    let (start, others) = values.split_first()?;
    let mut best = *start;
    for other in others {
        let keep = b.op(first, &[best, *other], Attributes::none());
        let better = b.select(keep, best, *other);
        let number = b.op("Equal", &[best, best], Attributes::none());
        best = b.select(number, better, best);
    }
    Some(last(node, "Identity", &[best]))
}

/// `ReduceMax` or `ReduceMin`, NaN where an element is; the last node is returned, not appended.
pub(super) fn reduced_extremum(b: &mut Builder, node: &Node, x: ValueId, axes: Option<ValueId>) -> Option<Node> {
    let dtype = b.dtype(x);
    let number = b.op("Equal", &[x, x], Attributes::none());
    let other = b.unary("Not", number);
    let other = b.cast(other, dtype);
    let [plain, others] = [(&node.op, x), (&crate::graph::OpId::standard("ReduceSum"), other)].map(|(op, value)| {
        let inputs: Vec<Option<ValueId>> = [Some(Some(value)), axes.map(Some)].into_iter().flatten().collect();
        b.ops(op, &inputs, node.attributes.clone(), 1).first().copied()
    });
    let any = b.compare("Greater", others?, 0.0);
    let nan = b.scalar(dtype, f64::NAN);
    Some(last(node, "Where", &[any, nan, plain?]))
}

/// `m + log(sum(exp(x - m)))` of the largest element `m`; the last node is returned, not appended.
pub(super) fn log_sum_exp(b: &mut Builder, node: &Node, x: ValueId, axes: Option<ValueId>) -> Option<Node> {
    let attributes = &node.attributes;
    if attributes.int("noop_with_empty_axes", 0).ok()? != 0 && axes.is_none() {
        return None;
    }
    let inputs: Vec<ValueId> = [Some(x), axes].into_iter().flatten().collect();
    let rest = inputs.get(1..)?.to_vec();
    let kept = Attributes::none().with("keepdims", 1_i64);
    let top = b.op("ReduceMax", &inputs, kept.clone());
    let size = b.unary("Abs", top);
    let infinite = b.compare("Equal", size, f64::INFINITY);
    let zero = b.like(x, 0.0);
    let top = b.select(infinite, zero, top);
    let distance = b.sub(x, top);
    let exp = b.unary("Exp", distance);
    let sum = b.op("ReduceSum", &[&[exp], rest.as_slice()].concat(), kept);
    let log = b.unary("Log", sum);
    if attributes.int("keepdims", 1).ok()? != 0 {
        return Some(last(node, "Add", &[log, top]));
    }
    let total = b.add(log, top);
    Some(last(node, "Squeeze", &[&[total], rest.as_slice()].concat()))
}

/// A sum or mean of float64, which tract would take of float32 where it is one of squares; the last
/// node is returned, not appended.
pub(super) fn double(b: &mut Builder, node: &Node, x: ValueId, axes: Option<ValueId>) -> Option<Node> {
    let negative = b.unary("Neg", x);
    let inputs: Vec<Option<ValueId>> = [Some(Some(negative)), axes.map(Some)].into_iter().flatten().collect();
    let total = b.ops(&node.op, &inputs, node.attributes.clone(), 1);
    Some(last(node, "Neg", &[*total.first()?]))
}
