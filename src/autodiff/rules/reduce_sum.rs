//! ReduceSum
//!
//! Forward:  `y = sum of x over axes`.
//! Backward: `dx = dy`, expanded over the reduced axes.
//! Shapes:   x any; axes a constant input or absent (all axes, or none with `noop_with_empty_axes`).
//! Opsets:   1 to 24.
//! <https://onnx.ai/onnx/operators/onnx__ReduceSum.html>

use super::shared::expand_reduced;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = Rule {
    domain: "",
    op: "ReduceSum",
    opsets: 1..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let dy = ctx.dy()?;
    expand_reduced(ctx, dy)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let sum = |name| Case::new(name, "ReduceSum").linear().input(&[2, 3, 4]);
        check(&[
            sum("all"),
            sum("symbols, dropped").fixed(Tensor::ints(&[1, -1])).int("keepdims", 0).symbols(&[
                (0, 0, "a"),
                (0, 1, "b"),
                (0, 2, "c"),
            ]),
            sum("all, dropped").int("keepdims", 0),
            sum("some").fixed(Tensor::ints(&[0, -1])),
            sum("some, dropped").fixed(Tensor::ints(&[1])).int("keepdims", 0),
            sum("empty axes").fixed(Tensor::ints(&[])),
            sum("noop with empty axes").fixed(Tensor::ints(&[])).int("noop_with_empty_axes", 1),
            sum("noop").int("noop_with_empty_axes", 1),
            sum("symbolic batch").fixed(Tensor::ints(&[1])).int("keepdims", 0).batch(),
            sum("axes as attribute").opset(7).ints("axes", &[-1]).int("keepdims", 0).batch(),
        ]);
    }
}
