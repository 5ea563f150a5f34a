//! Div
//!
//! Forward:  `y = a / b`, broadcasting.
//! Backward: `da = sum_to(a, dy / b)`, `db = sum_to(b, -(dy / b) * y)`.
//! Shapes:   numpy broadcasting.
//! Opsets:   7 to 24.
//! At kinks: infinite at `b = 0`, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__Div.html>

use super::shared::unbroadcast;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = Rule {
    domain: "",
    op: "Div",
    opsets: 7..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(dividend), InputRule::Gradient(divisor)]),
};

fn quotient(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    ctx.once("quotient", |ctx| {
        let (dy, b) = (ctx.dy()?, ctx.x(1)?);
        Ok(ctx.b.div(dy, b))
    })
}

fn dividend(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (grad, a) = (quotient(ctx)?, ctx.x(0)?);
    unbroadcast(ctx, grad, a)
}

fn divisor(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (quotient, b, y) = (quotient(ctx)?, ctx.x(1)?, ctx.y(0)?);
    let product = ctx.b.mul(quotient, y);
    let grad = unbroadcast(ctx, product, b)?;
    Ok(ctx.b.unary("Neg", grad))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("same shape", "Div").input(&[2, 3]).range(&[2, 3], 0.5, 2.0),
            Case::new("row, symbolic batch", "Div").input(&[2, 3]).range(&[3], -2.0, -0.5).batch(),
            Case::new("scalar over matrix", "Div").input(&[]).range(&[2, 3], 0.5, 2.0),
            Case::new("large", "Div")
                .values(&[2], &[1e30, 0.0])
                .values(&[2], &[1e30, -1e30])
                .expect(0, &[1e-30, -1e-30])
                .expect(1, &[-1e-30, 0.0]),
        ]);
    }
}
