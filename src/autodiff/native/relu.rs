//! Relu of images.
//!
//! `ai.freeze-plan.ReluGrad(dy, y) -> dx`: `dx = dy where y > 0, else 0`; all of one shape.

use super::{NativeRule, is_image, own};
use crate::autodiff::rule::{Ctx, InputRule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: NativeRule = NativeRule { domain: "", op: "Relu", applies, inputs: &[InputRule::Gradient(input)] };

fn applies(ctx: &Ctx<'_>) -> bool {
    ctx.y(0).is_ok_and(|y| is_image(ctx.b.fact(y)))
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, y) = (ctx.dy()?, ctx.y(0)?);
    let dx = ctx.b.ops(&own("ReluGrad"), &[Some(dy), Some(y)], Attributes::none(), 1)[0];
    let like = ctx.b.fact(y).clone();
    ctx.b.refine(dx, &like);
    Ok(dx)
}
