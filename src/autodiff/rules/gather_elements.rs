//! GatherElements
//!
//! Forward:  `y[.., q, ..] = x[.., indices[.., q, ..], ..]` along `axis`.
//! Backward: `dx[.., indices[.., q, ..], ..] += dy[.., q, ..]`.
//! Shapes:   x, indices and y of one rank; dimensions may be symbols.
//! Opsets:   11 to 24.
//! <https://onnx.ai/onnx/operators/onnx__GatherElements.html>

use super::shared::zeros_like;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "GatherElements",
    opsets: 11..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x, indices) = (ctx.dy()?, ctx.x(0)?, ctx.x(1)?);
    let axis = ctx.attributes().int("axis", 0)?;
    let zeros = zeros_like(ctx, x);
    let attributes = Attributes::none().with("axis", axis).with("reduction", "add");
    Ok(ctx.b.op("ScatterElements", &[zeros, indices, dy], attributes))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let gather = |name, axis| Case::new(name, "GatherElements").linear().input(&[3, 4]).int("axis", axis);
        let matrix = |shape: &[usize], values: Vec<i64>| Tensor::from_vec(shape, values);
        check(&[
            gather("columns, repeated and negative", 1).fixed(matrix(&[3, 2], vec![0, 0, -1, 3, 2, -4])),
            gather("rows, repeated", 0).fixed(matrix(&[2, 4], vec![2, 2, 0, 1, 2, 1, 0, -1])),
            gather("symbols", 1).fed(matrix(&[2, 3], vec![0, 0, -1, 3, 2, -4])).symbols(&[
                (0, 0, "a"),
                (0, 1, "b"),
                (1, 0, "c"),
                (1, 1, "d"),
            ]),
            gather("more than there are", -1).fixed(matrix(&[3, 5], vec![0, 1, 2, 3, 0, 3, 3, 3, 3, 3, 1, 1, 0, 0, 2])),
            gather("fewer rows", 1).fixed(matrix(&[2, 2], vec![0, 0, 3, 1])),
            gather("symbolic batch", 1).fixed(matrix(&[3, 2], vec![0, 0, 1, 3, 2, 2])).batch(),
        ]);
    }
}
