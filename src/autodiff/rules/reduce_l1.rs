//! ReduceL1
//!
//! Forward:  `y = sum of |x| over axes`.
//! Backward: `dx = sign(x) * dy`.
//! Shapes:   x any; axes a constant input or absent (all axes).
//! Opsets:   1 to 24.
//! At kinks: 0 at `x = 0`, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__ReduceL1.html>

use super::reduce_sum_square::reject_noop;
use super::shared::keep_reduced;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = Rule {
    domain: "",
    op: "ReduceL1",
    opsets: 1..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    reject_noop(ctx)?;
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let kept = keep_reduced(ctx, dy)?;
    let sign = ctx.b.unary("Sign", x);
    Ok(ctx.b.mul(sign, kept))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check, reductions};

    #[test]
    fn gradients() {
        let case = |name| Case::new(name, "ReduceL1").away_from_zero(&[2, 3, 4], 0.1);
        let mut cases = reductions(&case);
        cases.extend([Case::new("zero and large", "ReduceL1")
            .values(&[4], &[0.0, 1e30, -1e30, -2.0])
            .expect(0, &[0.0, 1.0, -1.0, -1.0])]);
        check(&cases);
    }
}
