//! BatchNormalization of images, by statistics that are given.
//!
//! `ai.freeze-plan.FixedNormalizationGrad(dy, x, scale, bias, mean, var) -> dx, dscale, dbias`: x and dy
//! `[N, C, H, W]`, the rest `[C]`; attribute `epsilon`. A gradient of the statistics is the portable rule's.

use super::{NativeRule, is_image, own};
use crate::autodiff::rule::{Ctx, InputRule, RuleError};
use crate::graph::{Attributes, DType, ValueId};

pub static RULE: NativeRule = NativeRule {
    domain: "",
    op: "BatchNormalization",
    applies,
    inputs: &[InputRule::Each(each), InputRule::Each(each), InputRule::Each(each)],
};

fn applies(ctx: &Ctx<'_>) -> bool {
    let inference = ctx.attributes().int("training_mode", 0) == Ok(0) && ctx.attributes().float("epsilon", 0.0).is_ok();
    let single = (1..5).all(|index| ctx.x(index).is_ok_and(|id| ctx.b.fact(id).dtype == Some(DType::F32)));
    inference && single && ctx.x(0).is_ok_and(|x| is_image(ctx.b.fact(x)))
}

fn each(ctx: &mut Ctx<'_>, index: usize) -> Result<ValueId, RuleError> {
    let found = ctx.once_each("gradient", |ctx| {
        let inputs = [ctx.dy()?, ctx.x(0)?, ctx.x(1)?, ctx.x(2)?, ctx.x(3)?, ctx.x(4)?].map(Some);
        let attributes = Attributes::none().with("epsilon", ctx.attributes().float("epsilon", 1e-5)?);
        let outputs = ctx.b.ops(&own("FixedNormalizationGrad"), &inputs, attributes, 3);
        for (index, output) in outputs.iter().enumerate() {
            let like = ctx.b.fact(ctx.x(index)?).clone();
            ctx.b.refine(*output, &like);
        }
        Ok(outputs)
    })?;
    Ok(found[index])
}
