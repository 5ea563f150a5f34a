//! Swish
//!
//! `y = x * sigmoid(alpha * x)`
//! Shapes:   x, y any.
//! Opsets:   24.
//! <https://onnx.ai/onnx/operators/onnx__Swish.html>

use super::{Decomposition, Parts};
use crate::autodiff::RuleError;
use crate::autodiff::internal::swish_node;
use crate::graph::ValueId;

pub static DECOMPOSITION: Decomposition = Decomposition { domain: "", op: "Swish", opsets: 24..=24, build };

fn build(parts: &mut Parts<'_>) -> Result<Vec<ValueId>, RuleError> {
    let x = parts.x(0)?;
    let alpha = parts.attributes().float("alpha", 1.0)?;
    Ok(vec![swish_node(parts.b, x, alpha)])
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let swish = |name| Case::new(name, "Swish").opset(24).not_embedded("tract has no Swish");
        check(&[
            swish("default").range(&[3, 4], -3.0, 3.0),
            swish("alpha, symbolic batch").range(&[3, 4], -3.0, 3.0).float("alpha", 1.7).batch(),
        ]);
    }
}
