//! Gelu, BiasGelu, FastGelu and QuickGelu of `com.microsoft`
//!
//! Gelu:      `y = 0.5 x (1 + erf(x / sqrt(2)))`; BiasGelu: the same of `x + bias`.
//! FastGelu:  `y = 0.5 t (1 + tanh(sqrt(2 / pi) (t + 0.044715 t^3)))`, `t = x + bias`, the bias optional.
//! QuickGelu: `y = x * sigmoid(alpha * x)`.
//! Shapes:   x `[.., D]`, bias `[D]`.
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.Gelu>

use super::{Decomposition, Parts};
use crate::autodiff::RuleError;
use crate::autodiff::internal::{gelu_node, swish_node};
use crate::graph::ValueId;

pub static GELU: Decomposition = of("Gelu", exact);
pub static BIAS_GELU: Decomposition = of("BiasGelu", exact);
pub static FAST_GELU: Decomposition = of("FastGelu", fast);
pub static QUICK_GELU: Decomposition = of("QuickGelu", quick);

const fn of(op: &'static str, build: fn(&mut Parts<'_>) -> Result<Vec<ValueId>, RuleError>) -> Decomposition {
    Decomposition { domain: "com.microsoft", op, opsets: 1..=1, build }
}

fn biased(parts: &mut Parts<'_>) -> Result<ValueId, RuleError> {
    let x = parts.x(0)?;
    Ok(match parts.input(1) {
        Some(bias) => parts.b.add(x, bias),
        None => x,
    })
}

fn exact(parts: &mut Parts<'_>) -> Result<Vec<ValueId>, RuleError> {
    let x = biased(parts)?;
    Ok(vec![gelu_node(parts.b, x, "none")])
}

fn fast(parts: &mut Parts<'_>) -> Result<Vec<ValueId>, RuleError> {
    let x = biased(parts)?;
    Ok(vec![gelu_node(parts.b, x, "tanh")])
}

fn quick(parts: &mut Parts<'_>) -> Result<Vec<ValueId>, RuleError> {
    let (x, alpha) = (parts.x(0)?, parts.attributes().float("alpha", 1.702)?);
    Ok(vec![swish_node(parts.b, x, alpha)])
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let of = |op, name| Case::new(name, op).domain("com.microsoft").not_embedded("an operator of ONNX Runtime");
        let large = [-30.0, -3.0, 0.0, 3.0, 30.0];
        check(&[
            of("Gelu", "default, symbolic batch").range(&[3, 4], -3.0, 3.0).batch(),
            of("Gelu", "large").values(&[5], &large),
            of("BiasGelu", "default, symbolic batch").input(&[2, 3, 4]).input(&[4]).batch(),
            of("FastGelu", "no bias").range(&[3, 4], -3.0, 3.0),
            of("FastGelu", "bias, symbolic batch").input(&[2, 3, 4]).input(&[4]).batch(),
            of("FastGelu", "large").values(&[5], &large),
            of("QuickGelu", "default").range(&[3, 4], -3.0, 3.0),
            of("QuickGelu", "alpha 1, symbolic batch").float("alpha", 1.0).range(&[3, 4], -3.0, 3.0).batch(),
        ]);
    }
}
