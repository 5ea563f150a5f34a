//! Batch normalization by the batch's own statistics.
//!
//! `ai.freeze-plan.BatchNormalization(X, scale, B) -> Y, mean, var, centered, inv_std`:
//! inputs `X [N, C, D..]`, `scale [C]`, `B [C]`; attribute `epsilon`; outputs `Y` like X,
//! `mean [C]` and biased `var [C]` of the batch, `centered = X - mean` like X and
//! `inv_std = 1 / sqrt(var + epsilon)` as `[1, C, 1..]`.

use super::Internal;
use crate::graph::{Attributes, Builder, Fact, INTERNAL_DOMAIN, Node, OpId, ValueId};

pub static INTERNAL: Internal = Internal { op: "BatchNormalization", lower };

/// Returns the internal operator of training-form batch normalization.
pub fn batch_norm_op() -> OpId {
    OpId { domain: INTERNAL_DOMAIN.into(), name: "BatchNormalization".into() }
}

/// Appends the internal batch normalization and returns `Y, mean, var, centered, inv_std`.
pub fn batch_norm_node(b: &mut Builder, x: ValueId, scale: ValueId, bias: ValueId, epsilon: f32) -> [ValueId; 5] {
    let attributes = Attributes::none().with("epsilon", epsilon);
    let outputs = b.ops(&batch_norm_op(), &[Some(x), Some(scale), Some(bias)], attributes, 5);
    let (like, channel) = (b.fact(x).clone(), b.fact(scale).clone());
    for (index, fact) in [&like, &channel, &channel, &like].into_iter().enumerate() {
        b.refine(outputs[index], fact);
    }
    b.refine(outputs[4], &Fact { dtype: like.dtype, shape: None });
    outputs.try_into().expect("invariant: five outputs were asked for")
}

fn lower(b: &mut Builder, node: &Node, inputs: &[Option<ValueId>]) -> Vec<ValueId> {
    let [Some(x), Some(scale), Some(bias)] = inputs else {
        unreachable!("invariant: made with three inputs by the training passes");
    };
    let rank = b.fact(*x).rank().unwrap_or(4) as i64;
    let over: Vec<i64> = (0..rank).filter(|axis| *axis != 1).collect();
    let mut channel = vec![1; rank as usize];
    channel[1] = -1;
    let mean = b.reduce("ReduceMean", *x, &over, true);
    let centered = b.sub(*x, mean);
    let square = b.mul(centered, centered);
    let var = b.reduce("ReduceMean", square, &over, true);
    let epsilon = f64::from(node.attributes.float("epsilon", 1e-5).unwrap_or(1e-5));
    let shifted = b.shift(var, epsilon);
    let std = b.unary("Sqrt", shifted);
    let inv_std = b.unary("Reciprocal", std);
    let scale = b.reshape(*scale, &channel);
    let bias = b.reshape(*bias, &channel);
    let factor = b.mul(scale, inv_std);
    let product = b.mul(centered, factor);
    let y = b.add(product, bias);
    let (mean, var) = (b.reshape(mean, &[-1]), b.reshape(var, &[-1]));
    vec![y, mean, var, centered, inv_std]
}
