//! Clip
//!
//! Forward:  `y = min(max(x, low), high)`; a bound that is absent does not limit.
//! Backward: `dx = low < x < high ? dy : 0`.
//! Shapes:   x any, low and high scalars, constant or not.
//! Opsets:   11 to 24.
//! At kinks: 0 at both bounds, as `clamp`, `hardtanh` and `relu6` of PyTorch 2.15.
//! <https://onnx.ai/onnx/operators/onnx__Clip.html>

use super::shared::masked;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

const BOUND: &str = "the bounds of Clip are not trained";

pub static RULE: Rule = Rule {
    domain: "",
    op: "Clip",
    opsets: 11..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Missing(BOUND), InputRule::Missing(BOUND)]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let mut inside: Option<ValueId> = None;
    for (index, op) in [(1, "Greater"), (2, "Less")] {
        let Some(bound) = ctx.node().input(index) else { continue };
        let holds = ctx.b.op(op, &[x, bound], Attributes::none());
        inside = Some(match inside {
            Some(before) => ctx.b.op("And", &[before, holds], Attributes::none()),
            None => holds,
        });
    }
    Ok(match inside {
        Some(inside) => masked(ctx, inside, dy),
        None => dy,
    })
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let bound = |value: f32| Tensor::scalar(value);
        check(&[
            Case::new("both", "Clip").away_from_zero(&[3, 4], 0.1).fixed(bound(-0.05)).fixed(bound(2.0)).batch(),
            Case::new("low", "Clip").away_from_zero(&[2, 3], 0.1).fixed(bound(0.0)),
            Case::new("high", "Clip").away_from_zero(&[2, 3], 0.1).missing().fixed(bound(0.0)),
            Case::new("none", "Clip").input(&[2, 3]),
            Case::new("bounds and large", "Clip")
                .values(&[5], &[-1e30, 0.0, 3.0, 6.0, 1e30])
                .fixed(bound(0.0))
                .fixed(bound(6.0))
                .expect(0, &[0.0, 0.0, 1.0, 0.0, 0.0]),
        ]);
    }
}
