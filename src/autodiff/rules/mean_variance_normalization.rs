//! MeanVarianceNormalization
//!
//! Forward:  `y = c / q`, `c = x - mean(x)`, `q = d + 1e-9`, `d = sqrt(mean(c^2))`, the means over axes.
//! Backward: `dx = (dy - mean(dy)) / q - c * mean(dy * c) / (q^2 d)`, the second term 0 where `d = 0`.
//! Shapes:   any.
//! Opsets:   9 to 24.
//! At kinks: where x is constant, `dx = (dy - mean(dy)) * 1e9`.
//! <https://onnx.ai/onnx/operators/onnx__MeanVarianceNormalization.html>

use super::shared::masked;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = Rule {
    domain: "",
    op: "MeanVarianceNormalization",
    opsets: 9..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input)]),
};

const EPSILON: f64 = 1e-9;

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let axes = ctx.attributes().ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]);
    let mean = ctx.b.reduce("ReduceMean", x, &axes, true);
    let c = ctx.b.sub(x, mean);
    let square = ctx.b.mul(c, c);
    let variance = ctx.b.reduce("ReduceMean", square, &axes, true);
    let d = ctx.b.unary("Sqrt", variance);
    let q = ctx.b.shift(d, EPSILON);
    let mean = ctx.b.reduce("ReduceMean", dy, &axes, true);
    let centered = ctx.b.sub(dy, mean);
    let product = ctx.b.mul(dy, c);
    let moment = ctx.b.reduce("ReduceMean", product, &axes, true);
    let slope = ctx.b.div(moment, q);
    let slope = ctx.b.div(slope, d);
    let varies = ctx.b.compare("Greater", d, 0.0);
    let slope = masked(ctx, varies, slope);
    let along = ctx.b.mul(c, slope);
    let across = ctx.b.sub(centered, along);
    Ok(ctx.b.div(across, q))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let case = |name| Case::new(name, "MeanVarianceNormalization");
        check(&[
            case("default axes, symbolic batch").input(&[2, 3, 2, 2]).batch(),
            case("symbols").input(&[2, 3, 2, 2]).symbols(&[(0, 0, "batch"), (0, 2, "height"), (0, 3, "width")]),
            case("last").input(&[3, 4]).ints("axes", &[-1]).batch(),
            case("all of three").input(&[2, 3, 4]).ints("axes", &[0, 1, 2]),
            case("constant rows").values(&[2, 2], &[5.0, 5.0, 1.0, 3.0]).ints("axes", &[1]).expect(0, &[0.0; 4]),
        ]);
    }
}
