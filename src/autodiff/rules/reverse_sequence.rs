//! ReverseSequence
//!
//! Forward:  `y` = x with the first `sequence_lens[b]` elements along `time_axis` in reverse.
//! Backward: `dx` = dy reversed in the same way.
//! Shapes:   x any; dimensions may be symbols, the lengths may be computed.
//! Opsets:   10 to 24.
//! <https://onnx.ai/onnx/operators/onnx__ReverseSequence.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = Rule {
    domain: "",
    op: "ReverseSequence",
    opsets: 10..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, lengths) = (ctx.dy()?, ctx.x(1)?);
    Ok(ctx.b.op("ReverseSequence", &[dy, lengths], ctx.attributes().clone()))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let reverse = |name| Case::new(name, "ReverseSequence").linear().input(&[4, 3, 2]);
        let cases = [
            reverse("time first").fixed(Tensor::ints(&[4, 1, 3])),
            reverse("batch first").int("batch_axis", 0).int("time_axis", 1).fixed(Tensor::ints(&[1, 2, 3, 2])),
            reverse("symbols").fed(Tensor::ints(&[2, 4, 3])).symbols(&[
                (0, 0, "tokens"),
                (0, 1, "batch"),
                (1, 0, "batch"),
            ]),
        ];
        check(&cases.map(|case| case.not_embedded("tract has no ReverseSequence")));
    }
}
