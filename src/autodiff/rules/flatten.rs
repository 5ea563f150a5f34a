//! Flatten
//!
//! Forward:  `y` = x as a matrix, cut before `axis`.
//! Backward: `dx` = dy in x's shape.
//! Shapes:   x any; dimensions may be symbols.
//! Opsets:   1 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Flatten.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule =
    Rule { domain: "", op: "Flatten", opsets: 1..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    Ok(ctx.b.reshape_like(dy, x))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let flatten = |name| Case::new(name, "Flatten").linear().input(&[2, 3, 4]);
        check(&[
            flatten("default"),
            flatten("axis 0").int("axis", 0),
            flatten("from the end").int("axis", -1),
            flatten("symbolic batch").batch(),
            flatten("symbols").int("axis", 2).symbols(&[(0, 0, "batch"), (0, 1, "tokens")]),
            flatten("axis is the rank").int("axis", 3),
        ]);
    }
}
