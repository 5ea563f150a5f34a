//! Round
//!
//! Forward:  `y` = the nearest integer, halves to even.
//! Backward: `dx = 0`.
//! Shapes:   any.
//! Opsets:   11 to 24.
//! At kinks: 0 at halves, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__Round.html>

use super::shared::zeros;
use crate::autodiff::{InputRule, Inputs, Rule};

pub static RULE: Rule =
    Rule { domain: "", op: "Round", opsets: 11..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(zeros)]) };

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("between jumps", "Round").range(&[2, 3], 0.6, 0.9).batch(),
            Case::new("jumps and large", "Round").values(&[4], &[0.0, 1.0, -0.5, 1e30]).expect(0, &[0.0; 4]),
        ]);
    }
}
