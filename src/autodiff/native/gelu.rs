//! Gelu, of the standard and below opset 20.
//!
//! `ai.freeze-plan.GeluGrad(dy, x) -> dx`: all of one shape; attribute `approximate` as Gelu has it.

use super::{NativeRule, own};
use crate::autodiff::rule::{Ctx, InputRule, RuleError};
use crate::graph::{Attributes, DType, INTERNAL_DOMAIN, ValueId};

pub static RULE: NativeRule = NativeRule { domain: "", op: "Gelu", applies, inputs: &[InputRule::Gradient(input)] };

/// `ai.freeze-plan.Gelu`
pub static INTERNAL: NativeRule =
    NativeRule { domain: INTERNAL_DOMAIN, op: "Gelu", applies, inputs: &[InputRule::Gradient(input)] };

fn applies(ctx: &Ctx<'_>) -> bool {
    let known = ctx.attributes().text("approximate", "none").is_ok_and(|form| form == "none" || form == "tanh");
    known && ctx.x(0).is_ok_and(|x| ctx.b.fact(x).dtype == Some(DType::F32))
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let form = ctx.attributes().text("approximate", "none")?;
    let attributes = Attributes::none().with("approximate", form.as_str());
    let dx = ctx.b.ops(&own("GeluGrad"), &[Some(dy), Some(x)], attributes, 1)[0];
    let like = ctx.b.fact(x).clone();
    ctx.b.refine(dx, &like);
    Ok(dx)
}
