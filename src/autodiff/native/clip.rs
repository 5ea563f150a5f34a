//! Clip of images between fixed bounds.
//!
//! `ai.freeze-plan.ClipGrad(dy, y) -> dx`: `dx = dy where min < y < max, else 0`; attributes `min` and `max`,
//! infinite where there is no bound.

use super::{NativeRule, is_image, own};
use crate::autodiff::rule::{Ctx, InputRule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: NativeRule = NativeRule { domain: "", op: "Clip", applies, inputs: &[InputRule::Gradient(input)] };

fn applies(ctx: &Ctx<'_>) -> bool {
    ctx.y(0).is_ok_and(|y| is_image(ctx.b.fact(y))) && bounds(ctx).is_some()
}

/// Returns the bounds where they are fixed and of opset 11 or later, where they are inputs.
fn bounds(ctx: &Ctx<'_>) -> Option<[f32; 2]> {
    if ctx.attributes().iter().next().is_some() {
        return None;
    }
    let mut bounds = [f32::NEG_INFINITY, f32::INFINITY];
    for (index, bound) in bounds.iter_mut().enumerate() {
        if let Some(value) = ctx.node().input(index + 1) {
            let fixed = ctx.b.graph().constant(value)?.to_f64s()?;
            *bound = *fixed.first()? as f32;
        }
    }
    Some(bounds)
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, y) = (ctx.dy()?, ctx.y(0)?);
    let [min, max] = bounds(ctx).unwrap_or([f32::NEG_INFINITY, f32::INFINITY]);
    let attributes = Attributes::none().with("min", min).with("max", max);
    let dx = ctx.b.ops(&own("ClipGrad"), &[Some(dy), Some(y)], attributes, 1)[0];
    let like = ctx.b.fact(y).clone();
    ctx.b.refine(dx, &like);
    Ok(dx)
}
