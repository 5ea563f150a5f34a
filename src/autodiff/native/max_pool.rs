//! MaxPool of images.
//!
//! `ai.freeze-plan.MaxPoolGrad(dy, x, y) -> dx`: attributes `kernel_shape`, `strides`, `dilations`, `pads`; the first
//! maximum of a window takes all.

use super::{NativeRule, is_image, own};
use crate::autodiff::rule::{Ctx, InputRule, RuleError};
use crate::autodiff::rules::pool_window;
use crate::graph::ValueId;

pub static RULE: NativeRule = NativeRule { domain: "", op: "MaxPool", applies, inputs: &[InputRule::Gradient(input)] };

fn applies(ctx: &Ctx<'_>) -> bool {
    let image = |value: Result<ValueId, RuleError>| value.is_ok_and(|id| is_image(ctx.b.fact(id)));
    image(ctx.x(0)) && image(ctx.y(0)) && pool_window(ctx).is_ok() && ctx.node().output(1).is_none()
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x, y, window) = (ctx.dy()?, ctx.x(0)?, ctx.y(0)?, pool_window(ctx)?);
    let dx = ctx.b.ops(&own("MaxPoolGrad"), &[Some(dy), Some(x), Some(y)], window.attributes(), 1)[0];
    let like = ctx.b.fact(x).clone();
    ctx.b.refine(dx, &like);
    Ok(dx)
}
