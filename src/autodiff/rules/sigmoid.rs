//! Sigmoid
//!
//! Forward:  `y = 1 / (1 + exp(-x))`.
//! Backward: `dx = dy * y * (1 - y)`.
//! Shapes:   any.
//! Opsets:   6 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Sigmoid.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "Sigmoid", opsets: 6..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, y) = (ctx.dy()?, ctx.y(0)?);
    let square = ctx.b.mul(y, y);
    let slope = ctx.b.sub(y, square);
    Ok(ctx.b.mul(dy, slope))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("matrix", "Sigmoid").range(&[2, 3], -3.0, 3.0),
            Case::new("zero and large", "Sigmoid").values(&[3], &[0.0, 1000.0, -1000.0]).expect(0, &[0.25, 0.0, 0.0]),
        ]);
    }
}
