//! Mean absolute error
//!
//! Formula:   `mean(|x - t|)`.
//! Target:    floating point, shape of the prediction.
//! Reduction: mean of all elements.
//! <https://pytorch.org/docs/stable/generated/torch.nn.L1Loss.html>

use super::mean;
use crate::graph::{Builder, ValueId};

/// Appends the loss.
pub(super) fn build(b: &mut Builder, prediction: ValueId, target: ValueId) -> ValueId {
    let difference = b.sub(prediction, target);
    let distance = b.unary("Abs", difference);
    mean(b, distance)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::losses::testing::{Case, check};
    use crate::losses::{LossKind, LossSpec};

    #[test]
    fn values() {
        let formula = |x: f64, t: f64| (x - t).abs();
        let spec = LossSpec::new(LossKind::L1);
        check(&[
            Case::elementwise("rank 1", &spec, &[5], formula),
            Case::elementwise("rank 3", &spec, &[2, 3, 4], formula),
        ]);
    }
}
