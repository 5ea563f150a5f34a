//! GroupNormalization
//!
//! Forward:  `y = n * scale + b`, `n = (x - mean) * r`, `r = 1 / sqrt(variance + epsilon)`, mean and variance
//!           over each group of channels of one sample.
//! Backward: with `g = dy * scale`: `dx = r * (g - mean(g) - n * mean(g * n))`, `dscale = sum_to(scale, dy * n)`,
//!           `db = sum_to(b, dy)`.
//! Shapes:   x `[N, C, D..]` with fixed C; scale and b `[num_groups]` (opset 18 to 20) or `[C]` (from 21); which
//!           of the two is read from their size.
//! Opsets:   18 to 24.
//! At kinks: where x is constant in a group, `r = 1 / sqrt(epsilon)`.
//! <https://onnx.ai/onnx/operators/onnx__GroupNormalization.html>

use super::shared::cast_to;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, DType, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "GroupNormalization",
    opsets: 18..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Gradient(scale), InputRule::Gradient(bias)]),
};

struct Layout {
    groups: i64,
    channels: i64,
    spatial: Vec<i64>,
    /// Dtype in which statistics are computed.
    work: DType,
}

fn layout(ctx: &Ctx<'_>) -> Result<Layout, RuleError> {
    let x = ctx.x(0)?;
    let stash = ctx.attributes().int("stash_type", 1)?;
    if stash != i64::from(DType::F32.code()) {
        return Err(RuleError::Unsupported(format!("stash_type {stash} is not supported, only 1")));
    }
    let groups = ctx.attributes().int("num_groups", 0)?;
    let dims = ctx.dims(x)?;
    let channels = dims.get(1).and_then(|dim| i64::try_from(dim.known()?).ok()).ok_or_else(|| RuleError::NoShape {
        value: ctx.name(x),
        dims: "1".into(),
        found: ctx.b.fact(x).to_string(),
    })?;
    if groups < 1 || channels % groups != 0 {
        return Err(RuleError::Unsupported(format!("{channels} channels do not make {groups} groups")));
    }
    let work = if matches!(ctx.dtype(x), DType::F16 | DType::BF16) { DType::F32 } else { ctx.dtype(x) };
    Ok(Layout { groups, channels, spatial: (2..dims.len() as i64).collect(), work })
}

/// Returns `[N, groups, rest]` of a value like x.
fn grouped(ctx: &mut Ctx<'_>, value: ValueId) -> Result<ValueId, RuleError> {
    let groups = layout(ctx)?.groups;
    Ok(ctx.b.reshape(value, &[0, groups, -1]))
}

/// `n` as `[N, groups, rest]`; `r` is kept beside it.
fn normalized(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    ctx.once("normalized", |ctx| {
        let (centered, r) = (centered(ctx)?, inverse_deviation(ctx)?);
        Ok(ctx.b.mul(centered, r))
    })
}

fn centered(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    ctx.once("centered", |ctx| {
        let (x, work) = (ctx.x(0)?, layout(ctx)?.work);
        let x = grouped(ctx, x)?;
        let x = cast_to(ctx, x, work);
        let mean = ctx.b.reduce("ReduceMean", x, &[2], true);
        Ok(ctx.b.sub(x, mean))
    })
}

fn inverse_deviation(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    ctx.once("inv_std", |ctx| {
        let epsilon = ctx.attributes().float("epsilon", 1e-5)?;
        let centered = centered(ctx)?;
        let square = ctx.b.mul(centered, centered);
        let variance = ctx.b.reduce("ReduceMean", square, &[2], true);
        let shifted = ctx.b.shift(variance, f64::from(epsilon));
        let deviation = ctx.b.unary("Sqrt", shifted);
        Ok(ctx.b.unary("Reciprocal", deviation))
    })
}

/// Returns true where scale and b have one element a group.
fn per_group(ctx: &Ctx<'_>, value: ValueId) -> Result<bool, RuleError> {
    let Layout { groups, channels, .. } = layout(ctx)?;
    match ctx.sizes_from(value, 0)?.as_slice() {
        [size] if i64::try_from(*size) == Ok(channels) => Ok(false),
        [size] if i64::try_from(*size) == Ok(groups) => Ok(true),
        _ => Err(RuleError::Unsupported(format!(
            "\"{}\" has {}, neither {channels} channels nor {groups} groups",
            ctx.name(value),
            ctx.b.fact(value)
        ))),
    }
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let Layout { groups, channels, spatial, work } = layout(ctx)?;
    let (dy, x, scale) = (ctx.dy()?, ctx.x(0)?, ctx.x(1)?);
    let (n, r) = (normalized(ctx)?, inverse_deviation(ctx)?);
    let mut factor = cast_to(ctx, scale, work);
    if per_group(ctx, scale)? {
        let column = ctx.b.unsqueeze(factor, &[1]);
        let shape = ctx.b.ints("shape", &[groups, channels / groups]);
        let wide = ctx.b.op("Expand", &[column, shape], Attributes::none());
        factor = ctx.b.reshape(wide, &[channels]);
    }
    let inner: Vec<i64> = (1..=spatial.len() as i64).collect();
    if !inner.is_empty() {
        factor = ctx.b.unsqueeze(factor, &inner);
    }
    let dy = cast_to(ctx, dy, work);
    let g = ctx.b.mul(dy, factor);
    let g = grouped(ctx, g)?;
    let mean = ctx.b.reduce("ReduceMean", g, &[2], true);
    let product = ctx.b.mul(g, n);
    let moment = ctx.b.reduce("ReduceMean", product, &[2], true);
    let along = ctx.b.mul(n, moment);
    let centered = ctx.b.sub(g, mean);
    let across = ctx.b.sub(centered, along);
    let grad = ctx.b.mul(across, r);
    let grad = ctx.b.reshape_like(grad, x);
    let dtype = ctx.dtype(x);
    Ok(cast_to(ctx, grad, dtype))
}

fn scale(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let work = layout(ctx)?.work;
    let (dy, x, scale, n) = (ctx.dy()?, ctx.x(0)?, ctx.x(1)?, normalized(ctx)?);
    let n = ctx.b.reshape_like(n, x);
    let dy = cast_to(ctx, dy, work);
    let product = ctx.b.mul(dy, n);
    per_channel(ctx, product, scale)
}

fn bias(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, bias) = (ctx.dy()?, ctx.x(2)?);
    per_channel(ctx, dy, bias)
}

/// Sums a value like x over everything that an element of `like` stands for.
fn per_channel(ctx: &mut Ctx<'_>, value: ValueId, like: ValueId) -> Result<ValueId, RuleError> {
    let Layout { groups, channels, spatial, .. } = layout(ctx)?;
    let axes: Vec<i64> = [0].into_iter().chain(spatial).collect();
    let mut sum = ctx.b.reduce("ReduceSum", value, &axes, false);
    if per_group(ctx, like)? {
        let table = ctx.b.reshape(sum, &[groups, channels / groups]);
        sum = ctx.b.reduce("ReduceSum", table, &[1], false);
    }
    let dtype = ctx.dtype(like);
    Ok(cast_to(ctx, sum, dtype))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let norm = |name, groups: i64| Case::new(name, "GroupNormalization").int("num_groups", groups);
        check(&[
            norm("a scale per group", 2).input(&[2, 4, 3, 2]).input(&[2]).input(&[2]).batch(),
            norm("a scale per group, 1d", 3).input(&[2, 6, 5]).input(&[3]).input(&[3]).float("epsilon", 0.1),
            norm("a scale per channel", 2).opset(21).input(&[2, 4, 3, 2]).input(&[4]).input(&[4]).batch(),
            norm("symbols", 2).input(&[2, 4, 3, 2]).input(&[2]).input(&[2]).symbols(&[
                (0, 0, "batch"),
                (0, 2, "height"),
                (0, 3, "width"),
            ]),
            norm("one group, no space", 1).opset(21).input(&[2, 4]).input(&[4]).input(&[4]),
            norm("a group per channel", 3).input(&[2, 3, 4]).input(&[3]).input(&[3]),
            norm("newest", 2).opset(24).input(&[2, 4, 3]).input(&[4]).input(&[4]),
            norm("constant group and large", 2)
                .opset(21)
                .values(&[1, 2, 2], &[5.0, 5.0, 1e15, -1e15])
                .values(&[2], &[1.0, 1.0])
                .values(&[2], &[0.0, 0.0])
                .expect(0, &[0.0; 4])
                .expect(1, &[0.0, 0.0])
                .expect(2, &[2.0, 2.0]),
        ]);
    }
}
