//! Softplus
//!
//! Forward:  `y = ln(1 + exp(x))`.
//! Backward: `dx = dy * sigmoid(x)`.
//! Shapes:   any.
//! Opsets:   1 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Softplus.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "Softplus", opsets: 1..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let slope = ctx.b.unary("Sigmoid", x);
    Ok(ctx.b.mul(dy, slope))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("matrix", "Softplus").range(&[2, 3], -3.0, 3.0),
            Case::new("zero and large", "Softplus").values(&[3], &[0.0, 1000.0, -1000.0]).expect(0, &[0.5, 1.0, 0.0]),
        ]);
    }
}
