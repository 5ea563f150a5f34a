//! Expand
//!
//! Forward:  `y` = x broadcast to a shape.
//! Backward: `dx = sum_to(x, dy)`.
//! Shapes:   numpy broadcasting; dimensions may be symbols, the shape may be computed where its length
//!           is known.
//! Opsets:   8 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Expand.html>

use super::shared::unbroadcast;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = Rule {
    domain: "",
    op: "Expand",
    opsets: 8..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    unbroadcast(ctx, dy, x)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let expand = |name| Case::new(name, "Expand").linear();
        check(&[
            expand("one axis").input(&[3, 1]).fixed(Tensor::ints(&[3, 4])),
            expand("new axes").input(&[3, 1]).fixed(Tensor::ints(&[2, 1, 3, 4])),
            expand("smaller target").input(&[3, 4]).fixed(Tensor::ints(&[1])),
            expand("symbolic batch").input(&[3, 1, 2]).fixed(Tensor::ints(&[1, 5, 2])).batch(),
            expand("computed shape")
                .input(&[3, 1])
                .fed(Tensor::ints(&[2, 1, 4]))
                .not_embedded("tract takes only constant shapes"),
            expand("computed shape of symbols, which are sizes or 1")
                .input(&[1, 3, 1, 2])
                .fed(Tensor::ints(&[4, 1, 5, 2]))
                .symbols(&[(0, 0, "batch"), (0, 1, "tokens"), (0, 2, "one")])
                .not_embedded("tract takes only constant shapes"),
            expand("computed shape of more axes")
                .input(&[3, 1])
                .fed(Tensor::ints(&[2, 1, 4]))
                .symbols(&[(0, 0, "tokens"), (0, 1, "one")])
                .not_embedded("tract takes only constant shapes"),
        ]);
    }
}
