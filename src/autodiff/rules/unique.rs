//! Unique
//!
//! Forward:  `y, indices, inverse, counts` = the distinct elements of x, or slices along `axis`, and
//!           where each comes first.
//! Backward: `dx` = dy in the places that `indices` say, zeros elsewhere.
//! Shapes:   x any; dimensions may be symbols.
//! Opsets:   11 to 24.
//! At kinks: of equal elements the first gets the gradient; if one of them moved, y would grow.
//! <https://onnx.ai/onnx/operators/onnx__Unique.html>

use super::shared::spread_out;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "Unique", opsets: 11..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let node = ctx.node();
    let places = match node.output(1) {
        Some(places) => places,
        None => {
            let again = ctx.b.ops(&node.op, &node.inputs, node.attributes.clone(), 2);
            again.get(1).copied().ok_or_else(|| RuleError::Unsupported("output 1 is missing".into()))?
        }
    };
    spread_out(ctx, places)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let unique = |name| Case::new(name, "Unique").outputs(4).distinct(&[3, 4]);
        let cases = [
            unique("elements"),
            unique("elements, not sorted").int("sorted", 0),
            unique("rows").int("axis", 0),
            unique("columns, only the values").int("axis", -1).outputs(1),
            unique("symbols").int("axis", 1).symbols(&[(0, 0, "a"), (0, 1, "b")]),
            Case::new("ties", "Unique")
                .outputs(1)
                .values(&[5], &[2.0, 1.0, 2.0, 3.0, 1.0])
                .expect(0, &[1.0, 1.0, 0.0, 1.0, 0.0]),
        ];
        check(&cases.map(|case| case.not_embedded("tract has no Unique")));
    }
}
