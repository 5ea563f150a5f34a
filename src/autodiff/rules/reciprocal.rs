//! Reciprocal
//!
//! Forward:  `y = 1 / x`.
//! Backward: `dx = -dy * y^2`.
//! Shapes:   any.
//! Opsets:   6 to 24.
//! At kinks: infinite at `x = 0`, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__Reciprocal.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "Reciprocal", opsets: 6..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, y) = (ctx.dy()?, ctx.y(0)?);
    let square = ctx.b.mul(y, y);
    let product = ctx.b.mul(dy, square);
    Ok(ctx.b.unary("Neg", product))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("positive", "Reciprocal").range(&[2, 3], 0.5, 2.0),
            Case::new("negative and large", "Reciprocal")
                .values(&[3], &[-2.0, 1e30, -0.5])
                .expect(0, &[-0.25, 0.0, -4.0]),
        ]);
    }
}
