//! CenterCropPad
//!
//! Forward:  `y` = the middle of x along each axis, or x in the middle of zeros.
//! Backward: `dx` = dy cropped or padded back to the shape of x: both ways the odd element is at
//!           the end.
//! Shapes:   any, also symbolic.
//! Opsets:   18 to 24.
//! <https://onnx.ai/onnx/operators/onnx__CenterCropPad.html>

use super::shared::shaped_like;
use crate::autodiff::rule::axis;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "CenterCropPad",
    opsets: 18..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let mut shape = ctx.b.shape_of(x);
    let mut attributes = Attributes::none();
    if let Some(axes) = ctx.attributes().ints("axes")? {
        let rank = ctx.rank(x)?;
        let axes = axes.iter().map(|at| Ok(axis(*at, rank)? as i64)).collect::<Result<Vec<_>, RuleError>>()?;
        let picked = ctx.b.ints("axes", &axes);
        shape = ctx.b.op("Gather", &[shape, picked], Attributes::none());
        attributes.set("axes", axes);
    }
    let dx = ctx.b.op("CenterCropPad", &[dy, shape], attributes);
    Ok(shaped_like(ctx, dx, x))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let case = |name, shape: &[i64]| {
            let case = Case::new(name, "CenterCropPad").linear().input(&[3, 7, 6]).fixed(Tensor::ints(shape));
            case.not_embedded("tract has no CenterCropPad")
        };
        check(&[
            case("both ways", &[4, 4, 9]),
            case("odd and even", &[5, 5, 3]),
            case("some axes", &[9, 4]).ints("axes", &[-1, 1]).batch(),
            case("nothing", &[3, 7, 6]).opset(21),
        ]);
    }
}
