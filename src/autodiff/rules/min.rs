//! Min
//!
//! Forward:  `y = min(x_0, x_1, ..)`, broadcasting.
//! Backward: `dx_i = sum_to(x_i, x_i = y ? dy / (how many inputs equal y) : 0)`.
//! Shapes:   numpy broadcasting.
//! Opsets:   8 to 24.
//! At kinks: inputs that tie share equally, as PyTorch's `minimum` and `amin`.
//! <https://onnx.ai/onnx/operators/onnx__Min.html>

use super::max::gradient;
use crate::autodiff::{InputRule, Inputs, Rule};

pub static RULE: Rule =
    Rule { domain: "", op: "Min", opsets: 8..=24, inputs: Inputs::Variadic(InputRule::Each(gradient)) };

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("same shape", "Min").distinct(&[2, 3]).range(&[2, 3], 0.02, 0.03),
            Case::new("row, symbolic batch", "Min").distinct(&[4, 3]).range(&[3], 0.02, 0.03).batch(),
            Case::new("three, broadcast", "Min")
                .values(&[2, 3], &[0.5, -0.5, 0.1, -0.1, 0.3, -0.4])
                .values(&[3], &[0.2, -0.2, 0.6])
                .values(&[2, 1], &[0.0, 0.4]),
            Case::new("ties and large", "Min")
                .values(&[4], &[1.0, 2.0, 3.0, -1e30])
                .values(&[4], &[1.0, 5.0, 0.0, 1e30])
                .expect(0, &[0.5, 1.0, 0.0, 1.0])
                .expect(1, &[0.5, 0.0, 1.0, 0.0]),
        ]);
    }
}
