//! SkipSimplifiedLayerNormalization of `com.microsoft`
//!
//! `sum = input + skip + bias`, `y = sum / sqrt(mean(sum^2) + epsilon) * gamma` over the last axis;
//! the bias is optional. Further outputs: mean (none), inverse root mean square, sum.
//! Shapes:   input `[B, S, D]` or `[S, D]`, skip broadcast to it, gamma and bias `[D]`.
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.SkipSimplifiedLayerNormalization>

use super::shared::rms_normalization;
use super::skip_layer_normalization::skipped;
use super::{Decomposition, Parts};
use crate::autodiff::RuleError;
use crate::graph::ValueId;

pub static DECOMPOSITION: Decomposition =
    Decomposition { domain: "com.microsoft", op: "SkipSimplifiedLayerNormalization", opsets: 1..=1, build };

fn build(parts: &mut Parts<'_>) -> Result<Vec<ValueId>, RuleError> {
    if parts.has_output(1) {
        return Err(RuleError::Unsupported("output 1 is not supported: nothing has a mean here".into()));
    }
    let sum = skipped(parts, 3)?;
    let gamma = parts.x(2)?;
    let epsilon = parts.attributes().float("epsilon", 1e-12)?;
    let [y, inverse] = rms_normalization(parts, sum, gamma, -1, epsilon)?;
    Ok(vec![y, inverse, inverse, sum])
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let skip = |name| {
            Case::new(name, "SkipSimplifiedLayerNormalization")
                .domain("com.microsoft")
                .not_embedded("tract has no SkipSimplifiedLayerNormalization")
        };
        check(&[
            skip("plain, symbolic batch").input(&[2, 3, 4]).input(&[2, 3, 4]).range(&[4], 0.5, 1.5).batches(&[0, 1]),
            skip("bias, epsilon, rank 2")
                .input(&[3, 4])
                .input(&[3, 4])
                .range(&[4], 0.5, 1.5)
                .input(&[4])
                .float("epsilon", 0.1),
            skip("the sum is an output")
                .input(&[2, 3, 4])
                .input(&[2, 3, 4])
                .range(&[4], 0.5, 1.5)
                .without(1)
                .without(2)
                .outputs(4),
        ]);
    }
}
