//! ReduceLogSum
//!
//! Forward:  `y = ln(sum of x over axes)`.
//! Backward: `dx = dy / exp(y)`, expanded over the reduced axes.
//! Shapes:   x any; axes a constant input or absent (all axes).
//! Opsets:   1 to 24.
//! At kinks: infinite where the sum is 0, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__ReduceLogSum.html>

use super::reduce_sum_square::reject_noop;
use super::shared::expand_reduced;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = Rule {
    domain: "",
    op: "ReduceLogSum",
    opsets: 1..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    reject_noop(ctx)?;
    let (dy, y) = (ctx.dy()?, ctx.y(0)?);
    let sum = ctx.b.unary("Exp", y);
    let share = ctx.b.div(dy, sum);
    expand_reduced(ctx, share)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check, reductions};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let case = |name| Case::new(name, "ReduceLogSum").range(&[2, 3, 4], 0.5, 2.0);
        let mut cases = reductions(&case);
        cases.extend([Case::new("zero", "ReduceLogSum")
            .values(&[2, 2], &[0.0, 0.0, 1.0, 2.0])
            .fixed(Tensor::ints(&[1]))
            .expect(0, &[f32::INFINITY, f32::INFINITY, 1.0 / 3.0, 1.0 / 3.0])]);
        check(&cases);
    }
}
