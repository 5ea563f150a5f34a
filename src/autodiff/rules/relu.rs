//! Relu
//!
//! Forward:  `y = max(x, 0)`.
//! Backward: `dx = dy where y > 0, else 0`.
//! Shapes:   any.
//! Opsets:   6 to 24.
//! At kinks: 0 at `x = 0`, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__Relu.html>

use super::shared::masked;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "Relu", opsets: 6..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, y) = (ctx.dy()?, ctx.y(0)?);
    let positive = ctx.b.compare("Greater", y, 0.0);
    Ok(masked(ctx, positive, dy))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("both sides", "Relu").input(&[4, 5]),
            Case::new("ties and large", "Relu")
                .values(&[4], &[0.0, 100.0, -100.0, 2.0])
                .expect(0, &[0.0, 1.0, 0.0, 1.0]),
        ]);
    }
}
