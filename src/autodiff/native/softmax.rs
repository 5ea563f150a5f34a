//! Softmax along the last axis.
//!
//! `ai.freeze-plan.SoftmaxGrad(dy, y) -> dx`: all of one shape, whose last size is fixed.

use super::{NativeRule, is_rows, own};
use crate::autodiff::rule::{Ctx, InputRule, RuleError, axis};
use crate::graph::{Attributes, ValueId};

pub static RULE: NativeRule = NativeRule { domain: "", op: "Softmax", applies, inputs: &[InputRule::Gradient(input)] };

fn applies(ctx: &Ctx<'_>) -> bool {
    let last = |y: ValueId| {
        let rank = ctx.b.fact(y).rank()?;
        let axis = axis(ctx.attributes().int("axis", -1).ok()?, rank).ok()?;
        (axis + 1 == rank).then_some(())
    };
    ctx.y(0).is_ok_and(|y| is_rows(ctx.b.fact(y)) && last(y).is_some())
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, y) = (ctx.dy()?, ctx.y(0)?);
    let dx = ctx.b.ops(&own("SoftmaxGrad"), &[Some(dy), Some(y)], Attributes::none(), 1)[0];
    let like = ctx.b.fact(y).clone();
    ctx.b.refine(dx, &like);
    Ok(dx)
}
