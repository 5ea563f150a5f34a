//! Mean
//!
//! Forward:  `y = (x_0 + x_1 + ..) / n`, broadcasting.
//! Backward: `dx_i = sum_to(x_i, dy / n)`.
//! Shapes:   numpy broadcasting.
//! Opsets:   8 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Mean.html>

use super::shared::unbroadcast;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "Mean", opsets: 8..=24, inputs: Inputs::Variadic(InputRule::Each(gradient)) };

fn gradient(ctx: &mut Ctx<'_>, index: usize) -> Result<ValueId, RuleError> {
    let (input, count) = (ctx.x(index)?, ctx.node().inputs.len());
    let share = ctx.once("share", |ctx| {
        let dy = ctx.dy()?;
        Ok(if count == 1 { dy } else { ctx.b.scale(dy, 1.0 / count as f64) })
    })?;
    unbroadcast(ctx, share, input)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let mean = |name| Case::new(name, "Mean").linear();
        check(&[
            mean("one").input(&[2, 3]),
            mean("three, broadcast").input(&[2, 3]).input(&[3]).input(&[2, 1]),
            mean("symbolic batch").input(&[2, 3]).input(&[3]).batch(),
            mean("symbols").input(&[2, 3]).input(&[3]).symbols(&[(0, 0, "batch"), (0, 1, "width"), (1, 0, "width")]),
            mean("constant").input(&[2, 3]).fixed(Tensor::scalar(0.25_f32)),
            mean("large")
                .values(&[2], &[1e30, 0.0])
                .values(&[2], &[1e30, 3.0])
                .expect(0, &[0.5; 2])
                .expect(1, &[0.5; 2]),
        ]);
    }
}
