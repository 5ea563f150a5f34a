//! Softmax that gives zeros where it is not a number: in rows without any finite element.
//!
//! `ai.freeze-plan.SafeSoftmax(X) -> Y` with attribute `axis` (-1 where absent).

use super::Internal;
use crate::graph::{Attributes, Builder, INTERNAL_DOMAIN, Node, OpId, ValueId};

pub static INTERNAL: Internal = Internal { op: "SafeSoftmax", lower };

/// Returns the internal operator of the softmax that gives zeros where it is not a number.
pub fn safe_softmax_op() -> OpId {
    OpId { domain: INTERNAL_DOMAIN.into(), name: "SafeSoftmax".into() }
}

fn lower(b: &mut Builder, node: &Node, inputs: &[Option<ValueId>]) -> Vec<ValueId> {
    let x = inputs.first().copied().flatten().expect("invariant: made with an input by the training passes");
    let axis = node.attributes.int("axis", -1).unwrap_or(-1);
    let softmax = b.op("Softmax", &[x], Attributes::none().with("axis", axis));
    let lost = b.unary("IsNaN", softmax);
    let zero = b.like(x, 0.0);
    vec![b.select(lost, zero, softmax)]
}
