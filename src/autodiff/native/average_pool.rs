//! AveragePool of images.
//!
//! `ai.freeze-plan.AveragePoolGrad(dy) -> dx`: attributes `kernel_shape`, `strides`, `dilations`, `pads`,
//! `count_include_pad` and `space`, which is `[H, W]` of dx.

use super::{NativeRule, is_image, own};
use crate::autodiff::rule::{Ctx, InputRule, RuleError};
use crate::autodiff::rules::pool_window;
use crate::graph::ValueId;

pub static RULE: NativeRule =
    NativeRule { domain: "", op: "AveragePool", applies, inputs: &[InputRule::Gradient(input)] };

fn applies(ctx: &Ctx<'_>) -> bool {
    let image = |value: Result<ValueId, RuleError>| value.is_ok_and(|id| is_image(ctx.b.fact(id)));
    let floors = ctx.attributes().int("ceil_mode", 0) == Ok(0);
    image(ctx.x(0)) && image(ctx.y(0)) && floors && pool_window(ctx).is_ok()
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x, window) = (ctx.dy()?, ctx.x(0)?, pool_window(ctx)?);
    let space: Vec<i64> = ctx.sizes_from(x, 2)?.iter().map(|size| *size as i64).collect();
    let include = ctx.attributes().int("count_include_pad", 0)?;
    let attributes = window.attributes().with("count_include_pad", include).with("space", space);
    let dx = ctx.b.ops(&own("AveragePoolGrad"), &[Some(dy)], attributes, 1)[0];
    let like = ctx.b.fact(x).clone();
    ctx.b.refine(dx, &like);
    Ok(dx)
}
