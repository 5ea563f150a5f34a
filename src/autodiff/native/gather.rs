//! Gather of rows of a table.
//!
//! `ai.freeze-plan.EmbeddingGrad(indices, dy) -> dx`: dx `[rows, width]`, indices int64 of any shape, dy their shape and
//! `width` beside; attribute `rows`.

use super::{NativeRule, is_rows, own};
use crate::autodiff::rule::{Ctx, InputRule, RuleError, axis};
use crate::graph::{Attributes, DType, ValueId};

pub static RULE: NativeRule =
    NativeRule { domain: "", op: "Gather", applies, inputs: &[InputRule::Gradient(input), InputRule::Constant] };

fn applies(ctx: &Ctx<'_>) -> bool {
    let first = |x: ValueId| {
        let fact = ctx.b.fact(x);
        let axis = axis(ctx.attributes().int("axis", 0).ok()?, fact.rank()?).ok()?;
        (axis == 0 && fact.sizes()?.len() == 2 && is_rows(fact)).then_some(())
    };
    let varies = ctx.x(1).is_ok_and(|indices| ctx.b.graph().constant(indices).is_none());
    varies && ctx.x(0).is_ok_and(|x| first(x).is_some())
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x, indices) = (ctx.dy()?, ctx.x(0)?, ctx.x(1)?);
    let rows = ctx.sizes_from(x, 0)?[0];
    let indices = if ctx.dtype(indices) == DType::I64 { indices } else { ctx.b.cast(indices, DType::I64) };
    let attributes = Attributes::none().with("rows", rows as i64);
    let dx = ctx.b.ops(&own("EmbeddingGrad"), &[Some(indices), Some(dy)], attributes, 1)[0];
    let like = ctx.b.fact(x).clone();
    ctx.b.refine(dx, &like);
    Ok(dx)
}
