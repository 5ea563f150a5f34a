//! Huber
//!
//! Formula:   `mean(h)` of `d = x - t`: `h = d^2 / 2` where `|d| <= delta`, else
//!            `delta (|d| - delta / 2)`. Built as `c (d - c / 2)` of `c = clip(d, -delta, delta)`,
//!            whose derivative is `c` whatever `Clip` does at its bounds.
//! Target:    floating point, shape of the prediction.
//! Reduction: mean of all elements.
//! <https://pytorch.org/docs/stable/generated/torch.nn.HuberLoss.html>

use super::mean;
use crate::graph::{Attributes, Builder, ValueId};

/// Appends the loss.
pub(super) fn build(delta: f64, b: &mut Builder, prediction: ValueId, target: ValueId) -> ValueId {
    let difference = b.sub(prediction, target);
    let (low, high) = (b.like(difference, -delta), b.like(difference, delta));
    let clipped = b.op("Clip", &[difference, low, high], Attributes::none());
    let half = b.scale(clipped, 0.5);
    let rest = b.sub(difference, half);
    let product = b.mul(clipped, rest);
    mean(b, product)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::losses::testing::{Case, check};
    use crate::losses::{LossKind, LossSpec};

    fn formula(delta: f64) -> impl Fn(f64, f64) -> f64 {
        move |x, t| {
            let d = (x - t).abs();
            if d <= delta { 0.5 * d * d } else { delta * (d - 0.5 * delta) }
        }
    }

    #[test]
    fn values() {
        let spec = LossSpec::new(LossKind::Huber);
        let narrow = LossSpec { delta: 0.25, ..spec.clone() };
        check(&[
            Case::elementwise("delta 1", &spec, &[4, 3], formula(1.0)),
            Case::elementwise("delta 0.25", &narrow, &[4, 3], formula(0.25)),
            Case::elementwise("large", &spec, &[2, 3], formula(1.0)).scaled(1e4),
        ]);
    }
}
