//! ReduceProd
//!
//! Forward:  `y = product of x over axes`.
//! Backward: `dx = dy * (product of the others)`: with `p` the product of the elements that are not 0 and
//!           `n` the number of zeros, `dy * p / x` where `x != 0` and `n = 0`, `dy * p` where `x = 0` and
//!           `n = 1`, otherwise 0.
//! Shapes:   x any; axes a constant input or absent (all axes, or none with `noop_with_empty_axes`).
//! Opsets:   1 to 24.
//! At kinks: exact where elements are 0, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__ReduceProd.html>

use super::shared::{keep_reduced, masked, reduced_axes};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = Rule {
    domain: "",
    op: "ReduceProd",
    opsets: 1..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let axes = reduced_axes(ctx)?;
    if axes.is_empty() {
        return Ok(dy);
    }
    let dy = keep_reduced(ctx, dy)?;
    let dtype = ctx.dtype(x);
    let is_zero = ctx.b.compare("Equal", x, 0.0);
    let one = ctx.b.like(x, 1.0);
    let divisor = ctx.b.select(is_zero, one, x);
    let product = ctx.b.reduce("ReduceProd", divisor, &axes, true);
    let zeros = ctx.b.cast(is_zero, dtype);
    let count = ctx.b.reduce("ReduceSum", zeros, &axes, true);
    let others = ctx.b.sub(count, zeros);
    let others_are_not = ctx.b.compare("Equal", others, 0.0);
    let slope = ctx.b.div(product, divisor);
    let slope = masked(ctx, others_are_not, slope);
    Ok(ctx.b.mul(dy, slope))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check, reductions};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let case = |name| Case::new(name, "ReduceProd").away_from_zero(&[2, 3, 2], 0.5);
        let mut cases = reductions(&case);
        cases.extend([
            case("noop").int("noop_with_empty_axes", 1),
            Case::new("zeros", "ReduceProd")
                .values(&[3, 3], &[0.0, 2.0, 3.0, 0.0, 0.0, 3.0, 1.0, -2.0, 3.0])
                .fixed(Tensor::ints(&[1]))
                .expect(0, &[6.0, 0.0, 0.0, 0.0, 0.0, 0.0, -6.0, 3.0, -2.0]),
        ]);
        check(&cases);
    }
}
