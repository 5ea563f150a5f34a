//! Cast
//!
//! Forward:  `y = x` in dtype `to`.
//! Backward: `dx = dy` in the dtype of x, where x is not floating-point but quantized in that of y. A
//!           cast to integers passes no gradient: the driver never asks.
//! Shapes:   any.
//! Opsets:   6 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Cast.html>

use super::shared::cast_to;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "Cast", opsets: 6..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let Some(dtype) = ctx.b.fact(x).dtype else {
        return Err(RuleError::Unsupported(format!("the dtype of \"{}\" is unknown", ctx.name(x))));
    };
    Ok(if dtype.is_float() { cast_to(ctx, dy, dtype) } else { dy })
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::{Builder, DType, Fact};

    #[test]
    fn gradients() {
        check(&[
            Case::new("to itself", "Cast").linear().input(&[2, 3]).int("to", 1),
            Case::new("to float64", "Cast").linear().input(&[2, 3]).int("to", 11).batch(),
        ]);
    }

    #[test]
    fn integers_pass_no_gradient() {
        let mut b = Builder::new("cast");
        let x = b.input("x", Fact::fixed(DType::F32, &[]));
        let whole = b.cast(x, DType::I64);
        let y = b.cast(whole, DType::F32);
        let grads = crate::autodiff::gradients(&mut b, 18, y, &[x]).unwrap();
        assert_eq!(grads, [None]);
    }
}
