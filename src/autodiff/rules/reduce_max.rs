//! ReduceMax
//!
//! Forward:  `y = maximum of x over axes`.
//! Backward: `dx = x = y ? dy / (how many elements equal y) : 0`.
//! Shapes:   x any; axes a constant input or absent (all axes, or none with `noop_with_empty_axes`).
//! Opsets:   1 to 24.
//! At kinks: elements that tie share equally, as PyTorch's `amax`.
//! <https://onnx.ai/onnx/operators/onnx__ReduceMax.html>

use super::shared::{keep_reduced, masked, reduced_axes};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "ReduceMax",
    opsets: 1..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(shares), InputRule::Constant]),
};

/// Shares a gradient equally among the elements that equal the output.
pub fn shares(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x, y) = (ctx.dy()?, ctx.x(0)?, ctx.y(0)?);
    let axes = reduced_axes(ctx)?;
    if axes.is_empty() {
        return Ok(dy);
    }
    let (dy, y) = (keep_reduced(ctx, dy)?, keep_reduced(ctx, y)?);
    let wins = ctx.b.op("Equal", &[x, y], Attributes::none());
    let dtype = ctx.dtype(x);
    let ones = ctx.b.cast(wins, dtype);
    let count = ctx.b.reduce("ReduceSum", ones, &axes, true);
    let share = ctx.b.div(dy, count);
    Ok(masked(ctx, wins, share))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check, reductions};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let case = |name| Case::new(name, "ReduceMax").distinct(&[2, 3, 4]);
        let mut cases = reductions(&case);
        cases.extend([
            case("empty axes").fixed(Tensor::ints(&[])).int("keepdims", 0),
            case("noop").int("noop_with_empty_axes", 1),
            Case::new("ties and large", "ReduceMax")
                .values(&[2, 3], &[1.0, 3.0, 3.0, 1e30, 1e30, 1e30])
                .fixed(Tensor::ints(&[1]))
                .expect(0, &[0.0, 0.5, 0.5, 0.333_333_34, 0.333_333_34, 0.333_333_34]),
        ]);
        check(&cases);
    }
}
