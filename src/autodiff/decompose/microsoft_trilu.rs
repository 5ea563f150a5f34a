//! Trilu of `com.microsoft`
//!
//! `y = x` on and above (`upper` 1) or below diagonal k, 0 elsewhere.
//! Shapes:   x `[.., N, M]`, k a number.
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.Trilu>

use super::shared::positions;
use super::{Decomposition, Parts};
use crate::autodiff::RuleError;
use crate::graph::{Attributes, ValueId};

pub static DECOMPOSITION: Decomposition = Decomposition { domain: "com.microsoft", op: "Trilu", opsets: 1..=1, build };

fn build(parts: &mut Parts<'_>) -> Result<Vec<ValueId>, RuleError> {
    let x = parts.x(0)?;
    let rank = parts.rank(x)?;
    if rank < 2 {
        return Err(RuleError::Unsupported(format!("rank {rank} has no diagonal")));
    }
    let rows = positions(parts, x, rank - 2)?;
    let mut rows = parts.b.reshape(rows, &[-1, 1]);
    let columns = positions(parts, x, rank - 1)?;
    if let Some(diagonal) = parts.input(1) {
        let diagonal = parts.b.reshape(diagonal, &[1]);
        rows = parts.b.add(rows, diagonal);
    }
    let kept = match parts.attributes().int("upper", 1)? {
        0 => "LessOrEqual",
        _ => "GreaterOrEqual",
    };
    let kept = parts.b.op(kept, &[columns, rows], Attributes::none());
    let zero = parts.b.like(x, 0.0);
    Ok(vec![parts.b.select(kept, x, zero)])
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let trilu =
            |name| Case::new(name, "Trilu").domain("com.microsoft").linear().not_embedded("tract has no such Trilu");
        check(&[
            trilu("upper").input(&[3, 4]),
            trilu("lower, k, symbolic batch").int("upper", 0).input(&[2, 3, 4]).fixed(Tensor::scalar(1_i64)).batch(),
            trilu("upper, negative k").input(&[2, 4, 3]).fixed(Tensor::scalar(-1_i64)),
            trilu("lower of symbolic rows").int("upper", 0).input(&[3, 3]).batch(),
        ]);
    }
}
