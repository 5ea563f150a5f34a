//! Mean squared error
//!
//! Formula:   `mean((x - t)^2)`.
//! Target:    floating point, shape of the prediction.
//! Reduction: mean of all elements.
//! <https://pytorch.org/docs/stable/generated/torch.nn.MSELoss.html>

use super::mean;
use crate::graph::{Builder, ValueId};

/// Appends the loss.
pub(super) fn build(b: &mut Builder, prediction: ValueId, target: ValueId) -> ValueId {
    let difference = b.sub(prediction, target);
    let square = b.mul(difference, difference);
    mean(b, square)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::losses::testing::{Case, check};
    use crate::losses::{LossKind, LossSpec};

    #[test]
    fn values() {
        let formula = |x: f64, t: f64| (x - t).powi(2);
        let spec = LossSpec::new(LossKind::Mse);
        check(&[
            Case::elementwise("rank 2", &spec, &[4, 3], formula),
            Case::elementwise("rank 4", &spec, &[2, 3, 2, 2], formula),
            Case::elementwise("scalar", &spec, &[], formula),
            Case::elementwise("large", &spec, &[2, 3], formula).scaled(1e6),
        ]);
    }
}
