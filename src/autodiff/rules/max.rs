//! Max
//!
//! Forward:  `y = max(x_0, x_1, ..)`, broadcasting.
//! Backward: `dx_i = sum_to(x_i, x_i = y ? dy / (how many inputs equal y) : 0)`.
//! Shapes:   numpy broadcasting.
//! Opsets:   8 to 24.
//! At kinks: inputs that tie share equally, as PyTorch's `maximum` and `amax`.
//! <https://onnx.ai/onnx/operators/onnx__Max.html>

use super::shared::{masked, unbroadcast};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule =
    Rule { domain: "", op: "Max", opsets: 8..=24, inputs: Inputs::Variadic(InputRule::Each(gradient)) };

/// Shares a gradient equally among the inputs that equal the output.
pub fn gradient(ctx: &mut Ctx<'_>, index: usize) -> Result<ValueId, RuleError> {
    let (dy, input, y) = (ctx.dy()?, ctx.x(index)?, ctx.y(0)?);
    if ctx.node().inputs.len() == 1 {
        return Ok(dy);
    }
    let share = ctx.once("share", |ctx| {
        let dtype = ctx.dtype(y);
        let mut wins = Vec::new();
        for position in 0..ctx.node().inputs.len() {
            let other = ctx.x(position)?;
            let equal = ctx.b.op("Equal", &[other, y], Attributes::none());
            wins.push(ctx.b.cast(equal, dtype));
        }
        let count = ctx.b.op("Sum", &wins, Attributes::none());
        Ok(ctx.b.div(dy, count))
    })?;
    let wins = ctx.b.op("Equal", &[input, y], Attributes::none());
    let grad = masked(ctx, wins, share);
    unbroadcast(ctx, grad, input)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        check(&[
            Case::new("same shape", "Max").distinct(&[2, 3]).range(&[2, 3], 0.02, 0.03),
            Case::new("row, symbolic batch", "Max").distinct(&[4, 3]).range(&[3], 0.02, 0.03).batch(),
            Case::new("symbols", "Max").distinct(&[4, 3]).range(&[3], 0.02, 0.03).symbols(&[
                (0, 0, "batch"),
                (0, 1, "width"),
                (1, 0, "width"),
            ]),
            Case::new("three, broadcast", "Max")
                .values(&[2, 3], &[0.5, -0.5, 0.1, -0.1, 0.3, -0.4])
                .values(&[3], &[0.2, -0.2, 0.6])
                .values(&[2, 1], &[0.0, 0.4]),
            Case::new("one", "Max").input(&[2, 3]),
            Case::new("constant", "Max").input(&[2, 3]).fixed(Tensor::scalar(0.25_f32)),
            Case::new("ties and large", "Max")
                .values(&[4], &[1.0, 2.0, 3.0, -1e30])
                .values(&[4], &[1.0, 5.0, 0.0, 1e30])
                .expect(0, &[0.5, 0.0, 1.0, 0.0])
                .expect(1, &[0.5, 1.0, 0.0, 1.0]),
        ]);
    }
}
