//! Identity
//!
//! Forward:  `y = x`.
//! Backward: `dx = dy`.
//! Shapes:   any.
//! Opsets:   1 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Identity.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "Identity", opsets: 1..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    ctx.dy()
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[Case::new("matrix", "Identity").linear().input(&[2, 3]).batch()]);
    }
}
