//! Hinge embedding
//!
//! Formula:   `mean(h)`: `h = x` where the target is 1, `h = max(0, margin - x)` where it is -1.
//! Target:    int64, 1 or -1, shape of the prediction; another number makes the loss NaN.
//! Reduction: mean of all elements.
//! <https://pytorch.org/docs/stable/generated/torch.nn.HingeEmbeddingLoss.html>

use super::{LossSpec, by_sign, mean};
use crate::graph::{Builder, ValueId};

/// Appends the loss.
pub(super) fn build(spec: &LossSpec, b: &mut Builder, x: ValueId, target: ValueId) -> ValueId {
    let margin = b.like(x, f64::from(spec.margin()));
    let short = b.sub(margin, x);
    let push = b.unary("Relu", short);
    let loss = by_sign(b, target, x, push);
    mean(b, loss)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::losses::testing::{Case, check};
    use crate::losses::{LossKind, LossSpec};

    /// The formula of the head.
    fn formula(margin: f64) -> impl Fn(&[Vec<f64>], &[f64]) -> f64 {
        move |x, t| {
            let one = |n: usize| if t[n] == 1.0 { x[0][n] } else { (margin - x[0][n]).max(0.0) };
            (0..t.len()).map(one).sum::<f64>() / t.len() as f64
        }
    }

    #[test]
    fn values() {
        let spec = LossSpec::new(LossKind::HingeEmbedding);
        let margin = LossSpec { margin: Some(0.5), ..spec.clone() };
        let signs = [1, -1, -1, 1, -1, 1];
        check(&[
            Case::several("margin 1", &spec, &[6], Some(&signs), formula(1.0)),
            Case::several("margin", &margin, &[3, 2], Some(&signs), formula(0.5)),
            Case::several("no sign", &spec, &[2], Some(&[1, 2]), |_, _| f64::NAN),
        ]);
    }
}
