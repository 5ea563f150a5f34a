//! Cosine embedding
//!
//! Formula:   with `c = x . y / sqrt((x . x + 1e-12) (y . y + 1e-12))` of the rows of two
//!            predictions: `mean(1 - c)` where the target is 1, `mean(max(0, c - margin))` where it
//!            is -1, over all rows.
//! Target:    int64, 1 or -1 for each row; another number makes the loss NaN.
//! Reduction: mean over the batch.
//! <https://pytorch.org/docs/stable/generated/torch.nn.CosineEmbeddingLoss.html>

use super::{LossSpec, by_sign, mean};
use crate::graph::{Builder, ValueId};

/// Added to the squared lengths.
const EPSILON: f64 = 1e-12;

/// Appends the loss.
pub(super) fn build(spec: &LossSpec, b: &mut Builder, x: ValueId, y: ValueId, target: ValueId) -> ValueId {
    let [own, first, second] = [(x, y), (x, x), (y, y)].map(|(x, y)| {
        let product = b.mul(x, y);
        b.reduce("ReduceSum", product, &[1], false)
    });
    let [first, second] = [first, second].map(|square| b.shift(square, EPSILON));
    let lengths = b.mul(first, second);
    let lengths = b.unary("Sqrt", lengths);
    let cosine = b.div(own, lengths);
    let one = b.like(cosine, 1.0);
    let pull = b.sub(one, cosine);
    let over = b.shift(cosine, -f64::from(spec.margin()));
    let push = b.unary("Relu", over);
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
            let row = |n: usize| {
                let dot = |a: usize, b: usize| (0..3).map(|at| x[a][3 * n + at] * x[b][3 * n + at]).sum::<f64>();
                let cosine = dot(0, 1) / ((dot(0, 0) + 1e-12) * (dot(1, 1) + 1e-12)).sqrt();
                if t[n] == 1.0 { 1.0 - cosine } else { (cosine - margin).max(0.0) }
            };
            (0..t.len()).map(row).sum::<f64>() / t.len() as f64
        }
    }

    #[test]
    fn values() {
        let names = Some(vec!["a".to_string(), "b".to_string()]);
        let spec = LossSpec { outputs: names, ..LossSpec::new(LossKind::CosineEmbedding) };
        let margin = LossSpec { margin: Some(-0.25), ..spec.clone() };
        check(&[
            Case::several("margin 0", &spec, &[5, 3], Some(&[1, -1, -1, 1, -1]), formula(0.0)),
            Case::several("margin", &margin, &[5, 3], Some(&[-1, -1, -1, 1, -1]), formula(-0.25)),
            Case::several("no sign", &spec, &[2, 3], Some(&[1, 0]), |_, _| f64::NAN),
        ]);
    }
}
