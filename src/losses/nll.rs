//! Negative log-likelihood of class indices
//!
//! Formula:   that of cross-entropy without smoothing, with the prediction in place of its
//!            log-softmax: `-sum_n(w[t] x[n, t]) / sum_n(w[t])`.
//! Target:    int64 class index, as for cross-entropy.
//! Reduction: weighted mean; NaN when no sample counts, as PyTorch.
//! <https://pytorch.org/docs/stable/generated/torch.nn.NLLLoss.html>

use super::{LossError, LossSpec, cross_entropy};
use crate::graph::{Builder, ValueId};

/// Appends the loss.
pub(super) fn build(
    spec: &LossSpec,
    b: &mut Builder,
    prediction: ValueId,
    target: ValueId,
) -> Result<ValueId, LossError> {
    cross_entropy::of_logs(spec, b, prediction, target)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::losses::testing::{Case, check};
    use crate::losses::{LossKind, LossSpec};

    #[test]
    fn values() {
        let spec = LossSpec::new(LossKind::Nll);
        let weights = vec![0.5, 1.0, 2.0];
        let weighted = LossSpec { class_weights: Some(weights), ignore_index: Some(1), ..spec.clone() };
        let plain = |x: &[f64], t: &[f64]| -(0..4).map(|n| x[3 * n + t[n] as usize]).sum::<f64>() / 4.0;
        let uneven = |x: &[f64], _: &[f64]| -(0.5 * x[0] + 2.0 * x[5] + 2.0 * x[11]) / 4.5;
        check(&[
            Case::classes("plain", &spec, &[4, 3], &[0, 2, 1, 2], plain),
            Case::classes("weights, ignored", &weighted, &[4, 3], &[0, 2, 1, 2], uneven),
            Case::classes("no class", &spec, &[2, 3], &[0, 3], |_, _| f64::NAN),
        ]);
    }
}
