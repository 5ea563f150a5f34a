//! BiasSoftmax of `com.microsoft`
//!
//! `y = softmax(x + bias)` over all axes from `axis` on. The bias is broadcast as in `Add`, whatever
//! `is_inner_broadcast` says: it has the rank of x, or fewer dimensions, which are the last ones.
//! Shapes:   x any of known rank.
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.BiasSoftmax>

use super::{Decomposition, Parts};
use crate::autodiff::RuleError;
use crate::autodiff::rule::axis;
use crate::graph::{Attributes, ValueId};

pub static DECOMPOSITION: Decomposition =
    Decomposition { domain: "com.microsoft", op: "BiasSoftmax", opsets: 1..=1, build };

fn build(parts: &mut Parts<'_>) -> Result<Vec<ValueId>, RuleError> {
    let (x, bias) = (parts.x(0)?, parts.x(1)?);
    let rank = parts.rank(x)?;
    let first = axis(parts.attributes().int("axis", 1)?, rank)?;
    let sum = parts.b.add(x, bias);
    let fact = parts.b.fact(x).clone();
    parts.b.refine(sum, &fact);
    let softmax = Attributes::none().with("axis", -1_i64);
    if first + 1 == rank {
        return Ok(vec![parts.b.op("Softmax", &[sum], softmax)]);
    }
    let mut shape = vec![0; first];
    shape.push(-1);
    let flat = parts.b.reshape(sum, &shape);
    let parted = parts.b.op("Softmax", &[flat], softmax);
    Ok(vec![parts.b.reshape_like(parted, x)])
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use std::f32::consts::LN_2;

    #[test]
    fn gradients() {
        let softmax = |name, axis| Case::new(name, "BiasSoftmax").domain("com.microsoft").int("axis", axis);
        // The scores are logarithms of 1, 2, 3 and 4.
        let scores = [0.0, LN_2, 1.098_612_3, 2.0 * LN_2];
        let apart = [0.0, 0.0, 1.098_612_3, 2.0 * LN_2];
        check(&[
            softmax("last axis, symbolic batch", 2)
                .values(&[2, 1, 2], &scores)
                .values(&[2, 1, 2], &[0.0, 0.0, 0.0, 0.0])
                .batches(&[0, 1])
                .reference(&[1.0 / 3.0, 2.0 / 3.0, 3.0 / 7.0, 4.0 / 7.0]),
            softmax("two axes, bias of the last", -2)
                .values(&[1, 2, 2], &apart)
                .values(&[1, 1, 2], &[0.0, LN_2])
                .reference(&[1.0 / 14.0, 2.0 / 14.0, 3.0 / 14.0, 8.0 / 14.0]),
        ]);
    }
}
