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
        check(&[
            reshape("fixed", &[6, 4]),
            reshape("rest", &[0, -1]),
            reshape("flat, symbolic batch", &[-1]).batch(),
            reshape("symbolic batch", &[0, 2, 6]).batch(),
        ]);
    }
}
