//! Softsign
//!
//! Forward:  `y = x / (1 + |x|)`.
//! Backward: `dx = dy / (1 + |x|)^2`.
//! Shapes:   any.
//! Opsets:   1 to 24.
//! At kinks: smooth: 1 at `x = 0`.
//! <https://onnx.ai/onnx/operators/onnx__Softsign.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "Softsign", opsets: 1..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let size = ctx.b.unary("Abs", x);
    let divisor = ctx.b.shift(size, 1.0);
    let once = ctx.b.div(dy, divisor);
    Ok(ctx.b.div(once, divisor))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("both sides", "Softsign").away_from_zero(&[2, 3], 0.1),
            Case::new("zero and large", "Softsign").values(&[3], &[0.0, 3.0, -1e30]).expect(0, &[1.0, 0.0625, 0.0]),
        ]);
    }
}
