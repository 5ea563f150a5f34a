//! ReduceMean
//!
//! Forward:  `y = mean of x over axes`.
//! Backward: `dx = dy / count`, expanded over the reduced axes; the count is computed while the model runs
//!           where a reduced size is not fixed.
//! Shapes:   x any; axes a constant input or absent (all axes, or none with `noop_with_empty_axes`).
//! Opsets:   1 to 24.
//! <https://onnx.ai/onnx/operators/onnx__ReduceMean.html>

use super::shared::{expand_reduced, reduced_axes};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "ReduceMean",
    opsets: 1..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let (axes, dims) = (reduced_axes(ctx)?, ctx.dims(x)?);
    if axes.is_empty() {
        return Ok(dy);
    }
    let sizes = axes.iter().map(|axis| dims[*axis as usize].known().map(|size| size as f64));
    let share = match sizes.product::<Option<f64>>() {
        Some(count) => ctx.b.scale(dy, 1.0 / count),
        None => {
            let shape = ctx.b.shape_of(x);
            let axes = ctx.b.ints("axes", &axes);
            let sizes = ctx.b.op("Gather", &[shape, axes], Attributes::none());
            let count = ctx.b.op("ReduceProd", &[sizes], Attributes::none().with("keepdims", 0));
            let dtype = ctx.dtype(dy);
            let count = ctx.b.cast(count, dtype);
            ctx.b.div(dy, count)
        }
    };
    expand_reduced(ctx, share)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check, reductions};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let case = |name| Case::new(name, "ReduceMean").linear().input(&[2, 3, 4]);
        let mut cases = reductions(&case);
        cases.extend([
            case("noop").int("noop_with_empty_axes", 1),
            case("over the symbolic batch").fixed(Tensor::ints(&[0, 2])).batch(),
        ]);
        check(&cases);
    }
}
