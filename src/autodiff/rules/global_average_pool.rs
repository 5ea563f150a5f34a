//! GlobalAveragePool
//!
//! Forward:  `y` = mean of x over space.
//! Backward: `dx = dy / (elements of space)`, expanded over space.
//! Shapes:   x `[N, C, D..]`, y `[N, C, 1..]`; any dimension may be a symbol.
//! Opsets:   1 to 24.
//! <https://onnx.ai/onnx/operators/onnx__GlobalAveragePool.html>

use super::shared::divide_by_count;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "GlobalAveragePool", opsets: 1..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let space: Vec<i64> = (2..ctx.rank(x)? as i64).collect();
    let share = divide_by_count(ctx, dy, x, &space)?;
    Ok(ctx.b.expand_like(share, x))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let pool = |name| Case::new(name, "GlobalAveragePool").linear();
        check(&[
            pool("1d").input(&[2, 3, 5]),
            pool("2d").input(&[2, 3, 4, 5]),
            pool("3d").input(&[2, 3, 2, 3, 2]),
            pool("symbolic batch").input(&[2, 3, 4, 5]).batch(),
        ]);
    }
}
