//! Sub
//!
//! Forward:  `y = a - b`, broadcasting.
//! Backward: `da = sum_to(a, dy)`, `db = sum_to(b, -dy)`.
//! Shapes:   numpy broadcasting.
//! Opsets:   7 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Sub.html>

use super::shared::unbroadcast;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = Rule {
    domain: "",
    op: "Sub",
    opsets: 7..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(minuend), InputRule::Gradient(subtrahend)]),
};

fn minuend(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, a) = (ctx.dy()?, ctx.x(0)?);
    unbroadcast(ctx, dy, a)
}

fn subtrahend(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, b) = (ctx.dy()?, ctx.x(1)?);
    let grad = unbroadcast(ctx, dy, b)?;
    Ok(ctx.b.unary("Neg", grad))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("same shape", "Sub").linear().input(&[2, 3]).input(&[2, 3]),
            Case::new("row, symbolic batch", "Sub").linear().input(&[2, 3]).input(&[3]).batch(),
            Case::new("column and new axis", "Sub").linear().input(&[2, 1]).input(&[4, 1, 3]),
            Case::new("scalar", "Sub").linear().input(&[]).input(&[2, 3]),
        ]);
    }
}
