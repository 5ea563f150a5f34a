//! ReduceLogSumExp
//!
//! Forward:  `y = ln(sum of exp(x) over axes)`.
//! Backward: `dx = dy * exp(x - y)`.
//! Shapes:   x any; axes a constant input or absent (all axes, or none with `noop_with_empty_axes`).
//! Opsets:   1 to 24.
//! At kinks: NaN where every x is `-inf`, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__ReduceLogSumExp.html>

use super::shared::{keep_reduced, reduced_axes};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = Rule {
    domain: "",
    op: "ReduceLogSumExp",
    opsets: 1..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x, y) = (ctx.dy()?, ctx.x(0)?, ctx.y(0)?);
    if reduced_axes(ctx)?.is_empty() {
        return Ok(dy);
    }
    let (dy, y) = (keep_reduced(ctx, dy)?, keep_reduced(ctx, y)?);
    let distance = ctx.b.sub(x, y);
    let share = ctx.b.unary("Exp", distance);
    Ok(ctx.b.mul(dy, share))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check, reductions};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let case = |name| Case::new(name, "ReduceLogSumExp").input(&[2, 3, 4]);
        let mut cases = reductions(&case);
        cases.extend([
            case("noop").int("noop_with_empty_axes", 1),
            Case::new("large and infinite", "ReduceLogSumExp")
                .values(&[2, 2], &[1000.0, 1000.0, f32::NEG_INFINITY, 0.0])
                .fixed(Tensor::ints(&[1]))
                .expect(0, &[0.5, 0.5, 0.0, 1.0]),
        ]);
        check(&cases);
    }
}
