//! Gelu, of the standard and as an internal operator below opset 20
//!
//! Forward:  `y = x * P(x)` with the normal distribution `P(x) = (1 + erf(x / sqrt(2))) / 2`, or
//!           `y = x * (1 + tanh(u)) / 2`, `u = c * (x + 0.044715 * x^3)`, `c = sqrt(2 / pi)`.
//! Backward: `dx = dy * (P(x) + x * exp(-x^2 / 2) / sqrt(2 * pi))`, or with `s = sigmoid(2 * u)`
//!           `dx = dy * s * (1 + x * (1 - s) * 2 * c * (1 + 0.134145 * x^2))`, with the slope at 6 or -6
//!           beyond those: it changes by less than 1e-8 there, and the powers would overflow.
//! Shapes:   any.
//! Opsets:   20 to 24, the internal operator any.
//! <https://onnx.ai/onnx/operators/onnx__Gelu.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, INTERNAL_DOMAIN, ValueId};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

pub static RULE: Rule =
    Rule { domain: "", op: "Gelu", opsets: 20..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

/// `ai.freeze-plan.Gelu`
pub static INTERNAL: Rule =
    Rule { domain: INTERNAL_DOMAIN, op: "Gelu", opsets: 1..=99, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

/// Where the slope has become 1, and its negative where it has become 0.
const FAR: f64 = 6.0;

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
    let (low, high) = (ctx.b.like(x, -FAR), ctx.b.like(x, FAR));
    let x = ctx.b.op("Clip", &[x, low, high], Attributes::none());
    let square = ctx.b.mul(x, x);
    let cubic = ctx.b.scale(square, 2.0 * 0.044_715 * c);
    let factor = ctx.b.shift(cubic, 2.0 * c);
    let twice_u = ctx.b.mul(x, factor);
    let s = ctx.b.unary("Sigmoid", twice_u);
    let one = ctx.b.like(x, 1.0);
    let rest = ctx.b.sub(one, s);
    let inner = ctx.b.scale(cubic, 3.0);
    let inner = ctx.b.shift(inner, 2.0 * c);
    let bend = ctx.b.mul(rest, inner);
    let bend = ctx.b.mul(x, bend);
    let factor = ctx.b.shift(bend, 1.0);
    ctx.b.mul(s, factor)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let gelu = |name| Case::new(name, "Gelu").opset(20);
        let internal = |name| Case::new(name, "Gelu").domain("ai.freeze-plan");
        let tails = "its Sigmoid is off by 1e-7 where it should be 0 or 1, times 50";
        let special = [0.0, 1.0, -1.0, 1e30, -1e30];
        check(&[
            gelu("exact").range(&[2, 3], -3.0, 3.0),
            gelu("tanh").range(&[2, 3], -3.0, 3.0).text("approximate", "tanh"),
            gelu("exact, large").values(&[5], &special).expect(0, &[0.5, 1.083_315_4, -0.083_315_4, 1.0, 0.0]),
            gelu("tanh, large")
                .text("approximate", "tanh")
                .values(&[5], &special)
                .expect(0, &[0.5, 1.082_964, -0.082_964, 1.0, 0.0])
                .not_embedded(tails),
            internal("internal, symbolic batch").range(&[2, 3], -3.0, 3.0).batch(),
            internal("internal tanh").range(&[2, 3], -3.0, 3.0).text("approximate", "tanh"),
            internal("internal, large").values(&[5], &special).expect(0, &[0.5, 1.083_315_4, -0.083_315_4, 1.0, 0.0]),
            gelu("tanh, far")
                .text("approximate", "tanh")
                .values(&[6], &[-4.0, -6.0, -9.0, 5.0, 9.0, 11.0])
                .expect(0, &[-0.000_334_972, 0.0, 0.0, 1.000_002, 1.0, 1.0])
                .not_embedded(tails),
        ]);
    }
}
