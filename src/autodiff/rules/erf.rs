//! Erf
//!
//! Forward:  `y = erf(x)`.
//! Backward: `dx = dy * 2 / sqrt(pi) * exp(-x^2)`.
//! Shapes:   any.
//! Opsets:   9 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Erf.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "Erf", opsets: 9..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let square = ctx.b.mul(x, x);
    let negative = ctx.b.unary("Neg", square);
    let bell = ctx.b.unary("Exp", negative);
    let slope = ctx.b.scale(bell, std::f64::consts::FRAC_2_SQRT_PI);
    Ok(ctx.b.mul(dy, slope))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("matrix", "Erf").range(&[2, 3], -2.0, 2.0),
            Case::new("zero and large", "Erf")
                .values(&[4], &[0.0, 1.0, 1e30, -1e30])
                .expect(0, &[std::f32::consts::FRAC_2_SQRT_PI, 0.415_107_5, 0.0, 0.0]),
        ]);
    }
}
