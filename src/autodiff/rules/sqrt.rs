//! Sqrt
//!
//! Forward:  `y = sqrt(x)`.
//! Backward: `dx = dy / (2 * y)`.
//! Shapes:   any.
//! Opsets:   6 to 24.
//! At kinks: infinite at `x = 0`, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__Sqrt.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "Sqrt", opsets: 6..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, y) = (ctx.dy()?, ctx.y(0)?);
    let half = ctx.b.scale(dy, 0.5);
    Ok(ctx.b.div(half, y))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("positive", "Sqrt").range(&[2, 3], 0.5, 4.0),
            Case::new("small and large", "Sqrt").values(&[3], &[1e-4, 4.0, 1e30]).expect(0, &[50.0, 0.25, 5e-16]),
        ]);
    }
}
