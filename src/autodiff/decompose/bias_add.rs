//! BiasAdd of `com.microsoft`
//!
//! `y = x + bias + skip`
//! Shapes:   x and skip `[N, S, C]`, bias `[C]`.
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.BiasAdd>

use super::{Decomposition, Parts};
use crate::autodiff::RuleError;
use crate::graph::ValueId;

pub static DECOMPOSITION: Decomposition =
    Decomposition { domain: "com.microsoft", op: "BiasAdd", opsets: 1..=1, build };

fn build(parts: &mut Parts<'_>) -> Result<Vec<ValueId>, RuleError> {
    let (x, bias, skip) = (parts.x(0)?, parts.x(1)?, parts.x(2)?);
    let biased = parts.b.add(x, bias);
    Ok(vec![parts.b.add(biased, skip)])
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let add = |name| Case::new(name, "BiasAdd").domain("com.microsoft").linear();
        check(&[add("symbolic batch")
            .values(&[2, 1, 2], &[1.0, 2.0, 3.0, 4.0])
            .values(&[2], &[0.5, -0.5])
            .values(&[2, 1, 2], &[10.0, 20.0, 30.0, 40.0])
            .batches(&[0, 2])
            .reference(&[11.5, 21.5, 33.5, 43.5])]);
    }
}
