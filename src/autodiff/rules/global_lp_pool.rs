//! GlobalLpPool
//!
//! Forward:  `y = (sum of |x|^p over space)^(1/p)`.
//! Backward: `dx = dy y^(1-p) sign(x) |x|^(p-1)`.
//! Shapes:   x `[N, C, D..]`, y `[N, C, 1..]`; any dimension may be a symbol.
//! Opsets:   2 to 24.
//! At kinks: 0 where x is all zeros, and for p = 1 where x is 0.
//! <https://onnx.ai/onnx/operators/onnx__GlobalLpPool.html>

use super::lp_pool::{share, slope};
use super::shared::shaped_like;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "GlobalLpPool", opsets: 2..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let x = ctx.x(0)?;
    let share = share(ctx)?;
    let slope = slope(ctx)?;
    let dx = ctx.b.mul(slope, share);
    Ok(shaped_like(ctx, dx, x))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let pool = |name, shape: &[usize]| {
            Case::new(name, "GlobalLpPool").away_from_zero(shape, 0.2).not_embedded("tract takes the root of the mean")
        };
        check(&[
            pool("1d", &[2, 3, 5]),
            pool("2d", &[2, 3, 4, 5]),
            pool("3d", &[2, 3, 2, 3, 2]),
            pool("sums of sizes", &[2, 3, 4, 5]).int("p", 1),
            pool("cubes", &[2, 3, 4, 5]).int("p", 3),
            pool("of order 4", &[2, 3, 4, 5]).int("p", 4).opset(21),
            pool("symbolic batch", &[2, 3, 4, 5]).batch(),
            Case::new("only zeros", "GlobalLpPool")
                .values(&[1, 2, 2], &[0.0, 0.0, 3.0, -4.0])
                .expect(0, &[0.0, 0.0, 0.6, -0.8])
                .not_embedded("tract takes the root of the mean"),
        ]);
    }
}
