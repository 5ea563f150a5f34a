//! SpaceToDepth
//!
//! Forward:  `y` = blocks of space of x as channels, the block being the slowest part.
//! Backward: `dx = DepthToSpace(dy)` in mode `DCR`.
//! Shapes:   x `[N, C, H b, W b]`, y `[N, C b b, H, W]`; any dimension may be a symbol.
//! Opsets:   7 to 24.
//! <https://onnx.ai/onnx/operators/onnx__SpaceToDepth.html>

use super::shared::shaped_like;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule =
    Rule { domain: "", op: "SpaceToDepth", opsets: 7..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let block = ctx.attributes().int("blocksize", 0)?;
    let dx = ctx.b.op("DepthToSpace", &[dy], Attributes::none().with("blocksize", block).with("mode", "DCR"));
    Ok(shaped_like(ctx, dx, x))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let case = |name, block| Case::new(name, "SpaceToDepth").linear().int("blocksize", block);
        check(&[
            case("blocks of 2", 2).input(&[2, 3, 4, 6]),
            case("blocks of 3", 3).input(&[1, 2, 3, 6]).opset(21),
            case("symbolic batch", 2).input(&[2, 3, 4, 6]).batch(),
        ]);
    }
}
