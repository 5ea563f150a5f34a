//! InstanceNormalization
//!
//! Forward:  `y = c * r * scale + b`, `c = x - mean(x)`, `r = 1 / sqrt(mean(c^2) + epsilon)`, the means
//!           over space.
//! Backward: with `d = dy`: `db = sum(d)`, `dscale = sum(r * sum over space(d c))`,
//!           `dx = (d - mean(d) - c * r^2 * mean(d c)) * scale * r`.
//! Shapes:   x `[N, C, D..]`, scale and b `[C]`; N and D may be symbols.
//! Opsets:   6 to 24.
//! <https://onnx.ai/onnx/operators/onnx__InstanceNormalization.html>

use super::shared::divide_by_count;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = Rule {
    domain: "",
    op: "InstanceNormalization",
    opsets: 6..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Gradient(scale), InputRule::Gradient(bias)]),
};

fn space(ctx: &Ctx<'_>) -> Result<Vec<i64>, RuleError> {
    Ok((2..ctx.rank(ctx.x(0)?)? as i64).collect())
}

fn centered(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    ctx.once("centered", |ctx| {
        let (x, space) = (ctx.x(0)?, space(ctx)?);
        let mean = ctx.b.reduce("ReduceMean", x, &space, true);
        Ok(ctx.b.sub(x, mean))
    })
}

/// `r`, as `[N, C, 1..]`.
fn inverse_deviation(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    ctx.once("inv_std", |ctx| {
        let (c, space) = (centered(ctx)?, space(ctx)?);
        let epsilon = f64::from(ctx.attributes().float("epsilon", 1e-5)?);
        let square = ctx.b.mul(c, c);
        let var = ctx.b.reduce("ReduceMean", square, &space, true);
        let shifted = ctx.b.shift(var, epsilon);
        let root = ctx.b.unary("Sqrt", shifted);
        Ok(ctx.b.unary("Reciprocal", root))
    })
}

/// `sum over space(d)`, as `[N, C, 1..]`.
fn sum(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    ctx.once("sum", |ctx| {
        let (d, space) = (ctx.dy()?, space(ctx)?);
        Ok(ctx.b.reduce("ReduceSum", d, &space, true))
    })
}

/// `r * sum over space(d c)`, as `[N, C, 1..]`.
fn product(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    ctx.once("product", |ctx| {
        let (d, c, r, space) = (ctx.dy()?, centered(ctx)?, inverse_deviation(ctx)?, space(ctx)?);
        let product = ctx.b.mul(d, c);
        let total = ctx.b.reduce("ReduceSum", product, &space, true);
        Ok(ctx.b.mul(total, r))
    })
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (d, c, r, space) = (ctx.dy()?, centered(ctx)?, inverse_deviation(ctx)?, space(ctx)?);
    let (sum, product) = (sum(ctx)?, product(ctx)?);
    let (x, scale) = (ctx.x(0)?, ctx.x(1)?);
    let mean = divide_by_count(ctx, sum, x, &space)?;
    let slope = ctx.b.mul(product, r);
    let slope = divide_by_count(ctx, slope, x, &space)?;
    let inner: Vec<i64> = (1..=space.len() as i64).collect();
    let scale = ctx.b.unsqueeze(scale, &inner);
    let factor = ctx.b.mul(scale, r);
    let shifted = ctx.b.sub(d, mean);
    let along = ctx.b.mul(c, slope);
    let rest = ctx.b.sub(shifted, along);
    Ok(ctx.b.mul(rest, factor))
}

fn scale(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let product = product(ctx)?;
    per_channel(ctx, product)
}

fn bias(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let sum = sum(ctx)?;
    per_channel(ctx, sum)
}

fn per_channel(ctx: &mut Ctx<'_>, value: ValueId) -> Result<ValueId, RuleError> {
    let axes: Vec<i64> = [0].into_iter().chain(space(ctx)?).collect();
    Ok(ctx.b.reduce("ReduceSum", value, &axes, false))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let norm = |name| Case::new(name, "InstanceNormalization");
        check(&[
            norm("2d").input(&[2, 3, 4, 5]).input(&[3]).input(&[3]),
            norm("1d, large epsilon").input(&[2, 3, 6]).input(&[3]).input(&[3]).float("epsilon", 0.1),
            norm("3d").input(&[1, 2, 2, 3, 2]).input(&[2]).input(&[2]),
            norm("constant plane")
                .values(&[1, 2, 2], &[5.0, 5.0, 1.0, -1.0])
                .values(&[2], &[1.0, 1.0])
                .values(&[2], &[0.0, 0.0])
                .expect(0, &[0.0; 4])
                .expect(1, &[0.0; 2])
                .expect(2, &[2.0; 2]),
            norm("symbols").input(&[2, 3, 4, 5]).input(&[3]).input(&[3]).symbols(&[
                (0, 0, "batch"),
                (0, 2, "height"),
                (0, 3, "width"),
            ]),
            norm("symbolic batch").input(&[2, 3, 4, 5]).input(&[3]).input(&[3]).batch(),
        ]);
    }
}
