//! ThresholdedRelu
//!
//! Forward:  `y = x > alpha ? x : 0`.
//! Backward: `dx = x > alpha ? dy : 0`.
//! Shapes:   any.
//! Opsets:   10 to 24.
//! At kinks: 0 at `x = alpha`, as PyTorch's `threshold`.
//! <https://onnx.ai/onnx/operators/onnx__ThresholdedRelu.html>

use super::shared::masked;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "ThresholdedRelu", opsets: 10..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let alpha = ctx.attributes().float("alpha", 1.0)?;
    let above = ctx.b.compare("Greater", x, f64::from(alpha));
    Ok(masked(ctx, above, dy))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("alpha 0, symbolic batch", "ThresholdedRelu")
                .away_from_zero(&[2, 3], 0.1)
                .float("alpha", 0.0)
                .batch(),
            Case::new("default alpha", "ThresholdedRelu")
                .values(&[4], &[1.0, 2.0, -1.0, 1e30])
                .expect(0, &[0.0, 1.0, 0.0, 1.0]),
            Case::new("negative alpha", "ThresholdedRelu")
                .values(&[3], &[-0.5, -0.25, -1.0])
                .float("alpha", -0.5)
                .expect(0, &[0.0, 1.0, 0.0]),
        ]);
    }
}
