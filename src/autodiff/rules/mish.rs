//! Mish
//!
//! Forward:  `y = x * tanh(softplus(x))`.
//! Backward: `dx = dy * (t + x * sigmoid(x) * (1 - t^2))` of `t = tanh(softplus(x))`.
//! Shapes:   any.
//! Opsets:   18 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Mish.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "Mish", opsets: 18..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let soft = ctx.b.unary("Softplus", x);
    let t = ctx.b.unary("Tanh", soft);
    let square = ctx.b.mul(t, t);
    let one = ctx.b.like(x, 1.0);
    let rest = ctx.b.sub(one, square);
    let sigmoid = ctx.b.unary("Sigmoid", x);
    let slope = ctx.b.mul(x, sigmoid);
    let slope = ctx.b.mul(slope, rest);
    let slope = ctx.b.add(t, slope);
    Ok(ctx.b.mul(dy, slope))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        check(&[
            Case::new("both sides", "Mish").range(&[2, 3], -3.0, 3.0),
            Case::new("large", "Mish")
                .values(&[2], &[200.0, -200.0])
                .expect(0, &[1.0, 0.0])
                .not_embedded("its Tanh is off by 1e-6 where it should be 1, times x"),
        ]);
    }
}
