//! Sign
//!
//! Forward:  `y = -1, 0 or 1`, the sign of x.
//! Backward: `dx = 0`.
//! Shapes:   any.
//! Opsets:   9 to 24.
//! At kinks: 0 at `x = 0`, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__Sign.html>

use super::shared::zeros;
use crate::autodiff::{InputRule, Inputs, Rule};

pub static RULE: Rule =
    Rule { domain: "", op: "Sign", opsets: 9..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(zeros)]) };

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("between jumps", "Sign").range(&[2, 3], 0.6, 0.9).batch(),
            Case::new("jumps and large", "Sign").values(&[4], &[0.0, 1.0, -0.5, 1e30]).expect(0, &[0.0; 4]),
        ]);
    }
}
