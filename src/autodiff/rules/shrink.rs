//! Shrink
//!
//! Forward:  `y = x < -lambd ? x + bias : x > lambd ? x - bias : 0`.
//! Backward: `dx = |x| > lambd ? dy : 0`.
//! Shapes:   any.
//! Opsets:   9 to 24.
//! At kinks: 0 at `x = -lambd` and `x = lambd`, as PyTorch's `hardshrink` and `softshrink`.
//! <https://onnx.ai/onnx/operators/onnx__Shrink.html>

use super::shared::masked;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "Shrink", opsets: 9..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let lambd = ctx.attributes().float("lambd", 0.5)?;
    let size = ctx.b.unary("Abs", x);
    let outside = ctx.b.compare("Greater", size, f64::from(lambd));
    Ok(masked(ctx, outside, dy))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let soft = |name| Case::new(name, "Shrink").float("bias", 0.25).float("lambd", 0.25);
        check(&[
            Case::new("hard", "Shrink").values(&[2, 3], &[0.9, -0.2, 0.1, -0.7, 1.5, 0.3]).batch(),
            soft("soft").values(&[2, 3], &[0.9, -0.2, 0.1, -0.7, 1.5, 0.3]),
            Case::new("kinks, hard", "Shrink")
                .values(&[5], &[-0.5, 0.5, 0.0, 1.0, -1.0])
                .expect(0, &[0.0, 0.0, 0.0, 1.0, 1.0]),
            soft("kinks, soft").values(&[4], &[-0.25, 0.25, 1e30, -1e30]).expect(0, &[0.0, 0.0, 1.0, 1.0]),
        ]);
    }
}
