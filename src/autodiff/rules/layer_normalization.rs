//! LayerNormalization
//!
//! Forward:  `y = n * scale + b`, `n = (x - mean) * inv_std` over the axes from `axis` on.
//! Backward: `g = dy * scale`, `dx = inv_std * (g - mean(g) - n * mean(g * n))`,
//!           `dscale = sum_to(scale, dy * n)`, `db = sum_to(b, dy)`; for the outputs mean and inv_std in
//!           addition `dx += dmean / count` and `dx -= dinv_std * inv_std^2 * n / count`. The node gives
//!           mean and inv_std where it can, so that nothing is computed twice.
//! Shapes:   x `[.., D..]`; scale and b broadcast to x.
//! Opsets:   17 to 24.
//! At kinks: where x is constant, `inv_std = 1 / sqrt(epsilon)`.
//! <https://onnx.ai/onnx/operators/onnx__LayerNormalization.html>

use super::shared::{cast_to, unbroadcast};
use crate::autodiff::rule::axis;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{DType, Dim, Fact, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "LayerNormalization",
    opsets: 17..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Gradient(scale), InputRule::Gradient(bias)]),
};

/// The normalized axes, and the dtype in which statistics are computed.
fn layout(ctx: &Ctx<'_>) -> Result<(Vec<i64>, DType), RuleError> {
    let x = ctx.x(0)?;
    let stash = ctx.attributes().int("stash_type", 1)?;
    if stash != i64::from(DType::F32.code()) {
        return Err(RuleError::Unsupported(format!("stash_type {stash} is not supported, only 1")));
    }
    let rank = ctx.rank(x)?;
    let first = axis(ctx.attributes().int("axis", -1)?, rank)?;
    let work = if matches!(ctx.dtype(x), DType::F16 | DType::BF16) { DType::F32 } else { ctx.dtype(x) };
    Ok(((first as i64..rank as i64).collect(), work))
}

/// The mean (1) or the inverse deviation (2) that the node gives, or can give: kernels of ONNX
/// Runtime give it in the input's dtype or in float32, which is one for float32 alone.
///
/// # Errors
/// The rank of the input is not known, or an attribute is wrong.
pub fn statistic(ctx: &mut Ctx<'_>, index: usize) -> Result<Option<ValueId>, RuleError> {
    if let Some(given) = ctx.node().output(index) {
        return Ok(Some(given));
    }
    let (x, (axes, _)) = (ctx.x(0)?, layout(ctx)?);
    if ctx.dtype(x) != DType::F32 {
        return Ok(None);
    }
    let mut dims = ctx.dims(x)?;
    dims[axes[0] as usize..].fill(Dim::Known(1));
    Ok(Some(ctx.exposed(index, Fact::new(DType::F32, dims))))
}

fn centered(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    ctx.once("centered", |ctx| {
        let (axes, work) = layout(ctx)?;
        let input = ctx.x(0)?;
        let x = cast_to(ctx, input, work);
        let mean = match statistic(ctx, 1)? {
            Some(mean) => cast_to(ctx, mean, work),
            None => ctx.b.reduce("ReduceMean", x, &axes, true),
        };
        let centered = ctx.b.sub(x, mean);
        let shape = ctx.b.fact(input).shape.clone();
        ctx.b.refine(centered, &Fact { dtype: Some(work), shape });
        Ok(centered)
    })
}

fn inv_std(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    ctx.once("inv_std", |ctx| {
        let (axes, work) = layout(ctx)?;
        if let Some(given) = statistic(ctx, 2)? {
            return Ok(cast_to(ctx, given, work));
        }
        let epsilon = ctx.attributes().float("epsilon", 1e-5)?;
        let centered = centered(ctx)?;
        let square = ctx.b.mul(centered, centered);
        let var = ctx.b.reduce("ReduceMean", square, &axes, true);
        let shifted = ctx.b.shift(var, f64::from(epsilon));
        let std = ctx.b.unary("Sqrt", shifted);
        Ok(ctx.b.unary("Reciprocal", std))
    })
}

fn normalized(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    ctx.once("normalized", |ctx| {
        let (centered, inv_std) = (centered(ctx)?, inv_std(ctx)?);
        let normalized = ctx.b.mul(centered, inv_std);
        let fact = ctx.b.fact(centered).clone();
        ctx.b.refine(normalized, &fact);
        Ok(normalized)
    })
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (axes, work) = layout(ctx)?;
    let (dy, x, scale) = (ctx.dy()?, ctx.x(0)?, ctx.x(1)?);
    let (normalized, inv_std) = (normalized(ctx)?, inv_std(ctx)?);
    let (dy, scale) = (cast_to(ctx, dy, work), cast_to(ctx, scale, work));
    let g = ctx.b.mul(dy, scale);
    let mean = ctx.b.reduce("ReduceMean", g, &axes, true);
    let product = ctx.b.mul(g, normalized);
    let moment = ctx.b.reduce("ReduceMean", product, &axes, true);
    let along = ctx.b.mul(normalized, moment);
    let centered = ctx.b.sub(g, mean);
    let rest = ctx.b.sub(centered, along);
    let mut dx = ctx.b.mul(rest, inv_std);
    for index in [1, 2] {
        let Some(grad) = ctx.grad(index) else { continue };
        let count: f64 = ctx.sizes_from(x, axes[0] as usize)?.iter().map(|size| *size as f64).product();
        let grad = cast_to(ctx, grad, work);
        let share = ctx.b.scale(grad, if index == 1 { 1.0 / count } else { -1.0 / count });
        let part = if index == 1 {
            share
        } else {
            let square = ctx.b.mul(inv_std, inv_std);
            let factor = ctx.b.mul(share, square);
            ctx.b.mul(factor, normalized)
        };
        dx = ctx.b.add(dx, part);
    }
    let dtype = ctx.dtype(x);
    Ok(cast_to(ctx, dx, dtype))
}

fn scale(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (_, work) = layout(ctx)?;
    let (dy, scale, normalized) = (ctx.dy()?, ctx.x(1)?, normalized(ctx)?);
    let dy = cast_to(ctx, dy, work);
    let product = ctx.b.mul(dy, normalized);
    let grad = unbroadcast(ctx, product, scale)?;
    let dtype = ctx.dtype(scale);
    Ok(cast_to(ctx, grad, dtype))
}

fn bias(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, bias) = (ctx.dy()?, ctx.x(2)?);
    unbroadcast(ctx, dy, bias)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::{Attributes, Builder, DType, Fact};

    #[test]
    fn gradients() {
        let norm = |name| Case::new(name, "LayerNormalization");
        check(&[
            norm("last axis").input(&[3, 4]).input(&[4]).input(&[4]),
            norm("two axes, symbolic batch").input(&[2, 3, 4]).input(&[3, 4]).input(&[3, 4]).int("axis", 1).batch(),
            norm("no bias").input(&[3, 4]).input(&[4]).float("epsilon", 0.1),
            norm("broadcast scale").input(&[2, 3, 4]).input(&[4]).input(&[1, 3, 1]).int("axis", -2),
            norm("statistics").input(&[2, 3, 4]).input(&[4]).input(&[4]).outputs(3).batch(),
            norm("statistics of all").input(&[3, 4]).input(&[3, 4]).int("axis", 0).outputs(3),
            norm("constant row and large")
                .values(&[2, 2], &[5.0, 5.0, 1e15, -1e15])
                .values(&[2], &[1.0, 1.0])
                .expect(0, &[0.0; 4])
                .expect(1, &[1.0, -1.0]),
        ]);
    }

    #[test]
    fn half_precision_gradients_keep_their_dtype() {
        let mut b = Builder::new("half");
        let shapes: [&[usize]; 3] = [&[3, 4], &[4], &[4]];
        let inputs = ["x", "scale", "b"].into_iter().zip(shapes);
        let inputs: Vec<_> = inputs.map(|(name, shape)| b.input(name, Fact::fixed(DType::F16, shape))).collect();
        let y = b.op("LayerNormalization", &inputs, Attributes::none());
        let loss = b.reduce("ReduceSum", y, &[0, 1], false);
        let grads = crate::autodiff::gradients(&mut b, 18, loss, &inputs).unwrap();
        for (input, grad) in inputs.iter().zip(grads) {
            assert_eq!(b.fact(grad.unwrap()), b.fact(*input));
        }
        let ops: Vec<_> = b.graph().nodes().iter().map(|node| node.op.name.as_str()).collect();
        assert!(ops.contains(&"Cast"), "statistics are computed in float32");
    }
}
