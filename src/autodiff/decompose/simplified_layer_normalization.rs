//! SimplifiedLayerNormalization, which ONNX Runtime writes under the default domain and under
//! `com.microsoft`
//!
//! `y = x * inv_rms * scale`, `inv_rms = 1 / sqrt(mean(x^2) + epsilon)` over the axes from `axis` on;
//! the second output is inv_rms, in float32.
//! Shapes:   x `[.., D..]`, scale broadcast to x.
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>

use super::shared::rms_normalization;
use super::{Decomposition, Parts};
use crate::autodiff::RuleError;
use crate::graph::{DType, ValueId};

pub static STANDARD: Decomposition =
    Decomposition { domain: "", op: "SimplifiedLayerNormalization", opsets: 1..=24, build };
pub static MICROSOFT: Decomposition =
    Decomposition { domain: "com.microsoft", op: "SimplifiedLayerNormalization", opsets: 1..=1, build };

fn build(parts: &mut Parts<'_>) -> Result<Vec<ValueId>, RuleError> {
    let (x, scale) = (parts.x(0)?, parts.x(1)?);
    let axis = parts.attributes().int("axis", -1)?;
    let epsilon = parts.attributes().float("epsilon", 1e-5)?;
    let [y, inverse] = rms_normalization(parts, x, scale, axis, epsilon)?;
    let narrow = parts.has_output(1) && parts.dtype(inverse) != DType::F32;
    Ok(vec![y, if narrow { parts.b.cast(inverse, DType::F32) } else { inverse }])
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let of = |name| {
            Case::new(name, "SimplifiedLayerNormalization").not_embedded("tract has no SimplifiedLayerNormalization")
        };
        check(&[
            of("last axis, symbolic batch").input(&[2, 3, 4]).range(&[4], 0.5, 1.5).batch(),
            of("two axes, epsilon").input(&[2, 3, 4]).range(&[3, 4], 0.5, 1.5).int("axis", 1).float("epsilon", 0.1),
            of("both outputs").input(&[3, 4]).range(&[4], 0.5, 1.5).outputs(2).only_float32("output 1 is of float32"),
        ]);
    }
}
