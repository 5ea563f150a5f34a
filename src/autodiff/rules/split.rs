//! Split
//!
//! Forward:  `y_i` = consecutive slices of x along `axis`.
//! Backward: `dx` = the output gradients, joined; zeros for outputs that the loss does not need.
//! Shapes:   x any of known rank; dimensions may be symbols.
//! Opsets:   13 to 24, by the input `split` or (from 18) by `num_outputs`.
//! <https://onnx.ai/onnx/operators/onnx__Split.html>

use super::shared::{shaped_like, zeros_like};
use crate::autodiff::rule::axis;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "Split",
    opsets: 13..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let x = ctx.x(0)?;
    let along = axis(ctx.attributes().int("axis", 0)?, ctx.rank(x)?)?;
    let mut parts = Vec::new();
    for index in 0..ctx.node().outputs.len() {
        let part = match ctx.grad(index) {
            Some(grad) => grad,
            None => {
                let y = ctx.y(index)?;
                zeros_like(ctx, y)
            }
        };
        parts.push(part);
    }
    let dx = ctx.b.op("Concat", &parts, Attributes::none().with("axis", along as i64));
    Ok(shaped_like(ctx, dx, x))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let split = |name| Case::new(name, "Split").linear().input(&[2, 7, 3]);
        check(&[
            split("sizes").int("axis", 1).fixed(Tensor::ints(&[2, 4, 1])).outputs(3),
            split("number, smaller last").int("axis", -2).int("num_outputs", 3).outputs(3),
            split("unused").int("axis", 1).fixed(Tensor::ints(&[2, 4, 1])).outputs(3).in_loss(1),
            split("symbolic batch, unused").int("axis", 1).fixed(Tensor::ints(&[2, 5])).outputs(2).in_loss(1).batch(),
            split("one").int("num_outputs", 1),
            split("symbols")
                .int("axis", 1)
                .fixed(Tensor::ints(&[2, 4, 1]))
                .outputs(3)
                .symbols(&[(0, 0, "a"), (0, 2, "b")]),
            split("along a symbol, by number")
                .int("axis", 1)
                .int("num_outputs", 3)
                .outputs(3)
                .symbols(&[(0, 1, "b")])
                .not_embedded("tract wants the size of every input"),
            split("computed sizes, unused")
                .int("axis", 1)
                .fed(Tensor::ints(&[1, 4, 2]))
                .outputs(3)
                .in_loss(2)
                .symbols(&[(0, 0, "a"), (0, 1, "b")])
                .not_embedded("tract takes only constant sizes"),
            split("an empty part").int("axis", 1).fixed(Tensor::ints(&[0, 7])).outputs(2),
        ]);
    }
}
