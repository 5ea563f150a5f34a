//! SkipLayerNormalization of `com.microsoft`
//!
//! `sum = input + skip + bias`, `y = LayerNormalization(sum, gamma, beta)` over the last axis; beta and
//! bias are optional. Further outputs: mean, inverse standard deviation, sum.
//! Shapes:   input `[B, S, D]`, skip broadcast to it, gamma, beta and bias `[D]`.
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.SkipLayerNormalization>

use super::{Decomposition, Parts};
use crate::autodiff::RuleError;
use crate::graph::{Attributes, OpId, ValueId};

pub static DECOMPOSITION: Decomposition =
    Decomposition { domain: "com.microsoft", op: "SkipLayerNormalization", opsets: 1..=1, build };

fn build(parts: &mut Parts<'_>) -> Result<Vec<ValueId>, RuleError> {
    let sum = skipped(parts, 4)?;
    let (gamma, beta) = (parts.x(2)?, parts.input(3));
    let epsilon = parts.attributes().float("epsilon", 1e-12)?;
    Ok([layer_normalization(parts, sum, gamma, beta, epsilon), vec![sum]].concat())
}

/// `input + skip + bias`, the bias at an input of its own.
pub(super) fn skipped(parts: &mut Parts<'_>, bias: usize) -> Result<ValueId, RuleError> {
    let (input, skip) = (parts.x(0)?, parts.x(1)?);
    let fact = parts.b.fact(input).clone();
    let mut sum = parts.b.add(input, skip);
    parts.b.refine(sum, &fact);
    if let Some(bias) = parts.input(bias) {
        sum = parts.b.add(sum, bias);
        parts.b.refine(sum, &fact);
    }
    Ok(sum)
}

/// Appends a layer normalization over the last axis and returns y, mean and inverse deviation.
pub(super) fn layer_normalization(
    parts: &mut Parts<'_>,
    x: ValueId,
    gamma: ValueId,
    beta: Option<ValueId>,
    epsilon: f32,
) -> Vec<ValueId> {
    let inputs = [Some(x), Some(gamma), beta];
    let attributes = Attributes::none().with("axis", -1_i64).with("epsilon", epsilon);
    let used = if beta.is_some() { 3 } else { 2 };
    parts.b.ops(&OpId::standard("LayerNormalization"), &inputs[..used], attributes, 3)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let skip = |name| {
            Case::new(name, "SkipLayerNormalization")
                .domain("com.microsoft")
                .not_embedded("tract has no SkipLayerNormalization")
        };
        check(&[
            skip("beta").input(&[2, 3, 4]).input(&[2, 3, 4]).range(&[4], 0.5, 1.5).input(&[4]).float("epsilon", 0.01),
            skip("bias, symbolic batch")
                .input(&[2, 3, 4])
                .input(&[2, 3, 4])
                .range(&[4], 0.5, 1.5)
                .input(&[4])
                .input(&[4])
                .batches(&[0, 1]),
            skip("no beta, skip of one row, symbolic batch")
                .input(&[2, 3, 4])
                .input(&[1, 3, 4])
                .range(&[4], 0.5, 1.5)
                .batch(),
            skip("skip without batch, no beta, bias")
                .input(&[2, 3, 4])
                .input(&[3, 4])
                .range(&[4], 0.5, 1.5)
                .missing()
                .input(&[4]),
        ]);
    }

    #[test]
    fn the_sum_is_an_output() {
        check(&[Case::new("four outputs", "SkipLayerNormalization")
            .domain("com.microsoft")
            .not_embedded("tract has no SkipLayerNormalization")
            .input(&[2, 3, 4])
            .input(&[2, 3, 4])
            .range(&[4], 0.5, 1.5)
            .input(&[4])
            .without(1)
            .without(2)
            .outputs(4)]);
    }
}
