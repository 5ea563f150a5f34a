//! CumSum
//!
//! Forward:  `y` = sums of x up to each element along axis; without the element itself with
//!           `exclusive`, from the end with `reverse`.
//! Backward: `dx` = the same sums of dy from the other side.
//! Shapes:   any; axis a scalar, constant or not.
//! Opsets:   11 to 24.
//! <https://onnx.ai/onnx/operators/onnx__CumSum.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "CumSum",
    opsets: 11..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, axis) = (ctx.dy()?, ctx.x(1)?);
    let exclusive = ctx.attributes().int("exclusive", 0)?;
    let reverse = ctx.attributes().int("reverse", 0)?;
    let attributes = Attributes::none().with("exclusive", exclusive).with("reverse", 1 - reverse.min(1));
    Ok(ctx.b.op("CumSum", &[dy, axis], attributes))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let constant = "tract takes a constant axis";
        let sum = |name, axis: i64| {
            let case = Case::new(name, "CumSum").linear().input(&[2, 3, 4]);
            case.fixed(Tensor::scalar(axis))
        };
        check(&[
            sum("middle", 1),
            sum("last, negative", -1).batch(),
            Case::new("computed axis", "CumSum")
                .linear()
                .input(&[2, 3])
                .fed(Tensor::scalar(1_i64))
                .not_embedded(constant),
            sum("batch axis", 0).batch(),
            sum("exclusive", 1).int("exclusive", 1),
            sum("reverse", 2).int("reverse", 1),
            sum("exclusive and reverse", -2).int("exclusive", 1).int("reverse", 1),
            Case::new("axis of 32 bits", "CumSum").linear().input(&[2, 3]).fixed(Tensor::scalar(1_i32)),
            Case::new("weights", "CumSum")
                .values(&[4], &[1.0, 0.0, 1e30, -1.0])
                .fixed(Tensor::scalar(0_i64))
                .expect(0, &[4.0, 3.0, 2.0, 1.0]),
        ]);
    }
}
