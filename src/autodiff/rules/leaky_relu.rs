//! LeakyRelu
//!
//! Forward:  `y = x > 0 ? x : alpha * x`.
//! Backward: `dx = x > 0 ? dy : alpha * dy`.
//! Shapes:   any.
//! Opsets:   6 to 24.
//! At kinks: `alpha` at `x = 0`, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__LeakyRelu.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "LeakyRelu", opsets: 6..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let alpha = ctx.attributes().float("alpha", 0.01)?;
    let positive = ctx.b.compare("Greater", x, 0.0);
    let leak = ctx.b.scale(dy, f64::from(alpha));
    Ok(ctx.b.select(positive, dy, leak))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("both sides", "LeakyRelu").away_from_zero(&[2, 3], 0.1).float("alpha", 0.2),
            Case::new("negative slope", "LeakyRelu").away_from_zero(&[2, 3], 0.1).float("alpha", -0.5),
            Case::new("zero and large", "LeakyRelu").values(&[3], &[0.0, 1e30, -1e30]).expect(0, &[0.01, 1.0, 0.01]),
        ]);
    }
}
