//! Transpose
//!
//! Forward:  `y` = x with its axes in the order `perm`.
//! Backward: `dx` = dy with its axes in the inverse order.
//! Shapes:   x any of known rank.
//! Opsets:   1 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Transpose.html>

use super::shared::shaped_like;
use crate::autodiff::rule::axis;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "Transpose", opsets: 1..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let rank = ctx.rank(x)?;
    let perm = ctx.attributes().ints("perm")?.unwrap_or_else(|| (0..rank as i64).rev().collect());
    let mut inverse = vec![0; rank];
    for (to, from) in perm.iter().enumerate() {
        inverse[axis(*from, rank)?] = to as i64;
    }
    let dx = ctx.b.transpose(dy, &inverse);
    Ok(shaped_like(ctx, dx, x))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let transpose = |name| Case::new(name, "Transpose").linear().input(&[2, 3, 4, 5]);
        check(&[
            transpose("reversed"),
            transpose("cycle").ints("perm", &[1, 2, 3, 0]),
            transpose("heads").ints("perm", &[0, 2, 1, 3]),
            transpose("symbolic batch").ints("perm", &[0, 2, 3, 1]).batch(),
            transpose("symbols").ints("perm", &[2, 0, 3, 1]).symbols(&[(0, 0, "batch"), (0, 2, "tokens")]),
        ]);
    }
}
