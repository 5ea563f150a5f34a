//! SoftmaxCrossEntropyLoss
//!
//! Forward:  the negative log likelihood loss of `log_prob = log_softmax(x)` over axis 1; log_prob is output 1.
//! Backward: with `p = exp(log_prob)`, `onehot` of the target and `k` as in `NegativeLogLikelihoodLoss`:
//!           `dx = k * (p - onehot)`; for the output log_prob in addition `dlog_prob - p * sum of dlog_prob`.
//! Shapes:   x `[N, C, D..]`, target `[N, D..]`, weight `[C]`; every dimension may be a symbol.
//! Opsets:   12 to 24.
//! At kinks: 0 where everything is ignored, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__SoftmaxCrossEntropyLoss.html>

use super::negative_log_likelihood_loss::{WEIGHT, coefficient, picked};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "SoftmaxCrossEntropyLoss",
    opsets: 12..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant, InputRule::Missing(WEIGHT)]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let x = ctx.x(0)?;
    let p = match ctx.node().output(1) {
        Some(log_prob) => ctx.b.unary("Exp", log_prob),
        None => ctx.b.op("Softmax", &[x], Attributes::none().with("axis", 1)),
    };
    let through = ctx.grad(1).map(|grad| {
        let sum = ctx.b.reduce("ReduceSum", grad, &[1], true);
        let spread = ctx.b.mul(p, sum);
        ctx.b.sub(grad, spread)
    });
    if let (None, Some(through)) = (ctx.grad(0), through) {
        return Ok(through);
    }
    let (picked, k) = (picked(ctx)?, coefficient(ctx)?);
    let less = ctx.b.shift(p, -1.0);
    let distance = ctx.b.select(picked, less, p);
    let direct = ctx.b.mul(distance, k);
    Ok(match through {
        Some(through) => ctx.b.add(direct, through),
        None => direct,
    })
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let loss = |name, reduction: &str| {
            let case = Case::new(name, "SoftmaxCrossEntropyLoss");
            case.text("reduction", reduction)
        };
        let targets = |shape: &[usize], values: &[i64]| Tensor::from_vec(shape, values.to_vec());
        let weights = || Tensor::from_vec(&[3], vec![0.5_f32, 1.5, 2.0]);
        let mut cases = Vec::new();
        for reduction in ["none", "sum", "mean"] {
            let flat = |name| loss(name, reduction).input(&[4, 3]);
            let image = |name| loss(name, reduction).input(&[2, 3, 2, 2]);
            cases.extend([
                flat("plain").fixed(targets(&[4], &[0, 2, 1, 2])),
                flat("log_prob in the loss").fixed(targets(&[4], &[0, 2, 1, 2])).outputs(2),
                flat("log_prob not in the loss").fixed(targets(&[4], &[0, 2, 1, 2])).outputs(2).in_loss(1),
                flat("weights").fixed(targets(&[4], &[0, 2, 1, 2])).fixed(weights()),
                flat("ignored class").fixed(targets(&[4], &[0, 2, 1, 2])).int("ignore_index", 2),
                image("weights, ignored, 4d")
                    .fixed(targets(&[2, 2, 2], &[0, -100, 1, 2, 1, 1, -100, 0]))
                    .fixed(weights())
                    .int("ignore_index", -100)
                    .outputs(2),
            ]);
        }
        cases
            .push(loss("symbolic batch", "mean").input(&[4, 3]).fixed(targets(&[4], &[0, 1, 2, 0])).outputs(2).batch());
        let symbols = [(0, 0, "batch"), (0, 1, "classes"), (0, 2, "length"), (1, 0, "batch"), (1, 1, "length")];
        for reduction in ["none", "mean"] {
            let case = loss("symbols", reduction).input(&[4, 3, 2]).fed(targets(&[4, 2], &[0, 1, 2, 0, 1, 2, 0, 1]));
            cases.push(case.symbols(&symbols).outputs(2).int("ignore_index", 1));
        }
        let two = || loss("expected", "mean").values(&[2, 2], &[0.0, 0.0, 1000.0, 0.0]);
        cases.push(two().fixed(targets(&[2], &[-100, -100])).int("ignore_index", -100).expect(0, &[0.0; 4]));
        cases.push(two().fixed(targets(&[2], &[0, 1])).expect(0, &[-0.25, 0.25, 0.5, -0.5]));
        check(&cases);
    }
}
