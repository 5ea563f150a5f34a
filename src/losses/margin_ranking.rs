//! Margin ranking
//!
//! Formula:   `mean(max(0, margin - t (x - y)))` of two predictions.
//! Target:    int64, shape of a prediction: 1 where the first should be larger, -1 where the second;
//!            another number makes the loss NaN.
//! Reduction: mean of all elements.
//! <https://pytorch.org/docs/stable/generated/torch.nn.MarginRankingLoss.html>

use super::{LossSpec, by_sign, mean};
use crate::graph::{Builder, ValueId};

/// Appends the loss.
pub(super) fn build(spec: &LossSpec, b: &mut Builder, x: ValueId, y: ValueId, target: ValueId) -> ValueId {
    let [pull, push] = [(y, x), (x, y)].map(|(less, more)| {
        let apart = b.sub(less, more);
        let short = b.shift(apart, f64::from(spec.margin()));
        b.unary("Relu", short)
    });
    let loss = by_sign(b, target, pull, push);
    mean(b, loss)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::losses::testing::{Case, check};
    use crate::losses::{LossKind, LossSpec};

    /// The formula of the head.
    fn formula(margin: f64) -> impl Fn(&[Vec<f64>], &[f64]) -> f64 {
        move |x, t| {
            let one = |n: usize| (margin - t[n] * (x[0][n] - x[1][n])).max(0.0);
            (0..t.len()).map(one).sum::<f64>() / t.len() as f64
        }
    }

    #[test]
    fn values() {
        let names = Some(vec!["a".to_string(), "b".to_string()]);
        let spec = LossSpec { outputs: names, ..LossSpec::new(LossKind::MarginRanking) };
        let margin = LossSpec { margin: Some(0.5), ..spec.clone() };
        let signs = [1, -1, -1, 1, -1, 1];
        check(&[
            Case::several("margin 0", &spec, &[6], Some(&signs), formula(0.0)),
            Case::several("margin", &margin, &[3, 2], Some(&signs), formula(0.5)),
            Case::several("no sign", &spec, &[2], Some(&[1, 2]), |_, _| f64::NAN),
        ]);
    }
}
