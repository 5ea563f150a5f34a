//! Softmax
//!
//! Forward:  `y = exp(x) / sum of exp(x) along axis`.
//! Backward: `dx = y * (dy - sum of dy * y along axis)`.
//! Shapes:   any.
//! Opsets:   1 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Softmax.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "Softmax", opsets: 1..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

pub(super) fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, y) = (ctx.dy()?, ctx.y(0)?);
    let axis = ctx.attributes().int("axis", -1)?;
    let product = ctx.b.mul(dy, y);
    let sum = ctx.b.reduce("ReduceSum", product, &[axis], true);
    let centered = ctx.b.sub(dy, sum);
    Ok(ctx.b.mul(y, centered))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("last", "Softmax").input(&[2, 3]),
            Case::new("middle, symbolic batch", "Softmax").input(&[2, 3, 4]).int("axis", 1).batch(),
            Case::new("batch axis", "Softmax").input(&[2, 3]).int("axis", 0).batch(),
            Case::new("flattened", "Softmax").opset(7).input(&[2, 3, 4]).int("axis", 1).batch(),
            Case::new("default axis", "Softmax").opset(7).input(&[2, 3, 1]).batch(),
            Case::new("negative axis", "Softmax").opset(12).input(&[2, 3, 4]).int("axis", -2),
            Case::new("large and tied", "Softmax").values(&[3], &[1000.0, -1000.0, 1000.0]).expect(0, &[0.0; 3]),
        ]);
    }
}
