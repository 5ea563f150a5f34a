//! RMSNormalization
//!
//! `y = x / sqrt(mean(x^2) + epsilon) * scale`, the mean over the axes from `axis` on.
//! Shapes:   x `[.., D..]`, scale broadcast to x.
//! Opsets:   23 and 24. `stash_type` is the dtype of the first stage: float32 or wider is kept.
//! <https://onnx.ai/onnx/operators/onnx__RMSNormalization.html>

use super::shared::rms_normalization;
use super::{Decomposition, Parts};
use crate::autodiff::RuleError;
use crate::graph::ValueId;

pub static DECOMPOSITION: Decomposition = Decomposition { domain: "", op: "RMSNormalization", opsets: 23..=24, build };

fn build(parts: &mut Parts<'_>) -> Result<Vec<ValueId>, RuleError> {
    let (x, scale) = (parts.x(0)?, parts.x(1)?);
    let axis = parts.attributes().int("axis", -1)?;
    let epsilon = parts.attributes().float("epsilon", 1e-5)?;
    stash_type(parts)?;
    Ok(vec![rms_normalization(parts, x, scale, axis, epsilon)?[0]])
}

/// Refuses a first stage in less than float32.
fn stash_type(parts: &Parts<'_>) -> Result<(), RuleError> {
    match parts.attributes().int("stash_type", 1)? {
        1 | 11 => Ok(()),
        other => Err(RuleError::Unsupported(format!("stash_type {other} is not supported"))),
    }
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let rms = |name| Case::new(name, "RMSNormalization").opset(23).not_embedded("tract has no RMSNormalization");
        check(&[
            rms("last axis").input(&[2, 3, 4]).range(&[4], 0.5, 1.5),
            rms("two axes, epsilon").input(&[2, 3, 4]).range(&[3, 4], 0.5, 1.5).int("axis", 1).float("epsilon", 0.1),
            rms("scale broadcast").input(&[2, 3, 4]).range(&[1], 0.5, 1.5).int("axis", -2),
            rms("opset 24, symbolic batch").opset(24).input(&[3, 4]).range(&[4], 0.5, 1.5).batch(),
            rms("zeros").values(&[1, 2], &[0.0, 0.0]).values(&[2], &[2.0, 3.0]).expect(0, &[632.455_5, 948.683_3]),
        ]);
    }
}
