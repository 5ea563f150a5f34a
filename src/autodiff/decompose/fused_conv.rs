//! FusedConv of `com.microsoft`
//!
//! `Y = activation(Conv(X, W, B) + Z)`
//! Shapes:   as `Conv`; Z like Y.
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.FusedConv>

use super::shared::{activate, floats};
use super::{Decomposition, Parts};
use crate::autodiff::RuleError;
use crate::graph::{OpId, ValueId};

pub static DECOMPOSITION: Decomposition =
    Decomposition { domain: "com.microsoft", op: "FusedConv", opsets: 1..=1, build };

fn build(parts: &mut Parts<'_>) -> Result<Vec<ValueId>, RuleError> {
    let inputs = [Some(parts.x(0)?), Some(parts.x(1)?), parts.input(2)];
    let count = if inputs[2].is_some() { 3 } else { 2 };
    let (name, numbers) = (parts.attributes().text("activation", "")?, floats(parts, "activation_params")?);
    let mut attributes = parts.attributes().clone();
    attributes.remove("activation");
    attributes.remove("activation_params");
    let mut y = parts.b.ops(&OpId::standard("Conv"), &inputs[..count], attributes, 1)[0];
    if let Some(z) = parts.input(3) {
        y = parts.b.add(y, z);
    }
    Ok(vec![activate(parts, y, &name, &numbers)?])
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Attribute;

    #[test]
    fn gradients() {
        let fused = |name| Case::new(name, "FusedConv").domain("com.microsoft").not_embedded("tract has no FusedConv");
        let numbers = |values: &[f32]| Attribute::Floats(values.to_vec());
        check(&[
            fused("tanh, padded, stride, symbolic batch")
                .text("activation", "Tanh")
                .ints("pads", &[1, 1, 1, 1])
                .ints("strides", &[2, 2])
                .input(&[2, 2, 4, 4])
                .input(&[3, 2, 3, 3])
                .input(&[3])
                .batch(),
            fused("relu, residual, no bias")
                .text("activation", "Relu")
                .range(&[1, 2, 3, 3], 0.1, 1.0)
                .range(&[2, 2, 2, 2], 0.1, 1.0)
                .missing()
                .range(&[1, 2, 2, 2], 0.5, 1.0),
            fused("groups, sigmoid")
                .text("activation", "Sigmoid")
                .int("group", 2)
                .input(&[1, 4, 3, 3])
                .input(&[4, 2, 2, 2]),
            fused("leaky")
                .text("activation", "LeakyRelu")
                .attribute("activation_params", numbers(&[0.3]))
                .values(&[1, 1, 1, 2], &[1.0, -1.0])
                .values(&[1, 1, 1, 1], &[0.5]),
            fused("clip")
                .text("activation", "Clip")
                .attribute("activation_params", numbers(&[-0.25, 0.25]))
                .values(&[1, 1, 1, 3], &[1.0, -1.0, 0.25])
                .values(&[1, 1, 1, 1], &[0.5]),
            fused("hard sigmoid")
                .text("activation", "HardSigmoid")
                .attribute("activation_params", numbers(&[0.3, 0.4]))
                .values(&[1, 1, 1, 3], &[1.0, -1.0, 9.0])
                .values(&[1, 1, 1, 1], &[0.5]),
        ]);
    }
}
