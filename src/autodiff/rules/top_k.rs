//! TopK
//!
//! Forward:  `y, indices` = the k largest or smallest elements of x along `axis` and where they are.
//! Backward: `dx` = dy in the places that `indices` say, zeros elsewhere.
//! Shapes:   x any; dimensions may be symbols, k may be computed.
//! Opsets:   10 to 24.
//! At kinks: of equal elements, those get a gradient that the operator chose.
//! <https://onnx.ai/onnx/operators/onnx__TopK.html>

use super::shared::{shaped_like, zeros_like};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "TopK",
    opsets: 10..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x, places) = (ctx.dy()?, ctx.x(0)?, ctx.y(1)?);
    let axis = ctx.attributes().int("axis", -1)?;
    let zeros = zeros_like(ctx, x);
    let dx = ctx.b.op("ScatterElements", &[zeros, places, dy], Attributes::none().with("axis", axis));
    Ok(shaped_like(ctx, dx, x))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let top = |name, k: i64| Case::new(name, "TopK").outputs(2).distinct(&[3, 4, 5]).fixed(Tensor::ints(&[k]));
        check(&[
            top("last axis", 2),
            top("middle axis, smallest", 3).int("axis", 1).int("largest", 0),
            top("first axis, not sorted", 2).int("axis", -3).int("sorted", 0),
            top("all", 5),
            top("symbolic batch", 2).batch(),
            top("symbols", 2).int("axis", 1).symbols(&[(0, 0, "a"), (0, 1, "b"), (0, 2, "c")]),
            Case::new("computed k", "TopK").outputs(2).distinct(&[3, 5]).fed(Tensor::ints(&[2])).batch(),
            Case::new("ties", "TopK")
                .outputs(2)
                .values(&[2, 4], &[1.0, 3.0, 3.0, 2.0, 5.0, 5.0, 5.0, 0.0])
                .fixed(Tensor::ints(&[2]))
                .expect(0, &[0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0]),
        ]);
    }
}
