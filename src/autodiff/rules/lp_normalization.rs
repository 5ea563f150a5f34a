//! LpNormalization
//!
//! Forward:  `y = x / n`, `n = (sum of |x|^p along axis)^(1/p)` for p of 1 or 2; 0 where `n = 0`.
//! Backward: `dx = (dy - s * sum of dy * y along axis) / n` with `s = sign(x)` for p = 1 and `s = y` for
//!           p = 2; 0 where `n = 0`.
//! Shapes:   any.
//! Opsets:   1 to 24.
//! At kinks: 0 where `n = 0`, where no gradient exists; PyTorch's `normalize` has `dy / 1e-12` there.
//! <https://onnx.ai/onnx/operators/onnx__LpNormalization.html>

use super::shared::masked;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "LpNormalization", opsets: 1..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x, y) = (ctx.dy()?, ctx.x(0)?, ctx.y(0)?);
    let axis = ctx.attributes().int("axis", -1)?;
    let (norm, slope) = match ctx.attributes().int("p", 2)? {
        1 => ("ReduceL1", ctx.b.unary("Sign", x)),
        2 => ("ReduceL2", y),
        p => return Err(RuleError::Unsupported(format!("p is 1 or 2, found {p}"))),
    };
    let norm = ctx.b.reduce(norm, x, &[axis], true);
    let product = ctx.b.mul(dy, y);
    let along = ctx.b.reduce("ReduceSum", product, &[axis], true);
    let along = ctx.b.mul(slope, along);
    let across = ctx.b.sub(dy, along);
    let grad = ctx.b.div(across, norm);
    let nonzero = ctx.b.compare("Greater", norm, 0.0);
    Ok(masked(ctx, nonzero, grad))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let norm = |name, p: i64| Case::new(name, "LpNormalization").int("p", p);
        check(&[
            Case::new("defaults", "LpNormalization").away_from_zero(&[2, 3], 0.3).batch(),
            norm("2, middle", 2).away_from_zero(&[2, 3, 4], 0.3).int("axis", 1).batch(),
            norm("2, symbols", 2).away_from_zero(&[2, 3], 0.3).symbols(&[(0, 0, "a"), (0, 1, "b")]),
            norm("1, last", 1).away_from_zero(&[2, 3, 4], 0.3).batch(),
            norm("1, first", 1).away_from_zero(&[4, 3], 0.3).int("axis", 0).batch(),
            norm("2, zero vector", 2).values(&[2, 2], &[0.0, 0.0, 3.0, 4.0]).expect(0, &[0.0, 0.0, 0.032, -0.024]),
            norm("1, zero vector", 1).values(&[2, 2], &[0.0, 0.0, 0.0, 4.0]).expect(0, &[0.0, 0.0, 0.25, 0.0]),
        ]);
    }
}
