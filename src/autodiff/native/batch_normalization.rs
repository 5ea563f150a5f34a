//! ai.freeze-plan.BatchNormalization of images, by the statistics of the batch.
//!
//! `ai.freeze-plan.BatchNormalizationGrad(dy, x, scale, mean, inv_std) -> dx, dscale, dbias`: x and dy
//! `[N, C, H, W]`, the rest `[C]`, `inv_std` with any dimensions of size 1 beside.

use super::{NativeRule, is_image, own};
use crate::autodiff::rule::{Ctx, InputRule, RuleError};
use crate::graph::{Attributes, INTERNAL_DOMAIN, ValueId};

pub static RULE: NativeRule = NativeRule {
    domain: INTERNAL_DOMAIN,
    op: "BatchNormalization",
    applies,
    inputs: &[InputRule::Each(each), InputRule::Each(each), InputRule::Each(each)],
};

const MEAN: usize = 1;
const INV_STD: usize = 4;

fn applies(ctx: &Ctx<'_>) -> bool {
    let alone = (1..ctx.node().outputs.len()).all(|output| ctx.grad(output).is_none());
    alone && ctx.x(0).is_ok_and(|x| is_image(ctx.b.fact(x)))
}

fn each(ctx: &mut Ctx<'_>, index: usize) -> Result<ValueId, RuleError> {
    let found = ctx.once_each("gradient", |ctx| {
        let inputs = [ctx.dy()?, ctx.x(0)?, ctx.x(1)?, ctx.y(MEAN)?, ctx.y(INV_STD)?].map(Some);
        let outputs = ctx.b.ops(&own("BatchNormalizationGrad"), &inputs, Attributes::none(), 3);
        for (index, output) in outputs.iter().enumerate() {
            let like = ctx.b.fact(ctx.x(index)?).clone();
            ctx.b.refine(*output, &like);
        }
        Ok(outputs)
    })?;
    Ok(found[index])
}
