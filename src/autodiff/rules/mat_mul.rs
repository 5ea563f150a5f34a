//! MatMul
//!
//! Forward:  `y = a b` over the last two dimensions, broadcasting the others.
//! Backward: `da = sum_to(a, dy b^T)`, `db = sum_to(b, a^T dy)`; where b is a matrix, db is one
//!           Gemm over all rows of a.
//! Shapes:   a `[.., M, K]` or `[K]`, b `[.., K, N]` or `[K]`; dimensions may be symbols.
//! Opsets:   1 to 24.
//! <https://onnx.ai/onnx/operators/onnx__MatMul.html>

use super::shared::{Part, reshape_to, shaped_like, unbroadcast};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "MatMul",
    opsets: 1..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(left), InputRule::Gradient(right)]),
};

/// Inputs and output gradient with the dimensions that a vector lacks.
struct Matrices {
    a: ValueId,
    b: ValueId,
    dy: ValueId,
}

fn matrices(ctx: &mut Ctx<'_>) -> Result<Matrices, RuleError> {
    let (dy, a, b) = (ctx.dy()?, ctx.x(0)?, ctx.x(1)?);
    let (row, column) = (ctx.rank(a)? == 1, ctx.rank(b)? == 1);
    let dy = match (row, column) {
        (false, false) => dy,
        (true, false) => ctx.once("dy", |ctx| Ok(ctx.b.unsqueeze(dy, &[-2])))?,
        (false, true) => ctx.once("dy", |ctx| Ok(ctx.b.unsqueeze(dy, &[-1])))?,
        (true, true) => ctx.once("dy", |ctx| Ok(ctx.b.unsqueeze(dy, &[0, 1])))?,
    };
    let a = if row { ctx.once("a", |ctx| Ok(ctx.b.unsqueeze(a, &[0])))? } else { a };
    let b = if column { ctx.once("b", |ctx| Ok(ctx.b.unsqueeze(b, &[1])))? } else { b };
    Ok(Matrices { a, b, dy })
}

fn left(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let Matrices { a, b, dy } = matrices(ctx)?;
    let da = if ctx.rank(dy)? == 2 && ctx.rank(b)? == 2 {
        ctx.b.op("Gemm", &[dy, b], Attributes::none().with("transB", 1))
    } else {
        let turned = turned(ctx, b)?;
        ctx.b.op("MatMul", &[dy, turned], Attributes::none())
    };
    let da = unbroadcast(ctx, da, a)?;
    let input = ctx.x(0)?;
    let da = if a == input { da } else { ctx.b.squeeze(da, &[0]) };
    Ok(shaped_like(ctx, da, input))
}

fn right(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let Matrices { a, b, dy } = matrices(ctx)?;
    let db = match (ctx.rank(a)?, ctx.rank(b)?) {
        (2, 2) => ctx.b.op("Gemm", &[a, dy], Attributes::none().with("transA", 1)),
        (_, 2) => {
            let rows = reshape_to(ctx, a, &[Part::Fixed(-1), Part::Axis(b, 0)])?;
            let grads = reshape_to(ctx, dy, &[Part::Fixed(-1), Part::Axis(b, 1)])?;
            ctx.b.op("Gemm", &[rows, grads], Attributes::none().with("transA", 1))
        }
        _ => {
            let turned = turned(ctx, a)?;
            ctx.b.op("MatMul", &[turned, dy], Attributes::none())
        }
    };
    let db = unbroadcast(ctx, db, b)?;
    let input = ctx.x(1)?;
    let db = if b == input { db } else { ctx.b.squeeze(db, &[1]) };
    Ok(shaped_like(ctx, db, input))
}

fn turned(ctx: &mut Ctx<'_>, value: ValueId) -> Result<ValueId, RuleError> {
    let rank = ctx.rank(value)?;
    let mut perm: Vec<i64> = (0..rank as i64).collect();
    perm.swap(rank - 2, rank - 1);
    Ok(ctx.b.transpose(value, &perm))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let product = |name| Case::new(name, "MatMul").linear();
        check(&[
            product("matrices").input(&[3, 4]).input(&[4, 2]),
            product("vectors").input(&[4]).input(&[4]).not_embedded("tract refuses a product of two vectors"),
            product("vector, matrix").input(&[4]).input(&[4, 2]),
            product("matrix, vector").input(&[3, 4]).input(&[4]),
            product("vector, batch").input(&[4]).input(&[2, 4, 3]),
            product("batch, vector").input(&[2, 3, 4]).input(&[4]),
            product("batch, matrix").input(&[2, 5, 3, 4]).input(&[4, 2]),
            product("matrix, batch").input(&[3, 4]).input(&[2, 4, 2]),
            product("batches").input(&[2, 3, 4]).input(&[2, 4, 5]),
            product("broadcast batches").input(&[2, 1, 3, 4]).input(&[3, 4, 2]),
            product("vector, wide batch").input(&[4]).input(&[3, 2, 4, 3]),
            product("wide batch, vector").input(&[3, 2, 5, 4]).input(&[4]),
            product("both broadcast").input(&[3, 1, 5, 4]).input(&[1, 2, 4, 2]),
            product("batch, wider batch").input(&[2, 5, 4]).input(&[3, 2, 4, 2]),
            product("one row, batch of one").input(&[1, 4]).input(&[1, 4, 1]),
            product("tokens, weight").input(&[2, 3, 4]).input(&[4, 5]).symbols(&[(0, 0, "batch"), (0, 1, "tokens")]),
            product("scores").input(&[2, 3, 4, 5]).input(&[2, 3, 5, 4]).symbols(&[
                (0, 0, "batch"),
                (0, 2, "tokens"),
                (1, 0, "batch"),
                (1, 3, "tokens"),
            ]),
            product("everything a symbol").input(&[2, 3, 4]).input(&[4, 5]).symbols(&[
                (0, 0, "a"),
                (0, 1, "b"),
                (0, 2, "c"),
                (1, 0, "c"),
                (1, 1, "d"),
            ]),
            product("batches that may be 1")
                .input(&[2, 3, 4])
                .input(&[1, 4, 5])
                .symbols(&[(0, 0, "a"), (1, 0, "b")])
                .not_embedded("tract wants the size of every input"),
            product("vector, batch that may be 1").input(&[4]).input(&[2, 4, 3]).symbols(&[(1, 0, "b"), (1, 2, "d")]),
            product("batch, vector, symbols").input(&[2, 3, 4]).input(&[4]).symbols(&[(0, 0, "a"), (0, 1, "b")]),
            product("symbolic rows").input(&[3, 4]).input(&[4, 2]).batch(),
            product("symbolic batch, matrix").input(&[5, 3, 4]).input(&[4, 2]).batch(),
            product("symbolic batch, broadcast").input(&[5, 3, 4]).input(&[1, 4, 2]).batch(),
            product("symbolic batch, vector").input(&[5, 3, 4]).input(&[4]).batch(),
        ]);
    }
}
