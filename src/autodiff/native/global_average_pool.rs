//! GlobalAveragePool of images.
//!
//! `ai.freeze-plan.GlobalAveragePoolGrad(dy) -> dx`: dy `[N, C, 1, 1]`; attribute `space` is `[H, W]` of dx.

use super::{NativeRule, is_image, own};
use crate::autodiff::rule::{Ctx, InputRule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: NativeRule =
    NativeRule { domain: "", op: "GlobalAveragePool", applies, inputs: &[InputRule::Gradient(input)] };

fn applies(ctx: &Ctx<'_>) -> bool {
    ctx.x(0).is_ok_and(|x| is_image(ctx.b.fact(x)))
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let space: Vec<i64> = ctx.sizes_from(x, 2)?.iter().map(|size| *size as i64).collect();
    let attributes = Attributes::none().with("space", space);
    let dx = ctx.b.ops(&own("GlobalAveragePoolGrad"), &[Some(dy)], attributes, 1)[0];
    let like = ctx.b.fact(x).clone();
    ctx.b.refine(dx, &like);
    Ok(dx)
}
