//! Tile
//!
//! Forward:  `y` = x repeated along each axis.
//! Backward: `dx` = sum of dy over the repetitions: an axis of size `r d` is read as `[r, d]`.
//! Shapes:   x with at most one symbolic dimension; the repeats are constant.
//! Opsets:   6 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Tile.html>

use super::shared::shaped_like;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = Rule {
    domain: "",
    op: "Tile",
    opsets: 6..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let dims = ctx.dims(x)?;
    let repeats = ctx.constant_ints(1)?.unwrap_or_default();
    if repeats.len() != dims.len() || repeats.contains(&0) {
        return Err(RuleError::Unsupported(format!("repeats {repeats:?} for a value of rank {}", dims.len())));
    }
    if dims.iter().filter(|dim| dim.known().is_none()).count() > 1 {
        let (value, found) = (ctx.name(x), ctx.b.fact(x).to_string());
        return Err(RuleError::NoShape { value, dims: "all but one".into(), found });
    }
    let (mut split, mut summed) = (Vec::new(), Vec::new());
    for (dim, repeat) in dims.iter().zip(&repeats) {
        if *repeat != 1 {
            summed.push(split.len() as i64);
            split.push(*repeat);
        }
        split.push(dim.known().map_or(-1, |size| size as i64));
    }
    if summed.is_empty() {
        return Ok(dy);
    }
    let parts = ctx.b.reshape(dy, &split);
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
        ]);
    }
}
