//! Selu
//!
//! Forward:  `y = x > 0 ? gamma * x : gamma * alpha * (exp(x) - 1)`.
//! Backward: `dx = x > 0 ? gamma * dy : dy * (y + gamma * alpha)`.
//! Shapes:   any.
//! Opsets:   6 to 24.
//! At kinks: `gamma * alpha` at `x = 0`, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__Selu.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "Selu", opsets: 6..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x, y) = (ctx.dy()?, ctx.x(0)?, ctx.y(0)?);
    let alpha = f64::from(ctx.attributes().float("alpha", 1.673_263_2)?);
    let gamma = f64::from(ctx.attributes().float("gamma", 1.050_701)?);
    let positive = ctx.b.compare("Greater", x, 0.0);
    let above = ctx.b.scale(dy, gamma);
    let slope = ctx.b.shift(y, gamma * alpha);
    let below = ctx.b.mul(dy, slope);
    Ok(ctx.b.select(positive, above, below))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("both sides", "Selu").away_from_zero(&[2, 3], 0.1),
            Case::new("attributes", "Selu").away_from_zero(&[2, 3], 0.1).float("alpha", 0.5).float("gamma", 2.0),
            Case::new("zero and large", "Selu")
                .values(&[3], &[0.0, 1e30, -1e30])
                .expect(0, &[1.758_099_3, 1.050_701, 0.0]),
        ]);
    }
}
