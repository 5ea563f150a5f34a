//! Pow
//!
//! Forward:  `y = x^p`, broadcasting.
//! Backward: `dx = sum_to(x, dy * p * x^(p - 1))`, 0 where `p = 0`; without a power for constant `p` of 0, 1, 2;
//!           `dp = sum_to(p, x > 0 ? dy * y * ln(x) : 0)`.
//! Shapes:   numpy broadcasting.
//! Opsets:   7 to 24.
//! At kinks: at `x = 0`, dx is 0 for `p = 0` and `p > 1`, 1 for `p = 1` and infinite for other p, as PyTorch;
//!           dp is 0 at `x <= 0`, where PyTorch has NaN for `x < 0`, and -inf for `x = 0` and `p < 0`.
//! <https://onnx.ai/onnx/operators/onnx__Pow.html>

use super::shared::{cast_to, constant_number, masked, unbroadcast, zeros};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "Pow",
    opsets: 7..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(base), InputRule::Gradient(exponent)]),
};

fn base(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x, p) = (ctx.dy()?, ctx.x(0)?, ctx.x(1)?);
    let grad = match constant_number(ctx, p) {
        Some(0.0) => return zeros(ctx),
        Some(1.0) => dy,
        Some(p) => {
            let power = match p {
                2.0 => x,
                _ => {
                    let less = ctx.b.like(x, p - 1.0);
                    ctx.b.op("Pow", &[x, less], Attributes::none())
                }
            };
            let slope = ctx.b.scale(power, p);
            ctx.b.mul(dy, slope)
        }
        None => {
            let dtype = ctx.dtype(x);
            let p = cast_to(ctx, p, dtype);
            let less = ctx.b.shift(p, -1.0);
            let power = ctx.b.op("Pow", &[x, less], Attributes::none());
            let slope = ctx.b.mul(p, power);
            let sloped = ctx.b.compare("Equal", p, 0.0);
            let sloped = ctx.b.unary("Not", sloped);
            let slope = masked(ctx, sloped, slope);
            ctx.b.mul(dy, slope)
        }
    };
    unbroadcast(ctx, grad, x)
}

fn exponent(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x, p, y) = (ctx.dy()?, ctx.x(0)?, ctx.x(1)?, ctx.y(0)?);
    let log = ctx.b.unary("Log", x);
    let slope = ctx.b.mul(y, log);
    let product = ctx.b.mul(dy, slope);
    let positive = ctx.b.compare("Greater", x, 0.0);
    let grad = masked(ctx, positive, product);
    let dtype = ctx.dtype(p);
    let grad = cast_to(ctx, grad, dtype);
    unbroadcast(ctx, grad, p)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let constant = |name, p: f32| Case::new(name, "Pow").range(&[2, 3], 0.5, 2.0).fixed(Tensor::scalar(p));
        check(&[
            Case::new("same shape", "Pow").range(&[2, 3], 0.5, 2.0).range(&[2, 3], -1.0, 2.0),
            Case::new("row of exponents, symbolic batch", "Pow").range(&[2, 3], 0.5, 2.0).range(&[3], 1.0, 3.0).batch(),
            Case::new("symbols", "Pow").range(&[2, 3], 0.5, 2.0).range(&[3], 1.0, 3.0).symbols(&[
                (0, 0, "batch"),
                (0, 1, "width"),
                (1, 0, "width"),
            ]),
            Case::new("scalar base", "Pow").range(&[], 0.5, 2.0).input(&[2, 3]),
            constant("0", 0.0),
            constant("1", 1.0),
            constant("2", 2.0),
            constant("3", 3.0),
            constant("1/2", 0.5),
            constant("-1", -1.0),
            Case::new("integer exponent", "Pow").range(&[2], 0.5, 2.0).fixed(Tensor::ints(&[2])),
            Case::new("integer exponents", "Pow").range(&[2], 0.5, 2.0).fixed(Tensor::ints(&[2, 3])),
            Case::new("higher rank exponent", "Pow")
                .range(&[3], 0.5, 2.0)
                .fixed(Tensor::from_vec(&[1, 1], vec![2.0_f32])),
            Case::new("at zero, constant", "Pow")
                .values(&[2], &[0.0, -2.0])
                .fixed(Tensor::scalar(3.0_f32))
                .expect(0, &[0.0, 12.0]),
            Case::new("at zero and below", "Pow")
                .values(&[5], &[0.0, 0.0, 0.0, 2.0, -2.0])
                .values(&[5], &[0.0, 1.0, 2.0, 3.0, 2.0])
                .expect(0, &[0.0, 1.0, 0.0, 12.0, -4.0])
                .expect(1, &[0.0, 0.0, 0.0, 5.545_177, 0.0]),
            Case::new("poles and negative bases", "Pow")
                .values(&[5], &[0.0, 0.0, -2.0, -2.0, -2.0])
                .values(&[5], &[0.5, -1.0, 3.0, -1.0, 0.0])
                .expect(0, &[f32::INFINITY, f32::NEG_INFINITY, 12.0, -0.25, 0.0])
                .expect(1, &[0.0; 5]),
            Case::new("negative bases, integer exponents", "Pow")
                .values(&[4], &[-2.0, -2.0, 0.0, 0.0])
                .fixed(Tensor::ints(&[3, 0, 1, 0]))
                .expect(0, &[12.0, 0.0, 1.0, 0.0]),
        ]);
    }
}
