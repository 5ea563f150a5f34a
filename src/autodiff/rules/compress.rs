//! Compress
//!
//! Forward:  `y` = the slices of x along `axis`, or the elements of x, where the condition holds.
//! Backward: `dx` = dy in these places, zeros elsewhere.
//! Shapes:   x any, condition a vector that may be shorter; dimensions may be symbols.
//! Opsets:   9 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Compress.html>

use super::shared::spread_out;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = Rule {
    domain: "",
    op: "Compress",
    opsets: 9..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let condition = ctx.x(1)?;
    let places = ctx.b.unary("NonZero", condition);
    let places = ctx.b.reshape(places, &[-1]);
    spread_out(ctx, places)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let compress = |name| Case::new(name, "Compress").linear().input(&[3, 4]);
        let flags = |values: &[bool]| Tensor::from_vec(&[values.len()], values.to_vec());
        let cases = [
            compress("columns").int("axis", -1).fixed(flags(&[true, false, true, true])),
            compress("rows, shorter condition").int("axis", 0).fixed(flags(&[false, true])),
            compress("elements").fixed(flags(&[true, false, false, true, true])),
            compress("nothing").int("axis", 1).fed(flags(&[false, false])),
            compress("symbols").int("axis", 1).fed(flags(&[true, false, true])).symbols(&[(0, 0, "a"), (0, 1, "b")]),
            compress("elements, symbols").fed(flags(&[true, false, true])).symbols(&[(0, 0, "a"), (0, 1, "b")]),
        ];
        check(&cases.map(|case| case.not_embedded("tract has no Compress")));
    }
}
