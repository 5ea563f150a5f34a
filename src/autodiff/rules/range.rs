//! Range
//!
//! Forward:  `y_i = start + i delta`, as long as y lies before `limit`.
//! Backward: `dstart = sum(dy)`, `ddelta = sum(i dy_i)`; the limit decides only how many there are.
//! Shapes:   scalars, y `[N]`, N may be a symbol.
//! Opsets:   11 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Range.html>

use super::shared::{counted, size_along};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = Rule {
    domain: "",
    op: "Range",
    opsets: 11..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(start), InputRule::Constant, InputRule::Gradient(delta)]),
};

fn start(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, start) = (ctx.dy()?, ctx.x(0)?);
    let sum = ctx.b.reduce("ReduceSum", dy, &[0], false);
    Ok(ctx.b.reshape_like(sum, start))
}

fn delta(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, delta) = (ctx.dy()?, ctx.x(2)?);
    let count = size_along(ctx, dy, 0)?;
    let numbers = counted(ctx, count);
    let dtype = ctx.dtype(dy);
    let numbers = ctx.b.cast(numbers, dtype);
    let product = ctx.b.mul(dy, numbers);
    let sum = ctx.b.reduce("ReduceSum", product, &[0], false);
    Ok(ctx.b.reshape_like(sum, delta))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let range = |name, start: f32, limit: f32, delta: f32| {
            let case = Case::new(name, "Range").values(&[], &[start]).fixed(Tensor::scalar(limit));
            case.values(&[], &[delta])
        };
        check(&[range("up", 0.5, 3.0, 0.7), range("down", 2.0, -1.5, -0.4), range("one", 0.0, 1.0, 5.0)]);
    }
}
