//! Conv of images.
//!
//! `ai.freeze-plan.ConvInputGrad(dy, w) -> dx` and `ConvWeightGrad(x, dy) -> dw`: x `[N, C, H, W]`, dy
//! `[N, M, OH, OW]`, w `[M, C/group, kH, kW]`; attributes of Conv with every one given and pads worked out;
//! `space` is `[H, W]`. The gradient of the bias is the portable one.

use super::{NativeRule, is_image, own};
use crate::autodiff::rule::{Ctx, InputRule, RuleError};
use crate::autodiff::rules::{conv_bias, conv_window};
use crate::graph::{Attributes, ValueId};

pub static RULE: NativeRule = NativeRule {
    domain: "",
    op: "Conv",
    applies,
    inputs: &[InputRule::Gradient(input), InputRule::Gradient(weight), InputRule::Gradient(conv_bias)],
};

fn applies(ctx: &Ctx<'_>) -> bool {
    let image = |value: Result<ValueId, RuleError>| value.is_ok_and(|id| is_image(ctx.b.fact(id)));
    let weight = ctx.x(1).is_ok_and(|id| ctx.b.fact(id).sizes().is_some());
    image(ctx.x(0)) && image(ctx.y(0)) && weight && attributes(ctx).is_ok()
}

fn attributes(ctx: &Ctx<'_>) -> Result<Attributes, RuleError> {
    let (window, group, space) = conv_window(ctx)?;
    Ok(window.attributes().with("group", group).with("space", space))
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, w, attributes) = (ctx.dy()?, ctx.x(1)?, attributes(ctx)?);
    let dx = ctx.b.ops(&own("ConvInputGrad"), &[Some(dy), Some(w)], attributes, 1)[0];
    let like = ctx.b.fact(ctx.x(0)?).clone();
    ctx.b.refine(dx, &like);
    Ok(dx)
}

fn weight(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x, attributes) = (ctx.dy()?, ctx.x(0)?, attributes(ctx)?);
    let dw = ctx.b.ops(&own("ConvWeightGrad"), &[Some(x), Some(dy)], attributes, 1)[0];
    let like = ctx.b.fact(ctx.x(1)?).clone();
    ctx.b.refine(dw, &like);
    Ok(dw)
}
