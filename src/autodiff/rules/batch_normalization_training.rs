//! ai.freeze-plan.BatchNormalization, by the statistics of the batch
//!
//! Forward:  `y = c * r * scale + b`, `c = x - mean(x)`, `r = 1 / sqrt(mean(c^2) + epsilon)`, per channel.
//! Backward: with `d = dy`: `db = sum(d)`, `dscale = r * sum(d c)`,
//!           `dx = (d - mean(d) - c * r^2 * mean(d c)) * scale * r`.
//! Shapes:   x, y, c `[N, C, D..]`, scale, b, mean, var `[C]`, r `[1, C, 1..]`; N and D may be symbols.
//! Opsets:   any; the operator lives between autodiff and `lower`.
//! No page: the operator is `autodiff::batch_norm_op`.

use super::shared::divide_by_count;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{INTERNAL_DOMAIN, ValueId};

pub static RULE: Rule = Rule {
    domain: INTERNAL_DOMAIN,
    op: "BatchNormalization",
    opsets: 1..=99,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Gradient(scale), InputRule::Gradient(bias)]),
};

const CENTERED: usize = 3;
const INV_STD: usize = 4;

fn others(ctx: &Ctx<'_>) -> Result<Vec<i64>, RuleError> {
    let rank = ctx.rank(ctx.x(0)?)? as i64;
    Ok((0..rank).filter(|axis| *axis != 1).collect())
}

fn sum_kept(ctx: &mut Ctx<'_>, value: ValueId) -> Result<ValueId, RuleError> {
    let axes = others(ctx)?;
    Ok(ctx.b.reduce("ReduceSum", value, &axes, true))
}

fn supported(ctx: &Ctx<'_>) -> Result<(), RuleError> {
    if let Some(output) = (1..ctx.node().outputs.len()).find(|output| ctx.grad(*output).is_some()) {
        return Err(RuleError::Unsupported(format!("a gradient arrives at output {output}, a batch statistic")));
    }
    Ok(())
}

/// `sum(d)`, as `[1, C, 1..]`.
fn sum(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    supported(ctx)?;
    ctx.once("sum", |ctx| {
        let d = ctx.dy()?;
        sum_kept(ctx, d)
    })
}

/// `r * sum(d c)`, as `[1, C, 1..]`.
fn dscale(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    ctx.once("dscale", |ctx| {
        let (d, c, r) = (ctx.dy()?, ctx.y(CENTERED)?, ctx.y(INV_STD)?);
        let product = ctx.b.mul(d, c);
        let total = sum_kept(ctx, product)?;
        Ok(ctx.b.mul(total, r))
    })
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (sum, dscale) = (sum(ctx)?, dscale(ctx)?);
    let (d, c, r) = (ctx.dy()?, ctx.y(CENTERED)?, ctx.y(INV_STD)?);
    let (x, scale) = (ctx.x(0)?, ctx.x(1)?);
    let axes = others(ctx)?;
    let mean = divide_by_count(ctx, sum, x, &axes)?;
    let slope = ctx.b.mul(dscale, r);
    let slope = divide_by_count(ctx, slope, x, &axes)?;
    let spatial: Vec<i64> = (1..axes.len() as i64).collect();
    let scale = if spatial.is_empty() { scale } else { ctx.b.unsqueeze(scale, &spatial) };
    let factor = ctx.b.mul(scale, r);
    let shifted = ctx.b.sub(d, mean);
    let along = ctx.b.mul(c, slope);
    let rest = ctx.b.sub(shifted, along);
    Ok(ctx.b.mul(rest, factor))
}

fn scale(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    supported(ctx)?;
    let dscale = dscale(ctx)?;
    Ok(ctx.b.reshape(dscale, &[-1]))
}

fn bias(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let sum = sum(ctx)?;
    Ok(ctx.b.reshape(sum, &[-1]))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let norm = |name| Case::new(name, "BatchNormalization").domain("ai.freeze-plan").outputs(5).in_loss(1);
        check(&[
            norm("2d").input(&[4, 3, 4, 5]).input(&[3]).input(&[3]),
            norm("no space").input(&[6, 3]).input(&[3]).input(&[3]).float("epsilon", 0.1),
            norm("symbolic batch").input(&[4, 3, 5]).input(&[3]).input(&[3]).batch(),
        ]);
    }

    #[test]
    #[should_panic(expected = "a gradient arrives at output 1")]
    fn statistics_are_refused() {
        let norm = Case::new("statistics", "BatchNormalization").domain("ai.freeze-plan").outputs(5).in_loss(2);
        check(&[norm.input(&[4, 3, 5]).input(&[3]).input(&[3])]);
    }
}
