//! LogSoftmax
//!
//! Forward:  `y = x - ln(sum of exp(x) along axis)`.
//! Backward: `dx = dy - exp(y) * sum of dy along axis`.
//! Shapes:   any.
//! Opsets:   1 to 24.
//! <https://onnx.ai/onnx/operators/onnx__LogSoftmax.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "LogSoftmax", opsets: 1..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, y) = (ctx.dy()?, ctx.y(0)?);
    let axis = ctx.attributes().int("axis", -1)?;
    let sum = ctx.b.reduce("ReduceSum", dy, &[axis], true);
    let softmax = ctx.b.unary("Exp", y);
    let product = ctx.b.mul(softmax, sum);
    Ok(ctx.b.sub(dy, product))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("last", "LogSoftmax").input(&[2, 3]),
            Case::new("middle, symbolic batch", "LogSoftmax").input(&[2, 3, 4]).int("axis", 1).batch(),
            Case::new("symbols", "LogSoftmax").input(&[2, 3, 4]).int("axis", 1).symbols(&[
                (0, 0, "a"),
                (0, 1, "b"),
                (0, 2, "c"),
            ]),
            Case::new("flattened", "LogSoftmax").opset(7).input(&[2, 3, 4]).int("axis", 1).batch(),
            Case::new("default axis", "LogSoftmax").opset(7).input(&[2, 3, 1]).batch(),
            Case::new("negative axis", "LogSoftmax").opset(12).input(&[2, 3, 4]).int("axis", -2),
            Case::new("large and tied", "LogSoftmax")
                .values(&[3], &[1000.0, 0.0, 1000.0])
                .expect(0, &[-0.5, 1.0, -0.5]),
        ]);
    }
}
