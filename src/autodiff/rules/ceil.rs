//! Ceil
//!
//! Forward:  `y` = the next integer up.
//! Backward: `dx = 0`.
//! Shapes:   any.
//! Opsets:   6 to 24.
//! At kinks: 0 at whole `x`, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__Ceil.html>

use super::shared::zeros;
use crate::autodiff::{InputRule, Inputs, Rule};

pub static RULE: Rule =
    Rule { domain: "", op: "Ceil", opsets: 6..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(zeros)]) };

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("between jumps", "Ceil").range(&[2, 3], 0.6, 0.9).batch(),
            Case::new("jumps and large", "Ceil").values(&[4], &[0.0, 1.0, -0.5, 1e30]).expect(0, &[0.0; 4]),
        ]);
    }
}
