//! Smooth L1
//!
//! Formula:   `mean(s)` of `d = x - t`: `s = d^2 / (2 beta)` where `|d| < beta`, else
//!            `|d| - beta / 2`: Huber's loss over its `delta`, and L1 for a `beta` of 0.
//! Target:    floating point, shape of the prediction.
//! Reduction: mean of all elements.
//! <https://pytorch.org/docs/stable/generated/torch.nn.SmoothL1Loss.html>

use super::{LossSpec, huber, l1};
use crate::graph::{Builder, ValueId};

/// Appends the loss.
pub(super) fn build(spec: &LossSpec, b: &mut Builder, prediction: ValueId, target: ValueId) -> ValueId {
    let beta = f64::from(spec.beta.unwrap_or(1.0));
    if beta == 0.0 {
        return l1::build(b, prediction, target);
    }
    let huber = huber::build(beta, b, prediction, target);
    b.scale(huber, 1.0 / beta)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::losses::testing::{Case, check};
    use crate::losses::{LossKind, LossSpec};

    fn formula(beta: f64) -> impl Fn(f64, f64) -> f64 {
        move |x, t| {
            let d = (x - t).abs();
            if d < beta { 0.5 * d * d / beta } else { d - 0.5 * beta }
        }
    }

    #[test]
    fn values() {
        let spec = LossSpec::new(LossKind::SmoothL1);
        let beta = |beta| LossSpec { beta: Some(beta), ..spec.clone() };
        check(&[
            Case::elementwise("beta 1", &spec, &[4, 3], formula(1.0)),
            Case::elementwise("beta 0.25", &beta(0.25), &[4, 3], formula(0.25)),
            Case::elementwise("beta 0", &beta(0.0), &[4, 3], formula(0.0)),
            Case::elementwise("large", &spec, &[2, 3], formula(1.0)).scaled(1e4),
        ]);
    }
}
