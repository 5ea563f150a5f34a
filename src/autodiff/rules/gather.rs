//! Gather
//!
//! Forward:  `y` = the slices of x at `indices` along `axis`.
//! Backward: `dx[.., indices[q], ..] += dy[.., q, ..]`, by ScatterElements on a flat list of
//!           indices, expanded as int32 to halve what they take; for one constant index, dy padded
//!           with zeros.
//! Shapes:   x and indices any, repeated and negative indices too; dimensions may be symbols.
//! Opsets:   1 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Gather.html>

use super::shared::{Part, reshape_to, shaped_like, zeros_like};
use crate::autodiff::rule::axis;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, DType, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "Gather",
    opsets: 1..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x, indices) = (ctx.dy()?, ctx.x(0)?, ctx.x(1)?);
    let rank = ctx.rank(x)?;
    let along = axis(ctx.attributes().int("axis", 0)?, rank)?;
    let updates = match ctx.rank(indices)? {
        0 => ctx.b.unsqueeze(dy, &[along as i64]),
        1 => dy,
        _ => {
            let mut parts = vec![Part::Fixed(0); along];
            parts.push(Part::Fixed(-1));
            parts.extend((along + 1..rank).map(|axis| Part::Axis(x, axis)));
            reshape_to(ctx, dy, &parts)?
        }
    };
    if let Some(dx) = one_place(ctx, updates, along)? {
        return Ok(shaped_like(ctx, dx, x));
    }
    let mut shape = vec![1; rank];
    shape[along] = -1;
    let indices = ctx.b.cast(indices, DType::I32);
    let places = ctx.b.reshape(indices, &shape);
    let places = ctx.b.expand_like(places, updates);
    let zeros = zeros_like(ctx, x);
    let attributes = Attributes::none().with("axis", along as i64).with("reduction", "add");
    let dx = ctx.b.op("ScatterElements", &[zeros, places, updates], attributes);
    Ok(shaped_like(ctx, dx, x))
}

fn one_place(ctx: &mut Ctx<'_>, updates: ValueId, along: usize) -> Result<Option<ValueId>, RuleError> {
    let dims = ctx.dims(ctx.x(0)?)?;
    let place = ctx.b.graph().constant(ctx.x(1)?).and_then(|tensor| tensor.to_ints());
    let (Some(&[place]), Some(size)) = (place.as_deref(), dims[along].known()) else { return Ok(None) };
    let place = axis(place, size)?;
    let mut pads = vec![0; 2 * dims.len()];
    pads[along] = place as i64;
    pads[dims.len() + along] = (size - 1 - place) as i64;
    let pads = ctx.b.ints("pads", &pads);
    let zero = ctx.b.like(updates, 0.0);
    Ok(Some(ctx.b.op("Pad", &[updates, pads, zero], Attributes::none().with("mode", "constant"))))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let gather = |name, axis| Case::new(name, "Gather").linear().input(&[4, 5, 3]).int("axis", axis);
        let matrix = |values: Vec<i64>| Tensor::from_vec(&[2, 3], values);
        check(&[
            gather("rows, repeated and negative", 0).fixed(Tensor::ints(&[1, -1, 1, 3, 0, 1])),
            gather("middle, repeated", 1).fixed(Tensor::ints(&[2, 2, 0])),
            gather("matrix of indices", 0).fixed(matrix(vec![0, 3, 3, -4, 1, 0])),
            gather("matrix of indices, last axis", -1).fixed(matrix(vec![2, 2, 2, 0, -1, 1])),
            gather("one", 1).fixed(Tensor::scalar(-2_i64)),
            gather("one, kept", 1).fixed(Tensor::ints(&[0])),
            gather("int32", 1).fixed(Tensor::from_vec(&[3], vec![4_i32, 4, -1])),
            gather("one of a symbolic axis", 0).fixed(Tensor::scalar(2_i64)).batch(),
            gather("symbolic batch", 1).fixed(matrix(vec![0, 3, 3, -4, 1, 0])).batch(),
            gather("symbolic batch, one", 1).fixed(Tensor::scalar(0_i64)).batch(),
            gather("indices that the model computes", 1).fed(matrix(vec![0, 3, 3, -4, 1, 0])).symbols(&[
                (0, 0, "batch"),
                (0, 1, "tokens"),
                (0, 2, "width"),
                (1, 0, "rows"),
                (1, 1, "columns"),
            ]),
            gather("tokens, symbolic batch and length", 0)
                .fed(matrix(vec![0, 3, 3, -4, 1, 0]))
                .symbols(&[(1, 0, "batch"), (1, 1, "tokens")]),
            gather("row of indices, symbolic length", 1).fed(Tensor::ints(&[2, 2, 0])).symbols(&[(1, 0, "tokens")]),
            gather("one that the model computes", 2).fed(Tensor::scalar(1_i64)).symbols(&[(0, 1, "tokens")]),
            gather("along a symbol", 0).fixed(matrix(vec![0, 3, 3, -4, 1, 0])).batch(),
        ]);
    }
}
