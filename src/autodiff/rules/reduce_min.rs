//! ReduceMin
//!
//! Forward:  `y = minimum of x over axes`.
//! Backward: `dx = x = y ? dy / (how many elements equal y) : 0`.
//! Shapes:   x any; axes a constant input or absent (all axes, or none with `noop_with_empty_axes`).
//! Opsets:   1 to 24.
//! At kinks: elements that tie share equally, as PyTorch's `amin`.
//! <https://onnx.ai/onnx/operators/onnx__ReduceMin.html>

use super::reduce_max::shares;
use crate::autodiff::{InputRule, Inputs, Rule};

pub static RULE: Rule = Rule {
    domain: "",
    op: "ReduceMin",
    opsets: 1..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(shares), InputRule::Constant]),
};

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check, reductions};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let case = |name| Case::new(name, "ReduceMin").distinct(&[2, 3, 4]);
        let mut cases = reductions(&case);
        cases.extend([
            case("noop").int("noop_with_empty_axes", 1),
            Case::new("ties and large", "ReduceMin")
                .values(&[2, 3], &[0.0, 0.0, 3.0, 1e30, -1e30, 0.0])
                .fixed(Tensor::ints(&[1]))
                .expect(0, &[0.5, 0.5, 0.0, 0.0, 1.0, 0.0]),
        ]);
        check(&cases);
    }
}
