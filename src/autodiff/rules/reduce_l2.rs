//! ReduceL2
//!
//! Forward:  `y = sqrt(sum of x^2 over axes)`.
//! Backward: `dx = x * dy / y`, 0 where `y = 0`.
//! Shapes:   x any; axes a constant input or absent (all axes).
//! Opsets:   1 to 24.
//! At kinks: 0 at `y = 0`, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__ReduceL2.html>

use super::reduce_sum_square::reject_noop;
use super::shared::{keep_reduced, masked};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = Rule {
    domain: "",
    op: "ReduceL2",
    opsets: 1..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    reject_noop(ctx)?;
    let (dy, x, y) = (ctx.dy()?, ctx.x(0)?, ctx.y(0)?);
    let (dy, y) = (keep_reduced(ctx, dy)?, keep_reduced(ctx, y)?);
    let ratio = ctx.b.div(dy, y);
    let nonzero = ctx.b.compare("Greater", y, 0.0);
    let factor = masked(ctx, nonzero, ratio);
    Ok(ctx.b.mul(x, factor))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check, reductions};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let case = |name| Case::new(name, "ReduceL2").range(&[2, 3, 4], 0.5, 2.0);
        let mut cases = reductions(&case);
        cases.extend([Case::new("zero and large", "ReduceL2")
            .values(&[3, 2], &[0.0, 0.0, 3.0, 4.0, 3e15, 4e15])
            .fixed(Tensor::ints(&[1]))
            .expect(0, &[0.0, 0.0, 0.6, 0.8, 0.6, 0.8])]);
        check(&cases);
    }
}
