//! PRelu
//!
//! Forward:  `y = x > 0 ? x : slope * x`.
//! Backward: `dx = x > 0 ? dy : slope * dy`, `dslope = sum_to(slope, x > 0 ? 0 : x * dy)`.
//! Shapes:   slope broadcasts to x.
//! Opsets:   7 to 24.
//! At kinks: `slope` at `x = 0`, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__PRelu.html>

use super::shared::unbroadcast;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = Rule {
    domain: "",
    op: "PRelu",
    opsets: 7..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Gradient(slope)]),
};

fn positive(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    ctx.once("positive", |ctx| {
        let x = ctx.x(0)?;
        Ok(ctx.b.compare("Greater", x, 0.0))
    })
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, slope, positive) = (ctx.dy()?, ctx.x(1)?, positive(ctx)?);
    let below = ctx.b.mul(dy, slope);
    Ok(ctx.b.select(positive, dy, below))
}

fn slope(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x, slope, positive) = (ctx.dy()?, ctx.x(0)?, ctx.x(1)?, positive(ctx)?);
    let product = ctx.b.mul(dy, x);
    let zero = ctx.b.like(dy, 0.0);
    let grad = ctx.b.select(positive, zero, product);
    unbroadcast(ctx, grad, slope)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("same shape", "PRelu").away_from_zero(&[2, 3], 0.1).input(&[2, 3]),
            Case::new("channel, symbolic batch", "PRelu").away_from_zero(&[2, 3, 4], 0.1).input(&[3, 1]).batch(),
            Case::new("one slope", "PRelu").away_from_zero(&[2, 3], 0.1).input(&[1]),
            Case::new("zero and large", "PRelu")
                .values(&[4], &[0.0, -2.0, 1e30, -1e30])
                .values(&[4], &[0.25; 4])
                .expect(0, &[0.25, 0.25, 1.0, 0.25])
                .expect(1, &[0.0, -2.0, 0.0, -1e30]),
        ]);
    }
}
