//! Unsqueeze
//!
//! Forward:  `y` = x with axes of size 1 inserted.
//! Backward: `dx` = dy without them.
//! Shapes:   x any; dimensions may be symbols, the axes may be computed.
//! Opsets:   13 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Unsqueeze.html>

use super::shared::shaped_like;
use crate::autodiff::rule::axis;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = Rule {
    domain: "",
    op: "Unsqueeze",
    opsets: 13..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let (Ok(Some(axes)), Ok(rank)) = (ctx.constant_ints(1), ctx.rank(x)) else { return Ok(ctx.b.reshape_like(dy, x)) };
    let rank = rank + axes.len();
    let mut axes = axes.iter().map(|a| Ok(axis(*a, rank)? as i64)).collect::<Result<Vec<_>, RuleError>>()?;
    axes.sort_unstable();
    let dx = ctx.b.squeeze(dy, &axes);
    Ok(shaped_like(ctx, dx, x))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let unsqueeze = |name, at: &[i64]| Case::new(name, "Unsqueeze").linear().input(&[2, 3]).fixed(Tensor::ints(at));
        check(&[
            unsqueeze("front", &[0]),
            unsqueeze("both ends", &[-1, 0]),
            unsqueeze("symbolic batch", &[1, 2]).batch(),
            unsqueeze("symbols", &[1, -1]).symbols(&[(0, 0, "batch"), (0, 1, "tokens")]),
            Case::new("computed axes", "Unsqueeze")
                .linear()
                .input(&[2, 3])
                .fed(Tensor::ints(&[-1, 0]))
                .not_embedded("tract takes only constant axes"),
        ]);
    }
}
