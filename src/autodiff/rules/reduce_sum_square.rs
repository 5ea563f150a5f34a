//! ReduceSumSquare
//!
//! Forward:  `y = sum of x^2 over axes`.
//! Backward: `dx = 2 * x * dy`.
//! Shapes:   x any; axes a constant input or absent (all axes).
//! Opsets:   1 to 24.
//! <https://onnx.ai/onnx/operators/onnx__ReduceSumSquare.html>

use super::shared::{keep_reduced, reduced_axes};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = Rule {
    domain: "",
    op: "ReduceSumSquare",
    opsets: 1..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    reject_noop(ctx)?;
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let kept = keep_reduced(ctx, dy)?;
    let double = ctx.b.scale(kept, 2.0);
    Ok(ctx.b.mul(x, double))
}

/// Refuses `noop_with_empty_axes`, under which engines disagree whether elements are squared.
///
/// # Errors
/// Nothing is reduced.
pub fn reject_noop(ctx: &Ctx<'_>) -> Result<(), RuleError> {
    if ctx.attributes().int("noop_with_empty_axes", 0)? == 1 && reduced_axes(ctx)?.is_empty() {
        return Err(RuleError::Unsupported("noop_with_empty_axes without axes is not supported".into()));
    }
    Ok(())
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check, reductions};
    use crate::graph::{Attributes, Builder, DType, Fact};

    #[test]
    fn gradients() {
        let case = |name| Case::new(name, "ReduceSumSquare").input(&[2, 3, 4]);
        let mut cases = reductions(&case);
        cases.extend([Case::new("zero and large", "ReduceSumSquare")
            .values(&[3], &[0.0, 1e15, -1e15])
            .expect(0, &[0.0, 2e15, -2e15])]);
        check(&cases);
    }

    #[test]
    fn noop_is_refused() {
        for op in ["ReduceSumSquare", "ReduceL2"] {
            let mut b = Builder::new("noop");
            let x = b.input("x", Fact::fixed(DType::F32, &[]));
            let y = b.op(op, &[x], Attributes::none().with("noop_with_empty_axes", 1));
            let error = crate::autodiff::gradients(&mut b, 18, y, &[x]).unwrap_err();
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(source.contains("noop_with_empty_axes"), "{source}");
        }
    }
}
