//! Kullback-Leibler divergence
//!
//! Formula:   `sum(t (log t - x)) / rows`, 0 where `t` is 0; with `log_target` `t` is the exponential
//!            of the target. With `logits` the prediction's log-softmax over the class axis stands
//!            for `x`, which is else the prediction itself.
//! Target:    probability, or its logarithm; floating point, shape of the prediction.
//! Reduction: sum over the classes, mean over the batch (PyTorch's `batchmean`).
//! <https://pytorch.org/docs/stable/generated/torch.nn.KLDivLoss.html>

use super::{LossError, LossSpec, mean};
use crate::graph::{Attributes, Builder, ValueId};

/// Appends the loss.
pub(super) fn build(
    spec: &LossSpec,
    b: &mut Builder,
    prediction: ValueId,
    target: ValueId,
) -> Result<ValueId, LossError> {
    let mut x = prediction;
    let fact = b.fact(x).clone();
    let rank = fact.rank().ok_or_else(|| LossError::Prediction {
        kind: spec.kind,
        expected: "known rank",
        found: fact.to_string(),
    })?;
    if spec.logits == Some(true) {
        let axis = spec.axis(&fact)? as i64;
        x = b.op("LogSoftmax", &[x], Attributes::none().with("axis", axis));
    }
    let (probability, log) = if spec.log_target == Some(true) {
        (b.unary("Exp", target), target)
    } else {
        let some = b.compare("Greater", target, 0.0);
        let one = b.like(target, 1.0);
        let safe = b.select(some, target, one);
        (target, b.unary("Log", safe))
    };
    let apart = b.sub(log, x);
    let mut loss = b.mul(probability, apart);
    let inner: Vec<i64> = (1..rank as i64).collect();
    if !inner.is_empty() {
        loss = b.reduce("ReduceSum", loss, &inner, false);
    }
    Ok(mean(b, loss))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::losses::testing::{Case, check};
    use crate::losses::{LossKind, LossSpec};

    fn formula(rows: usize, log_target: bool) -> impl Fn(&[f64], &[f64]) -> f64 {
        move |x, t| {
            let one = |(x, t): (&f64, &f64)| {
                let t = if log_target { t.exp() } else { *t };
                if t > 0.0 { t * (t.ln() - x) } else { 0.0 }
            };
            x.iter().zip(t).map(one).sum::<f64>() / rows as f64
        }
    }

    fn softened(x: &[f64], count: usize) -> Vec<f64> {
        let logs = |row: &[f64]| {
            let all = row.iter().map(|x| x.exp()).sum::<f64>().ln();
            row.iter().map(|x| x - all).collect::<Vec<_>>()
        };
        x.chunks(count).flat_map(logs).collect()
    }

    #[test]
    fn values() {
        let spec = LossSpec::new(LossKind::Kl);
        let log = LossSpec { log_target: Some(true), ..spec.clone() };
        let logits = LossSpec { logits: Some(true), ..spec.clone() };
        check(&[
            Case::whole("rank 1", &spec, &[5], formula(5, false)),
            Case::whole("rank 2", &spec, &[4, 3], formula(4, false)),
            Case::whole("rank 4", &spec, &[2, 3, 2, 2], formula(2, false)),
            Case::whole("log target", &log, &[4, 3], formula(4, true)),
            Case::whole("logits", &logits, &[4, 3], |x, t| formula(4, false)(&softened(x, 3), t)),
        ]);
    }
}
