//! ai.freeze-plan.SafeSoftmax
//!
//! Forward:  `y = softmax(x) along axis`, 0 where that is not a number.
//! Backward: `dx = y * (dy - sum of dy * y along axis)`.
//! Shapes:   any.
//! Opsets:   any; the operator lives between autodiff and `lower`.
//! At kinks: 0 in a row of `-inf`, as PyTorch.
//! No page: the operator is `autodiff::safe_softmax_op`.

use super::softmax;
use crate::autodiff::{InputRule, Inputs, Rule};
use crate::graph::INTERNAL_DOMAIN;

pub static RULE: Rule = Rule {
    domain: INTERNAL_DOMAIN,
    op: "SafeSoftmax",
    opsets: 1..=99,
    inputs: Inputs::Fixed(&[InputRule::Gradient(softmax::input)]),
};

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let softmax = |name| Case::new(name, "SafeSoftmax").domain("ai.freeze-plan");
        let hidden = f32::NEG_INFINITY;
        check(&[
            softmax("middle, symbolic batch").input(&[2, 3, 4]).int("axis", 1).batch(),
            softmax("a row of nothing").values(&[2, 2], &[hidden, hidden, 0.0, 0.0]).expect(0, &[0.0; 4]),
            softmax("large and tied").values(&[3], &[1000.0, -1000.0, 1000.0]).expect(0, &[0.0; 3]),
        ]);
    }
}
