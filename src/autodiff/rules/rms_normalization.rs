//! ai.freeze-plan.RMSNormalization
//!
//! Forward:  `y = x * r * scale`, `r = 1 / sqrt(mean(x^2) + epsilon)` over the axes from `axis` on.
//! Backward: `g = dy * scale`, `dx = r * (g - x * r^2 * mean(g * x))`, `dscale = sum_to(scale, dy * x * r)`;
//!           for the output r in addition `dx -= dr * r^3 * x / count`.
//! Shapes:   x, y `[.., D..]`, scale broadcasts to x, r `[.., 1..]`; the sizes before `axis` may be symbols.
//! Opsets:   any; the operator lives between autodiff and `lower`.
//! At kinks: where x is 0, `r = 1 / sqrt(epsilon)`.
//! No page: the operator is `autodiff::rms_norm_op`.

use super::shared::{divide_by_count, unbroadcast};
use crate::autodiff::rule::axis;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Dim, Fact, INTERNAL_DOMAIN, ValueId};

pub static RULE: Rule = Rule {
    domain: INTERNAL_DOMAIN,
    op: "RMSNormalization",
    opsets: 1..=99,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Gradient(scale)]),
};

fn axes(ctx: &Ctx<'_>) -> Result<Vec<i64>, RuleError> {
    let rank = ctx.rank(ctx.x(0)?)?;
    let first = axis(ctx.attributes().int("axis", -1)?, rank)?;
    Ok((first as i64..rank as i64).collect())
}

/// `r`, whose shape may be unknown where the node was not made by `rms_norm_node`.
fn inv_std(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (r, x, first) = (ctx.y(1)?, ctx.x(0)?, axes(ctx)?[0] as usize);
    let mut dims = ctx.dims(x)?;
    dims[first..].fill(Dim::Known(1));
    let fact = Fact::new(ctx.dtype(x), dims);
    ctx.b.refine(r, &fact);
    Ok(r)
}

/// `dy * x`
fn product(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    ctx.once("product", |ctx| {
        let (dy, x) = (ctx.dy()?, ctx.x(0)?);
        Ok(ctx.b.mul(dy, x))
    })
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (x, r, axes) = (ctx.x(0)?, inv_std(ctx)?, axes(ctx)?);
    let square = ctx.b.mul(r, r);
    let mut dx = None;
    if ctx.grad(0).is_some() || ctx.grad(1).is_none() {
        let (mut g, mut moment) = (ctx.dy()?, product(ctx)?);
        if let Some(scale) = ctx.node().input(1) {
            g = ctx.b.mul(g, scale);
            moment = ctx.b.mul(moment, scale);
        }
        let mean = ctx.b.reduce("ReduceMean", moment, &axes, true);
        let factor = ctx.b.mul(mean, square);
        let along = ctx.b.mul(x, factor);
        let rest = ctx.b.sub(g, along);
        dx = Some(ctx.b.mul(rest, r));
    }
    if let Some(dr) = ctx.grad(1) {
        let cube = ctx.b.mul(square, r);
        let slope = ctx.b.mul(dr, cube);
        let slope = divide_by_count(ctx, slope, x, &axes)?;
        let part = ctx.b.mul(x, slope);
        dx = Some(match dx {
            Some(dx) => ctx.b.sub(dx, part),
            None => ctx.b.unary("Neg", part),
        });
    }
    dx.ok_or_else(|| RuleError::Unsupported("no gradient arrives".into()))
}

fn scale(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (product, r, scale) = (product(ctx)?, inv_std(ctx)?, ctx.x(1)?);
    let grad = ctx.b.mul(product, r);
    unbroadcast(ctx, grad, scale)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let norm = |name| Case::new(name, "RMSNormalization").domain("ai.freeze-plan").outputs(2);
        check(&[
            norm("last axis").input(&[3, 4]).input(&[4]).in_loss(1),
            norm("no scale").input(&[3, 4]).float("epsilon", 0.1).in_loss(1),
            norm("two axes, symbolic batch").input(&[2, 3, 4]).input(&[3, 4]).int("axis", 1).batch().in_loss(1),
            norm("broadcast scale").input(&[2, 3, 4]).input(&[1, 3, 1]).int("axis", -2).in_loss(1),
            norm("scale of the leading axis").input(&[2, 3]).input(&[2, 1]).in_loss(1),
            norm("both outputs, symbolic batch").range(&[2, 3, 4], 0.5, 1.0).input(&[4]).batch(),
            norm("zero row and large")
                .values(&[2, 2], &[0.0, 0.0, 1e15, -1e15])
                .values(&[2], &[1.0, 1.0])
                .float("epsilon", 0.25)
                .in_loss(1)
                .expect(0, &[2.0, 2.0, 0.0, 0.0])
                .expect(1, &[1.0, -1.0]),
        ]);
    }
}
