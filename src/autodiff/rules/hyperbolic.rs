//! Acosh, Asinh, Atanh, Cosh, Sinh
//!
//! Forward:  `y = acosh(x)`, `asinh(x)`, `atanh(x)`, `cosh(x)`, `sinh(x)`.
//! Backward: `dx = dy / sqrt((x - 1) (x + 1))`, `dy / sqrt(x^2 + 1)`, `dy / ((1 - x) (1 + x))`,
//!           `dy sinh(x)`, `dy cosh(x)`.
//! Shapes:   any.
//! Opsets:   9 to 24.
//! At kinks: infinite at `x = 1` for Acosh and at `x = -1` and `x = 1` for Atanh, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__Acosh.html>, <https://onnx.ai/onnx/operators/onnx__Asinh.html>,
//! <https://onnx.ai/onnx/operators/onnx__Atanh.html>, <https://onnx.ai/onnx/operators/onnx__Cosh.html>,
//! <https://onnx.ai/onnx/operators/onnx__Sinh.html>

use super::trigonometric::one_minus_square;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static ACOSH: Rule =
    Rule { domain: "", op: "Acosh", opsets: 9..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(acosh)]) };
pub static ASINH: Rule =
    Rule { domain: "", op: "Asinh", opsets: 9..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(asinh)]) };
pub static ATANH: Rule =
    Rule { domain: "", op: "Atanh", opsets: 9..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(atanh)]) };
pub static COSH: Rule =
    Rule { domain: "", op: "Cosh", opsets: 9..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(cosh)]) };
pub static SINH: Rule =
    Rule { domain: "", op: "Sinh", opsets: 9..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(sinh)]) };

fn acosh(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let below = ctx.b.shift(x, -1.0);
    let above = ctx.b.shift(x, 1.0);
    let product = ctx.b.mul(below, above);
    let root = ctx.b.unary("Sqrt", product);
    Ok(ctx.b.div(dy, root))
}

fn asinh(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let square = ctx.b.mul(x, x);
    let shifted = ctx.b.shift(square, 1.0);
    let root = ctx.b.unary("Sqrt", shifted);
    Ok(ctx.b.div(dy, root))
}

fn atanh(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let product = one_minus_square(ctx, x);
    Ok(ctx.b.div(dy, product))
}

fn cosh(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let slope = ctx.b.unary("Sinh", x);
    Ok(ctx.b.mul(dy, slope))
}

fn sinh(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let slope = ctx.b.unary("Cosh", x);
    Ok(ctx.b.mul(dy, slope))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let infinite = f32::INFINITY;
        check(&[
            Case::new("matrix", "Acosh").range(&[2, 3], 1.5, 4.0).batch(),
            Case::new("end and large", "Acosh")
                .values(&[3], &[1.0, 2.0, 1e30])
                .expect(0, &[infinite, 0.577_350_26, 0.0]),
            Case::new("matrix", "Asinh").range(&[2, 3], -3.0, 3.0).batch(),
            Case::new("zero and large", "Asinh").values(&[3], &[-1e30, 0.0, 1e30]).expect(0, &[0.0, 1.0, 0.0]),
            Case::new("matrix", "Atanh").range(&[2, 3], -0.9, 0.9).batch(),
            Case::new("ends", "Atanh").values(&[3], &[-1.0, 0.0, 1.0]).expect(0, &[infinite, 1.0, infinite]),
            Case::new("matrix", "Cosh").range(&[2, 3], -2.0, 2.0).batch(),
            Case::new("zero and large", "Cosh")
                .values(&[3], &[-100.0, 0.0, 100.0])
                .expect(0, &[-infinite, 0.0, infinite]),
            Case::new("matrix", "Sinh").range(&[2, 3], -2.0, 2.0).batch(),
            Case::new("zero and large", "Sinh")
                .values(&[3], &[-100.0, 0.0, 100.0])
                .expect(0, &[infinite, 1.0, infinite]),
        ]);
    }
}
