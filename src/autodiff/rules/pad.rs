//! Pad, constant mode
//!
//! Forward:  `y` = x with constant elements before and after each axis; negative pads remove.
//! Backward: `dx` = the part of dy that came from x, zeros where elements were removed;
//!           `dvalue = sum(dy) - sum(dx)`.
//! Shapes:   x any of known rank, dimensions may be symbols; pads and axes are constant.
//! Opsets:   11 to 24 (from 18 with axes).
//! <https://onnx.ai/onnx/operators/onnx__Pad.html>

use super::shared::shaped_like;
use crate::autodiff::rule::axis;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "Pad",
    opsets: 11..=24,
    inputs: Inputs::Fixed(&[
        InputRule::Gradient(input),
        InputRule::Constant,
        InputRule::Gradient(value),
        InputRule::Constant,
    ]),
};

/// Returns the pads before and after every axis.
fn pads(ctx: &Ctx<'_>, rank: usize) -> Result<(Vec<i64>, Vec<i64>), RuleError> {
    let mode = ctx.attributes().text("mode", "constant")?;
    if mode != "constant" {
        return Err(RuleError::Unsupported(format!("mode \"{mode}\" has no gradient, \"constant\" has")));
    }
    let given = ctx.constant_ints(1)?.unwrap_or_default();
    let axes = ctx.constant_ints(3)?.unwrap_or_else(|| (0..rank as i64).collect());
    if given.len() != 2 * axes.len() {
        return Err(RuleError::Unsupported(format!("{} pads for {} axes", given.len(), axes.len())));
    }
    let (mut begin, mut end) = (vec![0; rank], vec![0; rank]);
    for (index, at) in axes.iter().enumerate() {
        let at = axis(*at, rank)?;
        (begin[at], end[at]) = (given[index], given[axes.len() + index]);
    }
    Ok((begin, end))
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let rank = ctx.rank(ctx.x(0)?)?;
    let (begin, end) = pads(ctx, rank)?;
    ctx.once("dx", |ctx| {
        let (mut dx, x) = (ctx.dy()?, ctx.x(0)?);
        let added: Vec<usize> = (0..rank).filter(|at| begin[*at] > 0 || end[*at] > 0).collect();
        if !added.is_empty() {
            let list = |value: &dyn Fn(usize) -> i64| added.iter().map(|at| value(*at)).collect::<Vec<_>>();
            let starts = ctx.b.ints("starts", &list(&|at| begin[at].max(0)));
            let ends = ctx.b.ints("ends", &list(&|at| if end[at] > 0 { -end[at] } else { i64::MAX }));
            let axes = ctx.b.ints("axes", &list(&|at| at as i64));
            dx = ctx.b.op("Slice", &[dx, starts, ends, axes], Attributes::none());
        }
        let removed: Vec<i64> = begin.iter().chain(&end).map(|pad| (-pad).max(0)).collect();
        if removed.iter().any(|pad| *pad > 0) {
            let pads = ctx.b.ints("pads", &removed);
            let zero = ctx.b.like(dx, 0.0);
            dx = ctx.b.op("Pad", &[dx, pads, zero], Attributes::none().with("mode", "constant"));
        }
        Ok(shaped_like(ctx, dx, x))
    })
}

fn value(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, dx, value) = (ctx.dy()?, input(ctx)?, ctx.x(2)?);
    let axes: Vec<i64> = (0..ctx.rank(dy)? as i64).collect();
    let all = ctx.b.reduce("ReduceSum", dy, &axes, false);
    let inner = ctx.b.reduce("ReduceSum", dx, &axes, false);
    let padding = ctx.b.sub(all, inner);
    Ok(ctx.b.reshape_like(padding, value))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let pad = |name, pads: &[i64]| Case::new(name, "Pad").linear().input(&[2, 4, 5]).fixed(Tensor::ints(pads));
        check(&[
            pad("all sides", &[1, 2, 3, 0, 1, 2]),
            pad("with a trained value", &[0, 2, 1, 1, 0, 2])
                .values(&[], &[0.5])
                .not_embedded("tract takes only a constant value"),
            pad("some axes", &[1, 0, 2, 1]).missing().fixed(Tensor::ints(&[-1, 1])),
            pad("nothing", &[0, 0, 0, 0, 0, 0]),
            pad("removing", &[0, -1, 1, 0, 0, -2]).not_embedded("tract fails on negative pads"),
            pad("symbolic batch", &[0, 1, 0, 0, 0, 2]).batch(),
            pad("along a symbol", &[1, 0, 0, 2, 0, 1]).batch(),
        ]);
    }
}
