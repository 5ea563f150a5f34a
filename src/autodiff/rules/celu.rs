//! Celu
//!
//! Forward:  `y = max(x, 0) + min(0, alpha * (exp(x / alpha) - 1))`.
//! Backward: `dx = x > 0 ? dy : dy * exp(x / alpha)`.
//! Shapes:   any.
//! Opsets:   12 to 24.
//! At kinks: 1 from both sides at `x = 0`.
//! <https://onnx.ai/onnx/operators/onnx__Celu.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule =
    Rule { domain: "", op: "Celu", opsets: 12..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let alpha = ctx.attributes().float("alpha", 1.0)?;
    let zero = ctx.b.like(x, 0.0);
    let negative = ctx.b.op("Min", &[x, zero], Attributes::none());
    let scaled = ctx.b.scale(negative, 1.0 / f64::from(alpha));
    let slope = ctx.b.unary("Exp", scaled);
    Ok(ctx.b.mul(dy, slope))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("both sides", "Celu").away_from_zero(&[2, 3], 0.1),
            Case::new("alpha", "Celu").away_from_zero(&[2, 3], 0.1).float("alpha", 0.5),
            Case::new("zero and large", "Celu").values(&[3], &[0.0, 1e30, -1e30]).expect(0, &[1.0, 1.0, 0.0]),
        ]);
    }
}
