//! NegativeLogLikelihoodLoss
//!
//! Forward:  `l[n, d] = -w[t] * x[n, t, d]` for the class `t = target[n, d]`, 0 where t is ignore_index; y is l,
//!           its sum, or its sum divided by the sum of `w[t]` over what is not ignored.
//! Backward: `dx[n, c, d] = c = t ? -k : 0` with `k = w[t] * dy`, divided by the sum of `w[t]` for the mean.
//! Shapes:   x `[N, C, D..]`, target `[N, D..]`, weight `[C]`; every dimension may be a symbol.
//! Opsets:   12 to 24.
//! At kinks: 0 where everything is ignored, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__NegativeLogLikelihoodLoss.html>

use super::shared::{cast_to, divide_by_count, masked};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, DType, Dim, Tensor, ValueId};

/// Why the class weights of a loss have no gradient here.
pub const WEIGHT: &str = "the class weights of a loss are not trained";

pub static RULE: Rule = Rule {
    domain: "",
    op: "NegativeLogLikelihoodLoss",
    opsets: 12..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant, InputRule::Missing(WEIGHT)]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (picked, k) = (picked(ctx)?, coefficient(ctx)?);
    let negative = ctx.b.unary("Neg", k);
    Ok(masked(ctx, picked, negative))
}

/// The target as int64.
fn target(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    ctx.once("target", |ctx| {
        let target = ctx.x(1)?;
        Ok(cast_to(ctx, target, DType::I64))
    })
}

/// Where the target is not ignored, `[N, D..]`; `None` where nothing can be.
fn valid(ctx: &mut Ctx<'_>) -> Result<Option<ValueId>, RuleError> {
    if ctx.attributes().get("ignore_index").is_none() {
        return Ok(None);
    }
    let ignored = ctx.attributes().int("ignore_index", 0)?;
    ctx.once("valid", |ctx| {
        let target = target(ctx)?;
        let ignored = ctx.b.constant("ignored", Tensor::scalar(ignored));
        let equal = ctx.b.op("Equal", &[target, ignored], Attributes::none());
        Ok(ctx.b.unary("Not", equal))
    })
    .map(Some)
}

/// Where an element of x belongs to the class of its target, `[N, C, D..]`.
pub fn picked(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (x, target) = (ctx.x(0)?, target(ctx)?);
    let dims = ctx.dims(x)?;
    let counter = match dims.get(1).and_then(Dim::known) {
        Some(classes) => ctx.b.ints("classes", &(0..classes as i64).collect::<Vec<i64>>()),
        None => {
            let count = ctx.b.op("Shape", &[x], Attributes::none().with("start", 1).with("end", 2));
            let count = ctx.b.squeeze(count, &[0]);
            let (zero, one) = (ctx.b.scalar(DType::I64, 0.0), ctx.b.scalar(DType::I64, 1.0));
            ctx.b.op("Range", &[zero, count, one], Attributes::none())
        }
    };
    let mut shape = vec![1; dims.len().saturating_sub(1)];
    shape.iter_mut().take(1).for_each(|size| *size = -1);
    let classes = ctx.b.reshape(counter, &shape);
    let target = ctx.b.unsqueeze(target, &[1]);
    let equal = ctx.b.op("Equal", &[target, classes], Attributes::none());
    let Some(valid) = valid(ctx)? else { return Ok(equal) };
    let valid = ctx.b.unsqueeze(valid, &[1]);
    Ok(ctx.b.op("And", &[equal, valid], Attributes::none()))
}

/// `w[t]`, 0 where the target is ignored, `[N, D..]`; `None` where it is 1 everywhere.
fn weight(ctx: &mut Ctx<'_>) -> Result<Option<ValueId>, RuleError> {
    let (valid, x) = (valid(ctx)?, ctx.x(0)?);
    let dtype = ctx.dtype(x);
    let Some(weights) = ctx.node().input(2) else {
        return Ok(valid.map(|valid| ctx.b.cast(valid, dtype)));
    };
    let mut class = target(ctx)?;
    if let Some(valid) = valid {
        let first = ctx.b.scalar(DType::I64, 0.0);
        class = ctx.b.select(valid, class, first);
    }
    let weight = ctx.b.op("Gather", &[weights, class], Attributes::none());
    Ok(Some(match valid {
        Some(valid) => masked(ctx, valid, weight),
        None => weight,
    }))
}

/// `k`, the gradient of a target's own log probability with its sign changed, 0 where the target is
/// ignored: `[N, 1, D..]`, or a scalar where it is the same everywhere.
pub fn coefficient(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, weight) = (ctx.dy()?, weight(ctx)?);
    let reduction = ctx.attributes().text("reduction", "mean")?;
    let k = match (reduction.as_str(), weight) {
        ("none" | "sum", Some(weight)) => ctx.b.mul(dy, weight),
        ("none", None) => dy,
        ("sum", None) => return Ok(dy),
        ("mean", Some(weight)) => {
            let total = ctx.b.op("ReduceSum", &[weight], Attributes::none().with("keepdims", 0));
            let share = ctx.b.div(dy, total);
            ctx.b.mul(share, weight)
        }
        ("mean", None) => {
            let target = ctx.x(1)?;
            let axes: Vec<i64> = (0..ctx.rank(target)? as i64).collect();
            return divide_by_count(ctx, dy, target, &axes);
        }
        (other, _) => return Err(RuleError::Unsupported(format!("reduction \"{other}\" is not known"))),
    };
    let k = match valid(ctx)? {
        Some(valid) => masked(ctx, valid, k),
        None => k,
    };
    Ok(ctx.b.unsqueeze(k, &[1]))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let loss = |name, reduction: &str| {
            let case = Case::new(name, "NegativeLogLikelihoodLoss").linear();
            case.text("reduction", reduction)
        };
        let targets = |shape: &[usize], values: &[i64]| Tensor::from_vec(shape, values.to_vec());
        let weights = || Tensor::from_vec(&[3], vec![0.5_f32, 1.5, 2.0]);
        let mut cases = Vec::new();
        for reduction in ["none", "sum", "mean"] {
            let flat = |name| loss(name, reduction).input(&[4, 3]);
            let image = |name| loss(name, reduction).input(&[2, 3, 2]);
            cases.extend([
                flat("plain").fixed(targets(&[4], &[0, 2, 1, 2])),
                flat("weights").fixed(targets(&[4], &[0, 2, 1, 2])).fixed(weights()),
                flat("ignored class").fixed(targets(&[4], &[0, 2, 1, 2])).int("ignore_index", 2),
                image("weights, ignored, 3d")
                    .fixed(targets(&[2, 2], &[0, -100, 1, 2]))
                    .fixed(weights())
                    .int("ignore_index", -100),
                image("ignored, 32 bits")
                    .fixed(Tensor::from_vec(&[2, 2], vec![0_i32, -1, 1, 2]))
                    .int("ignore_index", -1),
            ]);
        }
        cases.push(
            loss("symbolic batch", "mean").input(&[4, 3, 2]).fixed(targets(&[4, 2], &[0, 1, 2, 0, 1, 2, 0, 1])).batch(),
        );
        let symbols = [(0, 0, "batch"), (0, 1, "classes"), (0, 2, "length"), (1, 0, "batch"), (1, 1, "length")];
        for reduction in ["none", "mean"] {
            let case = loss("symbols", reduction).input(&[4, 3, 2]).fed(targets(&[4, 2], &[0, 1, 2, 0, 1, 2, 0, 1]));
            cases.push(case.symbols(&symbols));
        }
        let two = || loss("expected", "mean").values(&[2, 2], &[1.0, 2.0, 2.0, 4.0]);
        cases.push(two().fixed(targets(&[2], &[-100, -100])).int("ignore_index", -100).expect(0, &[0.0; 4]));
        cases.push(two().fixed(targets(&[2], &[-100, 1])).int("ignore_index", -100).expect(0, &[0.0, 0.0, 0.0, -1.0]));
        check(&cases);
    }
}
