//! HardSwish
//!
//! Forward:  `y = x * min(max(x / 6 + 1 / 2, 0), 1)`.
//! Backward: `dx = 0` for `x <= -3`, `dy` for `x >= 3`, else `dy * (x / 3 + 1 / 2)`.
//! Shapes:   any.
//! Opsets:   14 to 24.
//! At kinks: 0 at `x = -3`, 1 at `x = 3`, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__HardSwish.html>

use super::shared::masked;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "HardSwish", opsets: 14..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let third = ctx.b.scale(x, 1.0 / 3.0);
    let slope = ctx.b.shift(third, 0.5);
    let middle = ctx.b.mul(dy, slope);
    let above = ctx.b.compare("Greater", x, -3.0);
    let low = masked(ctx, above, middle);
    let below = ctx.b.compare("Less", x, 3.0);
    Ok(ctx.b.select(below, low, dy))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("middle", "HardSwish").range(&[2, 3], -2.5, 2.5),
            Case::new("above", "HardSwish").range(&[2, 3], 3.5, 5.0),
            Case::new("bounds and large", "HardSwish")
                .values(&[5], &[-3.0, 3.0, 0.0, 1e30, -1e30])
                .expect(0, &[0.0, 1.0, 0.5, 1.0, 0.0]),
        ]);
    }
}
