//! FusedMatMul and TransposeMatMul of `com.microsoft`
//!
//! `Y = alpha * A' B'`: `transBatchA` moves the first dimension of A behind the other batch
//! dimensions, then `transA` swaps the last two; the same for B.
//! Shapes:   as `MatMul` after that.
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.FusedMatMul>

use super::{Decomposition, Parts};
use crate::autodiff::RuleError;
use crate::graph::{Attributes, ValueId};

pub static FUSED: Decomposition = Decomposition { domain: "com.microsoft", op: "FusedMatMul", opsets: 1..=1, build };
pub static TRANSPOSE: Decomposition =
    Decomposition { domain: "com.microsoft", op: "TransposeMatMul", opsets: 1..=1, build };

fn build(parts: &mut Parts<'_>) -> Result<Vec<ValueId>, RuleError> {
    let a = turned(parts, 0, "transBatchA", "transA")?;
    let b = turned(parts, 1, "transBatchB", "transB")?;
    let product = parts.b.op("MatMul", &[a, b], Attributes::none());
    let alpha = f64::from(parts.attributes().float("alpha", 1.0)?);
    Ok(vec![if alpha == 1.0 { product } else { parts.b.scale(product, alpha) }])
}

fn turned(parts: &mut Parts<'_>, index: usize, batch: &str, last: &str) -> Result<ValueId, RuleError> {
    let value = parts.x(index)?;
    let rank = parts.rank(value)?;
    let mut order: Vec<i64> = (0..rank as i64).collect();
    if parts.attributes().int(batch, 0)? != 0 && rank > 2 {
        order[..rank - 1].rotate_left(1);
    }
    if parts.attributes().int(last, 0)? != 0 && rank > 1 {
        order.swap(rank - 2, rank - 1);
    }
    let same = order.is_sorted();
    Ok(if same { value } else { parts.b.transpose(value, &order) })
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let fused = |name| {
            Case::new(name, "FusedMatMul").domain("com.microsoft").linear().not_embedded("tract has no FusedMatMul")
        };
        check(&[
            fused("plain, alpha").input(&[2, 3]).input(&[3, 4]).float("alpha", 0.3),
            fused("A turned").input(&[2, 3, 2]).input(&[3, 4]).int("transA", 1),
            fused("B turned, symbolic batch").input(&[2, 3, 2]).input(&[5, 2]).int("transB", 1).batch(),
            fused("both turned").input(&[2, 3, 2]).input(&[2, 5, 3]).int("transA", 1).int("transB", 1),
            fused("batch of A moved").input(&[4, 2, 3]).input(&[2, 3, 5]).int("transBatchA", 1),
            fused("both batches moved, four dimensions")
                .input(&[4, 2, 3, 2])
                .input(&[5, 2, 3, 2])
                .int("transBatchA", 1)
                .int("transBatchB", 1)
                .int("transB", 1)
                .float("alpha", 2.0),
            Case::new("alpha", "TransposeMatMul")
                .domain("com.microsoft")
                .linear()
                .input(&[3, 2])
                .input(&[3, 4])
                .int("transA", 1)
                .float("alpha", 0.5)
                .not_embedded("tract has no TransposeMatMul"),
        ]);
    }
}
