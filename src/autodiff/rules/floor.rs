//! Floor
//!
//! Forward:  `y` = the next integer down.
//! Backward: `dx = 0`.
//! Shapes:   any.
//! Opsets:   6 to 24.
//! At kinks: 0 at whole `x`, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__Floor.html>

use super::shared::zeros;
use crate::autodiff::{InputRule, Inputs, Rule};

pub static RULE: Rule =
    Rule { domain: "", op: "Floor", opsets: 6..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(zeros)]) };

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("between jumps", "Floor").range(&[2, 3], 0.6, 0.9).batch(),
            Case::new("jumps and large", "Floor").values(&[4], &[0.0, 1.0, -0.5, 1e30]).expect(0, &[0.0; 4]),
        ]);
    }
}
