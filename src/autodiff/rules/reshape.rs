//! Reshape
//!
//! Forward:  `y` = x in the given shape.
//! Backward: `dx` = dy in x's shape.
//! Shapes:   x any; dimensions may be symbols, the shape may be computed.
//! Opsets:   5 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Reshape.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = Rule {
    domain: "",
    op: "Reshape",
    opsets: 5..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    Ok(ctx.b.reshape_like(dy, x))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let reshape = |name, to: &[i64]| Case::new(name, "Reshape").linear().input(&[2, 3, 4]).fixed(Tensor::ints(to));
        let computed = |name| {
            Case::new(name, "Reshape")
                .linear()
                .input(&[2, 3, 4])
                .fed(Tensor::ints(&[-1, 0, 2]))
                .not_embedded("tract takes only constant shapes")
        };
        check(&[
            reshape("fixed", &[6, 4]),
            reshape("rest", &[0, -1]),
            reshape("flat, symbolic batch", &[-1]).batch(),
            reshape("symbolic batch", &[0, 2, 6]).batch(),
            reshape("heads, symbols", &[0, 0, 2, 2]).symbols(&[(0, 0, "batch"), (0, 1, "tokens")]),
            reshape("rows, symbols", &[-1, 4]).symbols(&[(0, 0, "batch"), (0, 1, "tokens")]),
            reshape("0 that is a size", &[2, -1, 4]).int("allowzero", 1),
            Case::new("nothing in it", "Reshape")
                .linear()
                .input(&[2, 0, 3])
                .fixed(Tensor::ints(&[0, 6]))
                .int("allowzero", 1)
                .expect(0, &[])
                .not_embedded("tract takes a 0 for the size of the axis"),
            computed("computed"),
            computed("computed, symbols").symbols(&[(0, 0, "batch"), (0, 1, "tokens")]),
        ]);
    }
}
