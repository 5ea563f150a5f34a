//! Cos
//!
//! Forward:  `y = cos(x)`.
//! Backward: `dx = -dy * sin(x)`.
//! Shapes:   any.
//! Opsets:   7 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Cos.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "Cos", opsets: 7..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let sin = ctx.b.unary("Sin", x);
    let product = ctx.b.mul(dy, sin);
    Ok(ctx.b.unary("Neg", product))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("matrix", "Cos").range(&[2, 3], -3.0, 3.0),
            Case::new("zero", "Cos").values(&[1], &[0.0]).expect(0, &[0.0]),
        ]);
    }
}
