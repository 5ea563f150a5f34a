//! Sin
//!
//! Forward:  `y = sin(x)`.
//! Backward: `dx = dy * cos(x)`.
//! Shapes:   any.
//! Opsets:   7 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Sin.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "Sin", opsets: 7..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let slope = ctx.b.unary("Cos", x);
    Ok(ctx.b.mul(dy, slope))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("matrix", "Sin").range(&[2, 3], -3.0, 3.0),
            Case::new("zero", "Sin").values(&[1], &[0.0]).expect(0, &[1.0]),
        ]);
    }
}
