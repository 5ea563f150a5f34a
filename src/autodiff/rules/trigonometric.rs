//! Acos, Asin, Atan, Tan
//!
//! Forward:  `y = acos(x)`, `asin(x)`, `atan(x)`, `tan(x)`.
//! Backward: `dx = -dy / sqrt((1 - x) (1 + x))`, `dy / sqrt((1 - x) (1 + x))`, `dy / (1 + x^2)`,
//!           `dy (1 + y^2)`.
//! Shapes:   any.
//! Opsets:   7 to 24.
//! At kinks: infinite at `x = -1` and `x = 1` for Acos and Asin, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__Acos.html>, <https://onnx.ai/onnx/operators/onnx__Asin.html>,
//! <https://onnx.ai/onnx/operators/onnx__Atan.html>, <https://onnx.ai/onnx/operators/onnx__Tan.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static ACOS: Rule =
    Rule { domain: "", op: "Acos", opsets: 7..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(acos)]) };
pub static ASIN: Rule =
    Rule { domain: "", op: "Asin", opsets: 7..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(asin)]) };
pub static ATAN: Rule =
    Rule { domain: "", op: "Atan", opsets: 7..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(atan)]) };
pub static TAN: Rule =
    Rule { domain: "", op: "Tan", opsets: 7..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(tan)]) };

fn acos(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let grad = asin(ctx)?;
    Ok(ctx.b.unary("Neg", grad))
}

fn asin(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let product = one_minus_square(ctx, x);
    let root = ctx.b.unary("Sqrt", product);
    Ok(ctx.b.div(dy, root))
}

/// `(1 - x) (1 + x)`, exact near 1 where `1 - x^2` is not.
pub fn one_minus_square(ctx: &mut Ctx<'_>, x: ValueId) -> ValueId {
    let one = ctx.b.like(x, 1.0);
    let below = ctx.b.sub(one, x);
    let above = ctx.b.add(one, x);
    ctx.b.mul(below, above)
}

fn atan(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let square = ctx.b.mul(x, x);
    let shifted = ctx.b.shift(square, 1.0);
    Ok(ctx.b.div(dy, shifted))
}

fn tan(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, y) = (ctx.dy()?, ctx.y(0)?);
    let square = ctx.b.mul(y, y);
    let slope = ctx.b.shift(square, 1.0);
    Ok(ctx.b.mul(dy, slope))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let infinite = f32::INFINITY;
        check(&[
            Case::new("matrix", "Acos").range(&[2, 3], -0.9, 0.9).batch(),
            Case::new("ends", "Acos").values(&[3], &[-1.0, 0.0, 1.0]).expect(0, &[-infinite, -1.0, -infinite]),
            Case::new("matrix", "Asin").range(&[2, 3], -0.9, 0.9).batch(),
            Case::new("ends", "Asin").values(&[3], &[-1.0, 0.0, 1.0]).expect(0, &[infinite, 1.0, infinite]),
            Case::new("matrix", "Atan").range(&[2, 3], -3.0, 3.0).batch(),
            Case::new("zero and large", "Atan").values(&[3], &[-1e30, 0.0, 1e30]).expect(0, &[0.0, 1.0, 0.0]),
            Case::new("matrix", "Tan").range(&[2, 3], -1.2, 1.2).batch(),
            Case::new("zero and steep", "Tan").values(&[2], &[0.0, 1.5]).expect(0, &[1.0, 199.850_04]),
        ]);
    }
}
