//! Triplet margin
//!
//! Formula:   with `d(x, y) = |x - y + 1e-6|` of rows: `mean(max(0, d(a, p) - d(a, n) + margin))` of
//!            anchor, positive and negative; with `swap` the smaller of `d(a, n)` and `d(p, n)`.
//! Target:    none.
//! Reduction: mean over the batch.
//! <https://pytorch.org/docs/stable/generated/torch.nn.TripletMarginLoss.html>

use super::{LossSpec, mean};
use crate::graph::{Attributes, Builder, ValueId};

/// Added to every difference.
const EPSILON: f64 = 1e-6;

/// Appends the loss.
pub(super) fn build(
    spec: &LossSpec,
    b: &mut Builder,
    anchor: ValueId,
    positive: ValueId,
    negative: ValueId,
) -> ValueId {
    let near = distance(b, anchor, positive);
    let mut far = distance(b, anchor, negative);
    if spec.swap == Some(true) {
        let other = distance(b, positive, negative);
        far = b.op("Min", &[far, other], Attributes::none());
    }
    let apart = b.sub(near, far);
    let short = b.shift(apart, f64::from(spec.margin()));
    let loss = b.unary("Relu", short);
    mean(b, loss)
}

fn distance(b: &mut Builder, x: ValueId, y: ValueId) -> ValueId {
    let difference = b.sub(x, y);
    let difference = b.shift(difference, EPSILON);
    b.reduce("ReduceL2", difference, &[1], false)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::losses::testing::{Case, check};
    use crate::losses::{LossKind, LossSpec};

    /// The formula of the head.
    fn formula(margin: f64, swap: bool) -> impl Fn(&[Vec<f64>], &[f64]) -> f64 {
        move |x, _| {
            let rows = x[0].len() / 3;
            let one = |n: usize| {
                let distance = |a: usize, b: usize| {
                    let square = |at: usize| (x[a][3 * n + at] - x[b][3 * n + at] + 1e-6).powi(2);
                    (0..3).map(square).sum::<f64>().sqrt()
                };
                let far = if swap { distance(0, 2).min(distance(1, 2)) } else { distance(0, 2) };
                (distance(0, 1) - far + margin).max(0.0)
            };
            (0..rows).map(one).sum::<f64>() / rows as f64
        }
    }

    #[test]
    fn values() {
        let names = Some(["a", "p", "n"].map(str::to_string).to_vec());
        let spec = LossSpec { outputs: names, ..LossSpec::new(LossKind::Triplet) };
        let margin = LossSpec { margin: Some(0.25), ..spec.clone() };
        let swap = LossSpec { swap: Some(true), ..spec.clone() };
        check(&[
            Case::several("margin 1", &spec, &[5, 3], None, formula(1.0, false)),
            Case::several("margin", &margin, &[5, 3], None, formula(0.25, false)),
            Case::several("swap", &swap, &[6, 3], None, formula(1.0, true)),
        ]);
    }
}
