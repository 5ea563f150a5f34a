//! BatchNormalization, inference form
//!
//! Forward:  `y = (x - mean) * r * scale + b` per channel, `r = 1 / sqrt(var + epsilon)`.
//! Backward: `dx = dy * scale * r`, `db = sum(dy)`, `dscale = r * sum(dy * (x - mean))`,
//!           `dmean = -scale * r * db`, `dvar = -scale * r^2 * dscale / 2`.
//! Shapes:   x `[N, C, D..]`, the others `[C]`; N and D may be symbols.
//! Opsets:   7 to 24; `training_mode = 1` is replaced by the training pass.
//! <https://onnx.ai/onnx/operators/onnx__BatchNormalization.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = Rule {
    domain: "",
    op: "BatchNormalization",
    opsets: 7..=24,
    inputs: Inputs::Fixed(&[
        InputRule::Gradient(input),
        InputRule::Gradient(scale),
        InputRule::Gradient(sum),
        InputRule::Gradient(mean),
        InputRule::Gradient(variance),
    ]),
};

fn supported(ctx: &Ctx<'_>) -> Result<(), RuleError> {
    if ctx.attributes().int("training_mode", 0)? != 0 {
        let reason = "training_mode 1 is replaced by the training pass before gradients are built";
        return Err(RuleError::Unsupported(reason.into()));
    }
    let dtype = ctx.dtype(ctx.x(0)?);
    for index in 1..5 {
        let other = ctx.dtype(ctx.x(index)?);
        if other != dtype {
            return Err(RuleError::Unsupported(format!("input {index} is {other}, input 0 {dtype}")));
        }
    }
    Ok(())
}

/// `1 / sqrt(var + epsilon)`, as `[C]`.
fn inverse_deviation(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    supported(ctx)?;
    ctx.once("inv_std", |ctx| {
        let epsilon = f64::from(ctx.attributes().float("epsilon", 1e-5)?);
        let var = ctx.x(4)?;
        let shifted = ctx.b.shift(var, epsilon);
        let root = ctx.b.unary("Sqrt", shifted);
        Ok(ctx.b.unary("Reciprocal", root))
    })
}

/// `scale * r`, as `[C]`.
fn factor(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let r = inverse_deviation(ctx)?;
    ctx.once("factor", |ctx| {
        let scale = ctx.x(1)?;
        Ok(ctx.b.mul(scale, r))
    })
}

/// A `[C]` value as `[C, 1..]`, to meet x.
fn per_channel(ctx: &mut Ctx<'_>, value: ValueId) -> Result<ValueId, RuleError> {
    let rank = ctx.rank(ctx.x(0)?)? as i64;
    let axes: Vec<i64> = (1..rank - 1).collect();
    Ok(if axes.is_empty() { value } else { ctx.b.unsqueeze(value, &axes) })
}

fn sum_others(ctx: &mut Ctx<'_>, value: ValueId) -> Result<ValueId, RuleError> {
    let rank = ctx.rank(ctx.x(0)?)? as i64;
    let axes: Vec<i64> = (0..rank).filter(|axis| *axis != 1).collect();
    Ok(ctx.b.reduce("ReduceSum", value, &axes, false))
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let factor = factor(ctx)?;
    let factor = per_channel(ctx, factor)?;
    let dy = ctx.dy()?;
    Ok(ctx.b.mul(dy, factor))
}

fn scale(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let r = inverse_deviation(ctx)?;
    ctx.once("dscale", |ctx| {
        let (dy, x, mean) = (ctx.dy()?, ctx.x(0)?, ctx.x(3)?);
        let mean = per_channel(ctx, mean)?;
        let centered = ctx.b.sub(x, mean);
        let product = ctx.b.mul(dy, centered);
        let total = sum_others(ctx, product)?;
        Ok(ctx.b.mul(total, r))
    })
}

fn sum(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    supported(ctx)?;
    ctx.once("db", |ctx| {
        let dy = ctx.dy()?;
        sum_others(ctx, dy)
    })
}

fn mean(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (factor, sum) = (factor(ctx)?, sum(ctx)?);
    let product = ctx.b.mul(factor, sum);
    Ok(ctx.b.unary("Neg", product))
}

fn variance(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (r, factor, dscale) = (inverse_deviation(ctx)?, factor(ctx)?, scale(ctx)?);
    let slope = ctx.b.mul(factor, r);
    let product = ctx.b.mul(slope, dscale);
    Ok(ctx.b.scale(product, -0.5))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    fn channels(case: Case, channels: usize) -> Case {
        let per_channel = [channels];
        let case = case.not_embedded("tract takes only constant parameters");
        case.input(&per_channel).input(&per_channel).input(&per_channel).range(&per_channel, 0.5, 2.0)
    }

    #[test]
    fn gradients() {
        let norm = |name| Case::new(name, "BatchNormalization");
        check(&[
            channels(norm("2d").input(&[2, 3, 4, 5]), 3),
            channels(norm("1d, large epsilon").input(&[2, 3, 4]).float("epsilon", 0.1), 3),
            channels(norm("no space, symbolic batch").input(&[4, 3]).batch(), 3),
            channels(norm("2d, symbolic batch").input(&[2, 3, 4, 5]).batch(), 3),
            [[0.5, -2.0], [0.1, 0.2], [0.3, -0.3], [0.5, 2.0]]
                .iter()
                .fold(norm("constant parameters").input(&[3, 2, 4]), |case, values| {
                    case.fixed(Tensor::from_vec::<f32>(&[2], values.to_vec()))
                }),
        ]);
    }

    #[test]
    #[should_panic(expected = "training_mode 1 is replaced by the training pass")]
    fn training_mode_is_refused() {
        check(&[channels(Case::new("training", "BatchNormalization").input(&[2, 3, 4]), 3)
            .int("training_mode", 1)
            .outputs(3)
            .in_loss(1)]);
    }
}
