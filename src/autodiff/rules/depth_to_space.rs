//! DepthToSpace
//!
//! Forward:  `y` = the channels of x in blocks of space; the block is the slowest part of the
//!           channel (`DCR`) or the fastest (`CRD`).
//! Backward: the opposite move: SpaceToDepth for `DCR`, a transposition for `CRD`.
//! Shapes:   x `[N, C b b, H, W]`, y `[N, C, H b, W b]`; for `CRD` at most one of N and C is a
//!           symbol and H and W are fixed.
//! Opsets:   7 to 24 (`mode` from 11).
//! <https://onnx.ai/onnx/operators/onnx__DepthToSpace.html>

use super::shared::shaped_like;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule =
    Rule { domain: "", op: "DepthToSpace", opsets: 7..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let block = ctx.attributes().int("blocksize", 0)?;
    let dx = match ctx.attributes().text("mode", "DCR")?.as_str() {
        "DCR" => ctx.b.op("SpaceToDepth", &[dy], Attributes::none().with("blocksize", block)),
        "CRD" => {
            let sizes = ctx.sizes_from(x, 2)?;
            let [height, width] = sizes.as_slice() else {
                return Err(RuleError::Unsupported(format!("rank {} is not 4", sizes.len() + 2)));
            };
            let split = ctx.b.reshape(dy, &[0, 0, *height as i64, block, *width as i64, block]);
            let moved = ctx.b.transpose(split, &[0, 1, 3, 5, 2, 4]);
            ctx.b.reshape_like(moved, x)
        }
        other => return Err(RuleError::Unsupported(format!("mode \"{other}\" is not known"))),
    };
    Ok(shaped_like(ctx, dx, x))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let case = |name, block| Case::new(name, "DepthToSpace").linear().int("blocksize", block);
        check(&[
            case("blocks of 2", 2).input(&[2, 8, 3, 4]),
            case("blocks of 3", 3).input(&[1, 18, 2, 1]).text("mode", "DCR"),
            case("symbolic batch", 2).input(&[2, 8, 3, 4]).batch(),
            case("block last", 2).input(&[2, 12, 3, 4]).text("mode", "CRD"),
            case("block last, 3", 3).input(&[1, 18, 2, 1]).text("mode", "CRD").opset(21),
            case("block last, symbolic batch", 2).input(&[2, 8, 3, 4]).text("mode", "CRD").batch(),
        ]);
    }
}
