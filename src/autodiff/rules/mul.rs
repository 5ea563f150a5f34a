//! Mul
//!
//! Forward:  `y = a * b`, broadcasting.
//! Backward: `da = sum_to(a, dy * b)`, `db = sum_to(b, dy * a)`.
//! Shapes:   numpy broadcasting.
//! Opsets:   7 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Mul.html>

use super::shared::unbroadcast;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = Rule {
    domain: "",
    op: "Mul",
    opsets: 7..=24,
    inputs: Inputs::Fixed(&[InputRule::Each(gradient), InputRule::Each(gradient)]),
};

fn gradient(ctx: &mut Ctx<'_>, index: usize) -> Result<ValueId, RuleError> {
    let (dy, input, other) = (ctx.dy()?, ctx.x(index)?, ctx.x(1 - index)?);
    let grad = ctx.b.mul(dy, other);
    unbroadcast(ctx, grad, input)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("same shape", "Mul").input(&[2, 3]).input(&[2, 3]),
            Case::new("channel", "Mul").input(&[2, 3, 4]).input(&[3, 1]),
            Case::new("scalar", "Mul").input(&[]).input(&[2, 3]),
        ]);
    }
}
