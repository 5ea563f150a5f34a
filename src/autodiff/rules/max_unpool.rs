//! MaxUnpool
//!
//! Forward:  `y[I] = x`, zeros elsewhere; I counts elements from the start of y.
//! Backward: `dx = dy[I]`.
//! Shapes:   x and I `[N, C, D..]`; any dimension may be a symbol.
//! Opsets:   9 to 24.
//! At kinks: where indices repeat, each element of x there gets the whole gradient, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__MaxUnpool.html>

use super::shared::shaped_like;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "MaxUnpool",
    opsets: 9..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant, InputRule::Constant]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x, indices) = (ctx.dy()?, ctx.x(0)?, ctx.x(1)?);
    let flat = ctx.b.reshape(dy, &[-1]);
    let dx = ctx.b.op("Gather", &[flat, indices], Attributes::none().with("axis", 0));
    Ok(shaped_like(ctx, dx, x))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let places = |shape: &[usize], at: &[i64]| Tensor::from_vec(shape, at.to_vec());
        let case = |name| {
            let case = Case::new(name, "MaxUnpool").linear().ints("kernel_shape", &[2, 2]).ints("strides", &[2, 2]);
            case.not_embedded("tract has no MaxUnpool")
        };
        let two = [1, 2, 2, 2];
        check(&[
            case("2d").input(&two).fixed(places(&two, &[1, 6, 8, 15, 17, 23, 28, 30])),
            case("symbolic batch").input(&[2, 1, 1, 2]).fixed(places(&[2, 1, 1, 2], &[4, 3, 8, 11])).batch(),
            case("sized")
                .input(&[1, 1, 2, 2])
                .fixed(places(&[1, 1, 2, 2], &[5, 7, 13, 15]))
                .fixed(Tensor::ints(&[1, 1, 5, 5])),
            Case::new("1d", "MaxUnpool")
                .linear()
                .ints("kernel_shape", &[2])
                .ints("strides", &[2])
                .input(&[1, 1, 3])
                .fixed(places(&[1, 1, 3], &[0, 3, 4]))
                .not_embedded("tract has no MaxUnpool"),
        ]);
    }
}
