//! Add
//!
//! Forward:  `y = a + b`, broadcasting.
//! Backward: `da = sum_to(a, dy)`, `db = sum_to(b, dy)`.
//! Shapes:   numpy broadcasting.
//! Opsets:   7 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Add.html>

use super::shared::unbroadcast;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = Rule {
    domain: "",
    op: "Add",
    opsets: 7..=24,
    inputs: Inputs::Fixed(&[InputRule::Each(gradient), InputRule::Each(gradient)]),
};

fn gradient(ctx: &mut Ctx<'_>, index: usize) -> Result<ValueId, RuleError> {
    let (dy, input) = (ctx.dy()?, ctx.x(index)?);
    unbroadcast(ctx, dy, input)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("same shape", "Add").input(&[2, 3]).input(&[2, 3]),
            Case::new("row", "Add").input(&[2, 3]).input(&[3]),
            Case::new("column and new axis", "Add").input(&[2, 1]).input(&[4, 1, 3]),
            Case::new("scalar", "Add").input(&[2, 3]).input(&[]),
        ]);
    }
}
