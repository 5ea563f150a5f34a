//! Det
//!
//! Forward:  `y` = the determinant of each matrix.
//! Backward: `dx = dy * cofactors of x`, each of which is the determinant of x without a row and a column.
//! Shapes:   `[.., n, n]` with fixed n of at most 32.
//! Opsets:   11 to 24.
//! At kinks: exact for singular matrices, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__Det.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, Tensor, ValueId};

pub static RULE: Rule =
    Rule { domain: "", op: "Det", opsets: 11..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

/// The minors of a matrix have `n^2 (n - 1)^2` elements.
const LARGEST: usize = 32;

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let rank = ctx.rank(x)?;
    let lead = rank.checked_sub(2).ok_or_else(|| RuleError::Unsupported(format!("{rank} dimensions are no matrix")))?;
    let n = match ctx.sizes_from(x, lead)?.as_slice() {
        [rows, columns] if rows == columns && (1..=LARGEST).contains(rows) => *rows,
        sizes => {
            return Err(RuleError::Unsupported(format!("matrices of {sizes:?} instead of up to {LARGEST} squared")));
        }
    };
    let dy = ctx.b.unsqueeze(dy, &[lead as i64, lead as i64 + 1]);
    if n == 1 {
        return Ok(dy);
    }
    let mut flat = vec![0; lead];
    flat.push((n * n) as i64);
    let elements = ctx.b.reshape(x, &flat);
    let indices = ctx.b.constant("minors", Tensor::from_vec(&[n, n, n - 1, n - 1], minors(n)));
    let minors = ctx.b.op("Gather", &[elements, indices], Attributes::none().with("axis", lead as i64));
    let determinants = ctx.b.unary("Det", minors);
    let sign = |index: usize| if (index / n + index % n).is_multiple_of(2) { 1.0 } else { -1.0 };
    let signs: Vec<f32> = (0..n * n).map(sign).collect();
    let signs = ctx.b.constant("signs", Tensor::from_vec(&[n, n], signs));
    let dtype = ctx.dtype(x);
    let signs = super::shared::cast_to(ctx, signs, dtype);
    let cofactors = ctx.b.mul(determinants, signs);
    Ok(ctx.b.mul(dy, cofactors))
}

/// Positions in the flat matrix of its elements without row i and column j, for each i and j.
fn minors(n: usize) -> Vec<i64> {
    let mut positions = Vec::with_capacity(n * n * (n - 1) * (n - 1));
    for (row, column) in (0..n * n).map(|index| (index / n, index % n)) {
        for at in (0..n * n).filter(|at| at / n != row && at % n != column) {
            positions.push(at as i64);
        }
    }
    positions
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let det = |name| Case::new(name, "Det").not_embedded("tract has no Det");
        check(&[
            det("one").input(&[1, 1]),
            det("two").input(&[2, 2]),
            det("batch of three").input(&[4, 3, 3]).batch(),
            det("symbols").input(&[2, 3, 2, 2]).symbols(&[(0, 0, "a"), (0, 1, "b")]),
            det("two batch dimensions").input(&[2, 2, 4, 4]),
            det("singular").values(&[2, 2], &[1.0, 2.0, 2.0, 4.0]).expect(0, &[4.0, -2.0, -2.0, 1.0]),
            det("zero and large")
                .values(&[2, 2, 2], &[0.0, 0.0, 0.0, 0.0, 1e15, 0.0, 0.0, 2.0])
                .expect(0, &[0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 1e15]),
        ]);
    }
}
