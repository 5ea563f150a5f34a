//! Neg
//!
//! Forward:  `y = -x`.
//! Backward: `dx = -dy`.
//! Shapes:   any.
//! Opsets:   6 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Neg.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "Neg", opsets: 6..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let dy = ctx.dy()?;
    Ok(ctx.b.unary("Neg", dy))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[Case::new("matrix", "Neg").linear().input(&[2, 3]), Case::new("scalar", "Neg").linear().input(&[])]);
    }
}
