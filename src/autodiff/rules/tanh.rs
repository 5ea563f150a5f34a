//! Tanh
//!
//! Forward:  `y = tanh(x)`.
//! Backward: `dx = dy * (1 - y^2)`.
//! Shapes:   any.
//! Opsets:   6 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Tanh.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "Tanh", opsets: 6..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, y) = (ctx.dy()?, ctx.y(0)?);
    let square = ctx.b.mul(y, y);
    let one = ctx.b.like(y, 1.0);
    let slope = ctx.b.sub(one, square);
    Ok(ctx.b.mul(dy, slope))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("matrix", "Tanh").range(&[2, 3], -2.0, 2.0),
            Case::new("zero and large", "Tanh").values(&[3], &[0.0, 1000.0, -1000.0]).expect(0, &[1.0, 0.0, 0.0]),
        ]);
    }
}
