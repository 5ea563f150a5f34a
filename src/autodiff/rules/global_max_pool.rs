//! GlobalMaxPool
//!
//! Forward:  `y` = maximum of x over space.
//! Backward: `dx[argmax] = dy`, else 0.
//! Shapes:   x `[N, C, D..]`, y `[N, C, 1..]`; any dimension may be a symbol.
//! Opsets:   1 to 24.
//! At kinks: the first maximum takes all, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__GlobalMaxPool.html>

use super::shared::{shaped_like, zeros_like};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule =
    Rule { domain: "", op: "GlobalMaxPool", opsets: 1..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let planes = ctx.b.reshape(x, &[0, 0, -1]);
    let first = Attributes::none().with("axis", 2).with("keepdims", 1).with("select_last_index", 0);
    let position = ctx.b.op("ArgMax", &[planes], first);
    let updates = ctx.b.reshape(dy, &[0, 0, 1]);
    let zeros = zeros_like(ctx, planes);
    let along = Attributes::none().with("axis", 2).with("reduction", "none");
    let scattered = ctx.b.op("ScatterElements", &[zeros, position, updates], along);
    let dx = ctx.b.reshape_like(scattered, x);
    Ok(shaped_like(ctx, dx, x))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let pool = |name| Case::new(name, "GlobalMaxPool");
        check(&[
            pool("1d").distinct(&[2, 3, 5]),
            pool("2d").distinct(&[2, 3, 4, 5]),
            pool("3d").distinct(&[2, 3, 2, 3, 2]),
            pool("symbolic batch").distinct(&[2, 3, 4, 5]).batch(),
            pool("ties").values(&[1, 1, 2, 2], &[1.0, 3.0, 3.0, 3.0]).expect(0, &[0.0, 1.0, 0.0, 0.0]),
        ]);
    }
}
