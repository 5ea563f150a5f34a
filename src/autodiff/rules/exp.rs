//! Exp
//!
//! Forward:  `y = exp(x)`.
//! Backward: `dx = dy * y`.
//! Shapes:   any.
//! Opsets:   6 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Exp.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "Exp", opsets: 6..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, y) = (ctx.dy()?, ctx.y(0)?);
    Ok(ctx.b.mul(dy, y))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("matrix", "Exp").input(&[2, 3]),
            Case::new("zero and far below", "Exp").values(&[2], &[0.0, -1000.0]).expect(0, &[1.0, 0.0]),
        ]);
    }
}
