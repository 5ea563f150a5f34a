//! Squeeze
//!
//! Forward:  `y` = x without the given axes of size 1, or without all such axes.
//! Backward: `dx` = dy in x's shape.
//! Shapes:   x any; dimensions may be symbols, the axes may be computed.
//! Opsets:   13 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Squeeze.html>

use super::shared::shaped_like;
use crate::autodiff::rule::axis;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = Rule {
    domain: "",
    op: "Squeeze",
    opsets: 13..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let (Ok(Some(axes)), Ok(rank)) = (ctx.constant_ints(1), ctx.rank(x)) else { return Ok(ctx.b.reshape_like(dy, x)) };
    let mut axes = axes.iter().map(|a| Ok(axis(*a, rank)? as i64)).collect::<Result<Vec<_>, RuleError>>()?;
    axes.sort_unstable();
    let dx = ctx.b.unsqueeze(dy, &axes);
    Ok(shaped_like(ctx, dx, x))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let squeeze = |name| Case::new(name, "Squeeze").linear().input(&[2, 1, 3, 1]);
        check(&[
            squeeze("all"),
            squeeze("one").fixed(Tensor::ints(&[1])),
            squeeze("from the end, symbolic batch").fixed(Tensor::ints(&[-3, -1])).batch(),
            squeeze("symbols").fixed(Tensor::ints(&[1])).symbols(&[(0, 0, "batch"), (0, 2, "tokens")]),
            squeeze("all, symbols")
                .symbols(&[(0, 0, "batch"), (0, 2, "tokens")])
                .not_embedded("tract wants the size of every input"),
            squeeze("computed axes").fed(Tensor::ints(&[-1])).not_embedded("tract takes only constant axes"),
        ]);
    }
}
