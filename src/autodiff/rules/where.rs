//! Where
//!
//! Forward:  `y = condition ? a : b`, broadcasting.
//! Backward: `da = sum_to(a, condition ? dy : 0)`, `db = sum_to(b, condition ? 0 : dy)`.
//! Shapes:   numpy broadcasting.
//! Opsets:   9 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Where.html>

use super::shared::{masked, unbroadcast};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = Rule {
    domain: "",
    op: "Where",
    opsets: 9..=24,
    inputs: Inputs::Fixed(&[InputRule::Constant, InputRule::Gradient(chosen), InputRule::Gradient(other)]),
};

fn chosen(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, condition, a) = (ctx.dy()?, ctx.x(0)?, ctx.x(1)?);
    let grad = masked(ctx, condition, dy);
    unbroadcast(ctx, grad, a)
}

fn other(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, condition, b) = (ctx.dy()?, ctx.x(0)?, ctx.x(2)?);
    let zero = ctx.b.like(dy, 0.0);
    let grad = ctx.b.select(condition, zero, dy);
    unbroadcast(ctx, grad, b)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let choose = |name| Case::new(name, "Where").linear().fixed(Tensor::from_vec(&[3], vec![true, false, true]));
        check(&[
            choose("row condition").input(&[2, 3]).input(&[2, 3]),
            choose("broadcast values").input(&[2, 1]).input(&[]),
            choose("condition broadcasts").input(&[3]).input(&[2, 1, 3]),
            Case::new("computed condition, symbols", "Where")
                .linear()
                .fed(Tensor::from_vec(&[2, 1, 3], vec![true, false, true, false, false, true]))
                .input(&[2, 4, 3])
                .input(&[1])
                .symbols(&[(0, 0, "batch"), (0, 2, "tokens"), (1, 0, "batch"), (1, 1, "rows"), (1, 2, "tokens")]),
            Case::new("sizes that may be 1", "Where")
                .linear()
                .fed(Tensor::from_vec(&[2, 1, 3], vec![true, false, true, false, false, true]))
                .input(&[1, 4, 3])
                .input(&[2, 4, 1])
                .symbols(&[(1, 0, "a"), (1, 1, "rows"), (1, 2, "b"), (2, 0, "c"), (2, 1, "rows"), (2, 2, "d")]),
            choose("special")
                .values(&[3], &[1e30, 1e30, 0.0])
                .values(&[3], &[0.0, -1e30, 1.0])
                .expect(1, &[1.0, 0.0, 1.0])
                .expect(2, &[0.0, 1.0, 0.0]),
        ]);
    }
}
