//! HardSigmoid
//!
//! Forward:  `y = min(max(alpha * x + beta, 0), 1)`.
//! Backward: `dx = 0 < y < 1 ? alpha * dy : 0`.
//! Shapes:   any.
//! Opsets:   6 to 24.
//! At kinks: 0 at both bounds, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__HardSigmoid.html>

use super::shared::masked;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule =
    Rule { domain: "", op: "HardSigmoid", opsets: 6..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, y) = (ctx.dy()?, ctx.y(0)?);
    let alpha = ctx.attributes().float("alpha", 0.2)?;
    let above = ctx.b.compare("Greater", y, 0.0);
    let below = ctx.b.compare("Less", y, 1.0);
    let inside = ctx.b.op("And", &[above, below], Attributes::none());
    let slope = ctx.b.scale(dy, f64::from(alpha));
    Ok(masked(ctx, inside, slope))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("linear part", "HardSigmoid").range(&[2, 3], -2.0, 2.0),
            Case::new("attributes", "HardSigmoid").input(&[2, 3]).float("alpha", 0.25).float("beta", 0.5),
            Case::new("bounds and large", "HardSigmoid")
                .float("alpha", 0.25)
                .values(&[5], &[-2.0, 2.0, 0.0, 1e30, -1e30])
                .expect(0, &[0.0, 0.0, 0.25, 0.0, 0.0]),
        ]);
    }
}
