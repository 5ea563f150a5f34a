//! Log
//!
//! Forward:  `y = ln(x)`.
//! Backward: `dx = dy / x`.
//! Shapes:   any.
//! Opsets:   6 to 24.
//! At kinks: infinite at `x = 0`, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__Log.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "Log", opsets: 6..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    Ok(ctx.b.div(dy, x))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("positive", "Log").range(&[2, 3], 0.5, 4.0),
            Case::new("small and large", "Log").values(&[2], &[1e-3, 1e30]).expect(0, &[1e3, 1e-30]),
        ]);
    }
}
