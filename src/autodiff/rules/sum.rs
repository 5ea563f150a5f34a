//! Sum
//!
//! Forward:  `y = x_0 + x_1 + ..`, broadcasting.
//! Backward: `dx_i = sum_to(x_i, dy)`.
//! Shapes:   numpy broadcasting.
//! Opsets:   8 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Sum.html>

use super::shared::unbroadcast;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "Sum", opsets: 8..=24, inputs: Inputs::Variadic(InputRule::Each(gradient)) };

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
            Case::new("one", "Sum").linear().input(&[2, 3]),
            Case::new("row, symbolic batch", "Sum").linear().input(&[2, 3]).input(&[3]).batch(),
            Case::new("three, broadcast", "Sum").linear().input(&[2, 3]).input(&[3]).input(&[2, 1]),
        ]);
    }
}
