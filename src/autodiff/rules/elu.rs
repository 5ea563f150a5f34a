//! Elu
//!
//! Forward:  `y = x > 0 ? x : alpha * (exp(x) - 1)`.
//! Backward: `dx = x > 0 ? dy : dy * (y + alpha)`.
//! Shapes:   any.
//! Opsets:   6 to 24.
//! At kinks: `alpha` at `x = 0`, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__Elu.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "Elu", opsets: 6..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x, y) = (ctx.dy()?, ctx.x(0)?, ctx.y(0)?);
    let alpha = ctx.attributes().float("alpha", 1.0)?;
    let positive = ctx.b.compare("Greater", x, 0.0);
    let slope = ctx.b.shift(y, f64::from(alpha));
    let below = ctx.b.mul(dy, slope);
    Ok(ctx.b.select(positive, dy, below))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("both sides", "Elu").away_from_zero(&[2, 3], 0.1),
            Case::new("alpha", "Elu").away_from_zero(&[2, 3], 0.1).float("alpha", 0.5),
            Case::new("zero and large", "Elu")
                .float("alpha", 0.5)
                .values(&[3], &[0.0, 1e30, -1e30])
                .expect(0, &[0.5, 1.0, 0.0]),
        ]);
    }
}
