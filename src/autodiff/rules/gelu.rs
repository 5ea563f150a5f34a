//! Gelu
//!
//! Forward:  `y = x * P(x)` with the normal distribution `P(x) = (1 + erf(x / sqrt(2))) / 2`, or
//!           `y = x * (1 + tanh(u)) / 2`, `u = c * (x + 0.044715 * x^3)`, `c = sqrt(2 / pi)`.
//! Backward: `dx = dy * (P(x) + x * exp(-x^2 / 2) / sqrt(2 * pi))`, or with `s = sigmoid(2 * u)`
//!           `dx = dy * (s + x * s * (1 - s) * 2 * c * (1 + 0.134145 * x^2))`, the second term only for
//!           `|x| < 6`: beyond, it is below 1e-8 and its factors overflow.
//! Shapes:   any.
//! Opsets:   20 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Gelu.html>

use super::shared::masked;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

pub static RULE: Rule =
    Rule { domain: "", op: "Gelu", opsets: 20..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let slope = match ctx.attributes().text("approximate", "none")?.as_str() {
        "none" => exact(ctx, x),
        "tanh" => approximate(ctx, x),
        other => return Err(RuleError::Unsupported(format!("approximate \"{other}\" is not known"))),
    };
    Ok(ctx.b.mul(dy, slope))
}

fn exact(ctx: &mut Ctx<'_>, x: ValueId) -> ValueId {
    let scaled = ctx.b.scale(x, FRAC_1_SQRT_2);
    let erf = ctx.b.unary("Erf", scaled);
    let half = ctx.b.scale(erf, 0.5);
    let area = ctx.b.shift(half, 0.5);
    let square = ctx.b.mul(x, x);
    let power = ctx.b.scale(square, -0.5);
    let bell = ctx.b.unary("Exp", power);
    let density = ctx.b.scale(bell, FRAC_1_SQRT_2 * FRAC_2_SQRT_PI / 2.0);
    let moment = ctx.b.mul(x, density);
    ctx.b.add(area, moment)
}

fn approximate(ctx: &mut Ctx<'_>, x: ValueId) -> ValueId {
    let c = FRAC_1_SQRT_2 * FRAC_2_SQRT_PI;
    let square = ctx.b.mul(x, x);
    let cubic = ctx.b.scale(square, 2.0 * 0.044_715 * c);
    let factor = ctx.b.shift(cubic, 2.0 * c);
    let twice_u = ctx.b.mul(x, factor);
    let s = ctx.b.unary("Sigmoid", twice_u);
    let s_square = ctx.b.mul(s, s);
    let s_slope = ctx.b.sub(s, s_square);
    let inner = ctx.b.scale(square, 6.0 * 0.044_715 * c);
    let inner = ctx.b.shift(inner, 2.0 * c);
    let moment = ctx.b.mul(x, s_slope);
    let product = ctx.b.mul(moment, inner);
    let size = ctx.b.unary("Abs", x);
    let near = ctx.b.compare("Less", size, 6.0);
    let bend = masked(ctx, near, product);
    ctx.b.add(s, bend)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let gelu = |name| Case::new(name, "Gelu").opset(20);
        let special = [0.0, 1.0, -1.0, 1e30, -1e30];
        check(&[
            gelu("exact").range(&[2, 3], -3.0, 3.0),
            gelu("tanh").range(&[2, 3], -3.0, 3.0).text("approximate", "tanh"),
            gelu("exact, large").values(&[5], &special).expect(0, &[0.5, 1.083_315_4, -0.083_315_4, 1.0, 0.0]),
            gelu("tanh, large")
                .text("approximate", "tanh")
                .values(&[5], &special)
                .expect(0, &[0.5, 1.082_964, -0.082_964, 1.0, 0.0]),
        ]);
    }
}
