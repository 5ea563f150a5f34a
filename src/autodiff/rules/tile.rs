//! Tile
//!
//! Forward:  `y` = x repeated along each axis.
//! Backward: `dx` = sum of dy over the repetitions: an axis of size `r d` is read as `[r, d]`.
//! Shapes:   x of known rank; dimensions may be symbols, the repeats may be computed.
//! Opsets:   6 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Tile.html>

use super::shared::{Part, reshape_to, shaped_like, zeros_like};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "Tile",
    opsets: 6..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let rank = ctx.rank(x)?;
    let Ok(repeats) = ctx.constant_ints(1) else { return computed(ctx, rank) };
    let repeats = repeats.unwrap_or_default();
    if repeats.len() != rank {
        return Err(RuleError::Unsupported(format!("repeats {repeats:?} for a value of rank {rank}")));
    }
    if repeats.contains(&0) {
        return Ok(zeros_like(ctx, x));
    }
    let (mut split, mut summed) = (Vec::new(), Vec::new());
    for (axis, repeat) in repeats.iter().enumerate() {
        if *repeat != 1 {
            summed.push(split.len() as i64);
            split.push(Part::Fixed(*repeat));
        }
        split.push(Part::Axis(x, axis));
    }
    if summed.is_empty() {
        return Ok(dy);
    }
    let parts = reshape_to(ctx, dy, &split)?;
    let dx = ctx.b.reduce("ReduceSum", parts, &summed, false);
    Ok(shaped_like(ctx, dx, x))
}

/// The same for repeats that the model computes: their list and x's shape, one number of each in turn.
fn computed(ctx: &mut Ctx<'_>, rank: usize) -> Result<ValueId, RuleError> {
    let (dy, x, repeats) = (ctx.dy()?, ctx.x(0)?, ctx.x(1)?);
    let sizes = ctx.b.shape_of(x);
    let columns = [repeats, sizes].map(|list| ctx.b.unsqueeze(list, &[1]));
    let pairs = ctx.b.op("Concat", &columns, Attributes::none().with("axis", 1));
    let split = ctx.b.reshape(pairs, &[-1]);
    let parts = ctx.b.op("Reshape", &[dy, split], Attributes::none().with("allowzero", 1));
    let summed: Vec<i64> = (0..rank as i64).map(|axis| 2 * axis).collect();
    let dx = ctx.b.reduce("ReduceSum", parts, &summed, false);
    Ok(shaped_like(ctx, dx, x))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let tile = |name, by: &[i64]| Case::new(name, "Tile").linear().input(&[2, 3, 4]).fixed(Tensor::ints(by));
        check(&[
            tile("several axes", &[2, 1, 3]),
            tile("none", &[1, 1, 1]),
            tile("symbolic batch", &[1, 2, 1]).batch(),
            tile("along a symbol", &[3, 1, 1]).batch(),
            tile("several symbols", &[3, 2, 1]).symbols(&[(0, 0, "batch"), (0, 1, "tokens")]),
            Case::new("computed repeats", "Tile")
                .linear()
                .input(&[2, 3])
                .fed(Tensor::ints(&[3, 2]))
                .not_embedded("tract takes only constant repeats"),
            Case::new("computed repeats, symbols", "Tile")
                .linear()
                .input(&[2, 3])
                .fed(Tensor::ints(&[1, 4]))
                .symbols(&[(0, 0, "batch"), (0, 1, "tokens")])
                .not_embedded("tract takes only constant repeats"),
        ]);
    }
}
