//! Gelu below opset 20.
//!
//! `ai.freeze-plan.Gelu(X) -> Y` with attribute `approximate`, as the standard operator has it.
//!
//! The exact form is lowered as ONNX Runtime's GeluFusion looks for it, with a division where the
//! gradient multiplies: equal nodes would be merged and the fusion kept away.

use super::Internal;
use crate::graph::{Attributes, Builder, INTERNAL_DOMAIN, Node, OpId, ValueId};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, SQRT_2};

pub static INTERNAL: Internal = Internal { op: "Gelu", lower };

/// Returns the internal operator of Gelu.
pub fn gelu_op() -> OpId {
    OpId { domain: INTERNAL_DOMAIN.into(), name: "Gelu".into() }
}

/// Appends the internal Gelu; `approximate` is `none` or `tanh`.
pub fn gelu_node(b: &mut Builder, x: ValueId, approximate: &str) -> ValueId {
    let y = b.ops(&gelu_op(), &[Some(x)], Attributes::none().with("approximate", approximate), 1)[0];
    let fact = b.fact(x).clone();
    b.refine(y, &fact);
    y
}

fn lower(b: &mut Builder, node: &Node, inputs: &[Option<ValueId>]) -> Vec<ValueId> {
    let x = inputs.first().copied().flatten().expect("invariant: made with an input by the training passes");
    let curve = if node.attributes.text("approximate", "none").is_ok_and(|kind| kind == "tanh") {
        let three = b.like(x, 3.0);
        let cube = b.op("Pow", &[x, three], Attributes::none());
        let cube = b.scale(cube, 0.044_715);
        let sum = b.add(x, cube);
        let inner = b.scale(sum, FRAC_1_SQRT_2 * FRAC_2_SQRT_PI);
        b.unary("Tanh", inner)
    } else {
        let divisor = b.like(x, SQRT_2);
        let inner = b.div(x, divisor);
        b.unary("Erf", inner)
    };
    let shifted = b.shift(curve, 1.0);
    let product = b.mul(x, shifted);
    vec![b.scale(product, 0.5)]
}
