//! Hardmax
//!
//! Forward:  `y` = 1 at the first maximum along axis, 0 elsewhere.
//! Backward: `dx = 0`.
//! Shapes:   any.
//! Opsets:   1 to 24.
//! At kinks: 0 where elements tie.
//! <https://onnx.ai/onnx/operators/onnx__Hardmax.html>

use super::shared::zeros;
use crate::autodiff::{InputRule, Inputs, Rule};

pub static RULE: Rule =
    Rule { domain: "", op: "Hardmax", opsets: 1..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(zeros)]) };

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::{Attributes, Builder, DType, Fact};

    #[test]
    fn gradients() {
        let hardmax = |name| Case::new(name, "Hardmax");
        check(&[
            hardmax("last").distinct(&[2, 3]).batch(),
            hardmax("middle").distinct(&[2, 3, 4]).int("axis", 1),
            hardmax("ties").values(&[1, 3], &[2.0, 2.0, 1.0]).expect(0, &[0.0; 3]),
        ]);
    }

    /// What yields an index or a flag needs no rule: nothing behind it depends on what is trained.
    #[test]
    fn indices_and_flags_stop_a_gradient() {
        for op in ["ArgMax", "ArgMin", "IsNaN", "IsInf"] {
            let mut b = Builder::new("stop");
            let x = b.input("x", Fact::fixed(DType::F32, &[2, 3]));
            let found = b.unary(op, x);
            let y = b.cast(found, DType::F32);
            let loss = b.op("ReduceSum", &[y], Attributes::none().with("keepdims", 0));
            assert_eq!(crate::autodiff::gradients(&mut b, 18, loss, &[x]).unwrap(), [None], "{op}");
        }
    }
}
