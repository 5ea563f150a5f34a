//! Abs
//!
//! Forward:  `y = |x|`.
//! Backward: `dx = dy * sign(x)`.
//! Shapes:   any.
//! Opsets:   6 to 24.
//! At kinks: 0 at `x = 0`, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__Abs.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "Abs", opsets: 6..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let sign = ctx.b.unary("Sign", x);
    Ok(ctx.b.mul(dy, sign))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("both sides", "Abs").away_from_zero(&[2, 3], 0.1),
            Case::new("zero and large", "Abs")
                .values(&[4], &[0.0, -1e30, 1e30, -2.0])
                .expect(0, &[0.0, -1.0, 1.0, -1.0]),
        ]);
    }
}
