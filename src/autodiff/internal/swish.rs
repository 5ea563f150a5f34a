//! Swish.
//!
//! `ai.freeze-plan.Swish(X) -> Y, gate` with attribute `alpha`: `Y = X * gate`,
//! `gate = sigmoid(alpha * X)`.

use super::Internal;
use crate::graph::{Attributes, Builder, INTERNAL_DOMAIN, Node, OpId, ValueId};

pub static INTERNAL: Internal = Internal { op: "Swish", lower };

/// Returns the internal operator of Swish.
pub fn swish_op() -> OpId {
    OpId { domain: INTERNAL_DOMAIN.into(), name: "Swish".into() }
}

/// Appends the internal Swish and returns `Y`.
pub fn swish_node(b: &mut Builder, x: ValueId, alpha: f32) -> ValueId {
    let outputs = b.ops(&swish_op(), &[Some(x)], Attributes::none().with("alpha", alpha), 2);
    let fact = b.fact(x).clone();
    outputs.iter().for_each(|output| b.refine(*output, &fact));
    outputs[0]
}

fn lower(b: &mut Builder, node: &Node, inputs: &[Option<ValueId>]) -> Vec<ValueId> {
    let x = inputs.first().copied().flatten().expect("invariant: made with an input by the training passes");
    let alpha = f64::from(node.attributes.float("alpha", 1.0).unwrap_or(1.0));
    let inner = if alpha == 1.0 { x } else { b.scale(x, alpha) };
    let gate = b.unary("Sigmoid", inner);
    vec![b.mul(x, gate), gate]
}
