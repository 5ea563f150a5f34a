//! Gemm
//!
//! Forward:  `y = alpha * A' B' + beta * c`, with `A' = a` or `a^T`, `B' = b` or `b^T`.
//! Backward: `dA' = alpha * dy B'^T`, `dB' = alpha * A'^T dy`, each as one Gemm that writes the
//!           layout of its input; `dc = beta * sum_to(c, dy)`.
//! Shapes:   A' `[M, K]`, B' `[K, N]`, c broadcast to `[M, N]`; M may be a symbol.
//! Opsets:   11 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Gemm.html>

use super::shared::{shaped_like, unbroadcast};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "Gemm",
    opsets: 11..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(left), InputRule::Gradient(right), InputRule::Gradient(addend)]),
};

fn left(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, a, b) = (ctx.dy()?, ctx.x(0)?, ctx.x(1)?);
    let turned = ctx.attributes().int("transB", 0)?;
    let da = match ctx.attributes().int("transA", 0)? {
        0 => product(ctx, dy, b, 0, 1 - turned)?,
        _ => product(ctx, b, dy, turned, 1)?,
    };
    Ok(shaped_like(ctx, da, a))
}

fn right(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, a, b) = (ctx.dy()?, ctx.x(0)?, ctx.x(1)?);
    let turned = ctx.attributes().int("transA", 0)?;
    let db = match ctx.attributes().int("transB", 0)? {
        0 => product(ctx, a, dy, 1 - turned, 0)?,
        _ => product(ctx, dy, a, 1, turned)?,
    };
    Ok(shaped_like(ctx, db, b))
}

fn product(ctx: &mut Ctx<'_>, a: ValueId, b: ValueId, trans_a: i64, trans_b: i64) -> Result<ValueId, RuleError> {
    let alpha = ctx.attributes().float("alpha", 1.0)?;
    let attributes = Attributes::none().with("alpha", alpha).with("transA", trans_a).with("transB", trans_b);
    Ok(ctx.b.op("Gemm", &[a, b], attributes))
}

fn addend(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, c) = (ctx.dy()?, ctx.x(2)?);
    let beta = f64::from(ctx.attributes().float("beta", 1.0)?);
    let dc = unbroadcast(ctx, dy, c)?;
    Ok(if beta == 1.0 { dc } else { ctx.b.scale(dc, beta) })
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let gemm = |name| Case::new(name, "Gemm").linear();
        check(&[
            gemm("plain").input(&[3, 4]).input(&[4, 2]),
            gemm("row").input(&[3, 4]).input(&[4, 2]).input(&[2]).float("alpha", 0.5).float("beta", 2.0),
            gemm("transA, column").input(&[4, 3]).input(&[4, 2]).input(&[3, 1]).int("transA", 1).float("alpha", 3.0),
            gemm("transB, symbolic batch").input(&[3, 4]).input(&[2, 4]).input(&[2]).int("transB", 1).batch(),
            gemm("both, scalar").input(&[4, 3]).input(&[2, 4]).input(&[]).int("transA", 1).int("transB", 1),
            gemm("full").input(&[3, 4]).input(&[4, 2]).input(&[3, 2]).float("beta", -1.5),
            gemm("one element").input(&[3, 4]).input(&[4, 2]).input(&[1]).float("beta", 0.5),
            gemm("one element, both axes").input(&[3, 4]).input(&[4, 2]).input(&[1, 1]),
            gemm("column, symbols").input(&[3, 4]).input(&[2, 4]).input(&[3, 1]).int("transB", 1).symbols(&[
                (0, 0, "rows"),
                (0, 1, "depth"),
                (1, 1, "depth"),
                (2, 0, "rows"),
            ]),
            gemm("addend that may be 1")
                .input(&[3, 4])
                .input(&[4, 2])
                .input(&[1, 2])
                .symbols(&[(0, 0, "rows"), (2, 0, "one")]),
            gemm("both turned, symbolic width, scaled")
                .input(&[4, 3])
                .input(&[2, 4])
                .input(&[2])
                .int("transA", 1)
                .int("transB", 1)
                .float("alpha", -2.0)
                .symbols(&[(0, 1, "rows"), (1, 0, "width"), (2, 0, "width")]),
            gemm("addend counts nothing").input(&[3, 4]).input(&[4, 2]).input(&[2]).float("beta", 0.0),
            gemm("one row of full width").input(&[3, 4]).input(&[4, 2]).input(&[1, 2]),
        ]);
    }
}
