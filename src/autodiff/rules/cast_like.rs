//! CastLike
//!
//! Forward:  `y = x` in the dtype of `target`.
//! Backward: `dx = dy` in the dtype of x; the target gives only its dtype.
//! Shapes:   x any, target any.
//! Opsets:   15 to 24.
//! <https://onnx.ai/onnx/operators/onnx__CastLike.html>

use super::shared::cast_to;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = Rule {
    domain: "",
    op: "CastLike",
    opsets: 15..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let Some(dtype) = ctx.b.fact(x).dtype else {
        return Err(RuleError::Unsupported(format!("the dtype of \"{}\" is unknown", ctx.name(x))));
    };
    Ok(cast_to(ctx, dy, dtype))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let cast = |name| Case::new(name, "CastLike").linear().input(&[2, 3]);
        check(&[
            cast("same").fixed(Tensor::scalar(1f32)),
            cast("to float64, symbolic batch").fixed(Tensor::scalar(1f64)).batch(),
        ]);
    }
}
