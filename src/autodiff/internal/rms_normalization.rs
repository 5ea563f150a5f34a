//! Normalization by the root mean square.
//!
//! `ai.freeze-plan.RMSNormalization(X, scale?) -> Y, inv_std`: `Y = X * inv_std * scale` with
//! `inv_std = 1 / sqrt(mean(X^2) + epsilon)` over the axes from attribute `axis` on (-1 where
//! absent); `scale` broadcasts to X; `inv_std` has size 1 in the normalized axes.
//!
//! The power and the division are those that ONNX Runtime's SimplifiedLayerNormFusion looks for,
//! and `inv_std` is computed beside them in another form: a shared one would keep the fusion away.

use super::Internal;
use crate::graph::{Attributes, Builder, Dim, Fact, INTERNAL_DOMAIN, Node, OpId, ValueId};

pub static INTERNAL: Internal = Internal { op: "RMSNormalization", lower };

/// Returns the internal operator of normalization by the root mean square.
pub fn rms_norm_op() -> OpId {
    OpId { domain: INTERNAL_DOMAIN.into(), name: "RMSNormalization".into() }
}

/// Appends the internal normalization over the axes from `axis` on and returns `Y, inv_std`. The
/// rank of `x` must be known.
pub fn rms_norm_node(b: &mut Builder, x: ValueId, scale: Option<ValueId>, axis: i64, epsilon: f32) -> [ValueId; 2] {
    let attributes = Attributes::none().with("axis", axis).with("epsilon", epsilon);
    let outputs = b.ops(&rms_norm_op(), &[Some(x), scale], attributes, 2);
    let like = b.fact(x).clone();
    let first = axes(&like, axis).first().map_or(0, |axis| *axis as usize);
    let mut shape = like.shape.clone().unwrap_or_default();
    shape.iter_mut().skip(first).for_each(|dim| *dim = Dim::Known(1));
    b.refine(outputs[0], &like);
    b.refine(outputs[1], &Fact { dtype: like.dtype, shape: Some(shape) });
    [outputs[0], outputs[1]]
}

/// The normalized axes, counted from the front.
fn axes(fact: &Fact, axis: i64) -> Vec<i64> {
    let rank = fact.rank().unwrap_or(1) as i64;
    (if axis < 0 { axis + rank } else { axis }..rank).collect()
}

fn lower(b: &mut Builder, node: &Node, inputs: &[Option<ValueId>]) -> Vec<ValueId> {
    let x = inputs.first().copied().flatten().expect("invariant: made with an input by the training passes");
    let axes = axes(b.fact(x), node.attributes.int("axis", -1).unwrap_or(-1));
    let epsilon = f64::from(node.attributes.float("epsilon", 1e-5).unwrap_or(1e-5));
    let two = b.like(x, 2.0);
    let square = b.op("Pow", &[x, two], Attributes::none());
    let std = root(b, square, &axes, epsilon);
    let normalized = b.div(x, std);
    let y = match inputs.get(1).copied().flatten() {
        Some(scale) => b.mul(normalized, scale),
        None => normalized,
    };
    let square = b.mul(x, x);
    let std = root(b, square, &axes, epsilon);
    let inv_std = b.unary("Reciprocal", std);
    vec![y, inv_std]
}

/// `sqrt(mean(square) + epsilon)`
fn root(b: &mut Builder, square: ValueId, axes: &[i64], epsilon: f64) -> ValueId {
    let mean = b.reduce("ReduceMean", square, axes, true);
    let shifted = b.shift(mean, epsilon);
    b.unary("Sqrt", shifted)
}
