//! LayerNormalization over the last axis.
//!
//! `ai.freeze-plan.LayerNormalizationGrad(dy, x, scale, mean, inv_std) -> dx, dscale, dbias`: x and dy `[.., D]`,
//! scale `[D]`, statistics `[.., 1]`.

use super::{NativeRule, is_rows, own};
use crate::autodiff::rule::{Ctx, InputRule, RuleError, axis};
use crate::autodiff::rules::layer_statistic;
use crate::graph::{Attributes, Dim, ValueId};

pub static RULE: NativeRule = NativeRule {
    domain: "",
    op: "LayerNormalization",
    applies,
    inputs: &[InputRule::Each(each), InputRule::Each(each), InputRule::Each(each)],
};

fn applies(ctx: &Ctx<'_>) -> bool {
    let alone = (1..3).all(|output| ctx.grad(output).is_none());
    alone && ctx.attributes().int("stash_type", 1) == Ok(1) && last(ctx).is_some()
}

/// Returns the size of the last axis where that is what is normalized, scaled and shifted.
fn last(ctx: &Ctx<'_>) -> Option<usize> {
    let x = ctx.b.fact(ctx.x(0).ok()?);
    let rank = x.rank()?;
    let axis = axis(ctx.attributes().int("axis", -1).ok()?, rank).ok()?;
    let size = x.dim(-1).and_then(Dim::known)?;
    let parameter = |id: ValueId| is_rows(ctx.b.fact(id)) && ctx.b.fact(id).sizes() == Some(vec![size]);
    let given = (1..3).filter_map(|index| ctx.node().input(index)).all(parameter);
    (axis + 1 == rank && is_rows(x) && given).then_some(size)
}

fn each(ctx: &mut Ctx<'_>, index: usize) -> Result<ValueId, RuleError> {
    let found = ctx.once_each("gradient", |ctx| {
        let (dy, x, scale) = (ctx.dy()?, ctx.x(0)?, ctx.x(1)?);
        let (mean, inv_std) = (layer_statistic(ctx, 1)?, layer_statistic(ctx, 2)?);
        let inputs = [Some(dy), Some(x), Some(scale), mean, inv_std];
        let outputs = ctx.b.ops(&own("LayerNormalizationGrad"), &inputs, Attributes::none(), 3);
        let facts = [x, scale, scale].map(|like| ctx.b.fact(like).clone());
        outputs.iter().zip(&facts).for_each(|(output, fact)| ctx.b.refine(*output, fact));
        Ok(outputs)
    })?;
    Ok(found[index])
}
