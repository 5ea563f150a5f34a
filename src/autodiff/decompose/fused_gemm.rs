//! FusedGemm of `com.microsoft`
//!
//! `Y = activation(alpha * A' B' + beta * C)`
//! Shapes:   as `Gemm`.
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.FusedGemm>

use super::shared::activate;
use super::{Decomposition, Parts};
use crate::autodiff::RuleError;
use crate::graph::{OpId, ValueId};

pub static DECOMPOSITION: Decomposition =
    Decomposition { domain: "com.microsoft", op: "FusedGemm", opsets: 1..=1, build };

fn build(parts: &mut Parts<'_>) -> Result<Vec<ValueId>, RuleError> {
    let inputs = [Some(parts.x(0)?), Some(parts.x(1)?), parts.input(2)];
    let count = if inputs[2].is_some() { 3 } else { 2 };
    let name = parts.attributes().text("activation", "")?;
    let mut attributes = parts.attributes().clone();
    attributes.remove("activation");
    let mut numbers = Vec::new();
    for number in ["activation_alpha", "activation_beta", "activation_gamma"] {
        if attributes.get(number).is_some() {
            numbers.push(attributes.float(number, 0.0)?);
            attributes.remove(number);
        }
    }
    let product = parts.b.ops(&OpId::standard("Gemm"), &inputs[..count], attributes, 1)[0];
    Ok(vec![activate(parts, product, &name, &numbers)?])
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let fused = |name| Case::new(name, "FusedGemm").domain("com.microsoft").not_embedded("tract has no FusedGemm");
        check(&[
            fused("tanh").text("activation", "Tanh").input(&[2, 3]).input(&[3, 4]).input(&[4]),
            fused("relu, no C").text("activation", "Relu").away_from_zero(&[2, 3], 0.5).range(&[3, 4], 0.2, 1.0),
            fused("sigmoid, turned, alpha, beta, symbolic batch")
                .text("activation", "Sigmoid")
                .int("transB", 1)
                .float("alpha", 0.5)
                .float("beta", 2.0)
                .input(&[2, 3])
                .input(&[4, 3])
                .input(&[1, 4])
                .batch(),
            fused("leaky")
                .text("activation", "LeakyRelu")
                .float("activation_alpha", 0.3)
                .values(&[1, 2], &[1.0, -2.0])
                .values(&[2, 2], &[0.5, 1.0, 1.5, -0.5])
                .values(&[2], &[0.25, 0.5]),
            fused("hard sigmoid")
                .text("activation", "HardSigmoid")
                .float("activation_alpha", 0.3)
                .float("activation_beta", 0.4)
                .values(&[2, 1], &[0.5, -0.75])
                .values(&[1, 2], &[1.5, -1.0]),
        ]);
    }
}
