//! OneHot
//!
//! Forward:  `y` = `values[1]` where the position along `axis` is the index, `values[0]` elsewhere.
//! Backward: `dvalues = [sum of dy elsewhere, sum of dy at the indices]`.
//! Shapes:   indices any, values `[2]`; dimensions may be symbols.
//! Opsets:   11 to 24.
//! <https://onnx.ai/onnx/operators/onnx__OneHot.html>

use super::shared::masked;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, Tensor, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "OneHot",
    opsets: 11..=24,
    inputs: Inputs::Fixed(&[InputRule::Constant, InputRule::Constant, InputRule::Gradient(values)]),
};

fn values(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, indices, depth, values) = (ctx.dy()?, ctx.x(0)?, ctx.x(1)?, ctx.x(2)?);
    let [off, on] = [0.0, 1.0].map(|number| Tensor::float_full(ctx.dtype(values), &[1], number));
    let flags = [ctx.b.constant("off", off), ctx.b.constant("on", on)];
    let flags = ctx.b.op("Concat", &flags, Attributes::none().with("axis", 0));
    let hot = ctx.b.ops(&ctx.node().op, &[Some(indices), Some(depth), Some(flags)], ctx.attributes().clone(), 1);
    let hot = ctx.b.compare("Equal", hot[0], 1.0);
    let cold = ctx.b.unary("Not", hot);
    let axes: Vec<i64> = (0..ctx.rank(dy)? as i64).collect();
    let sums = [cold, hot].map(|place| {
        let part = masked(ctx, place, dy);
        let sum = ctx.b.reduce("ReduceSum", part, &axes, false);
        ctx.b.unsqueeze(sum, &[0])
    });
    let grad = ctx.b.op("Concat", &sums, Attributes::none().with("axis", 0));
    Ok(ctx.b.reshape_like(grad, values))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let hot = |name| {
            let places = Tensor::from_vec(&[2, 3], vec![0_i64, 3, -1, 2, 2, 7]);
            let case = Case::new(name, "OneHot").linear().fixed(places).fixed(Tensor::scalar(4_i64)).input(&[2]);
            case.not_embedded("tract's OneHot takes only constant values")
        };
        check(&[
            hot("last axis"),
            hot("first axis").int("axis", 0),
            hot("middle axis").int("axis", -2),
            Case::new("floating-point indices and depth", "OneHot")
                .linear()
                .fixed(Tensor::from_vec(&[3], vec![1f32, -2.0, 5.0]))
                .fixed(Tensor::scalar(4f32))
                .input(&[2])
                .not_embedded("tract's OneHot takes only constant values"),
            Case::new("symbols", "OneHot")
                .linear()
                .fed(Tensor::from_vec(&[2, 3], vec![0_i64, 3, -1, 2, 2, 7]))
                .fixed(Tensor::scalar(4_i64))
                .input(&[2])
                .symbols(&[(0, 0, "batch"), (0, 1, "tokens")])
                .not_embedded("tract's OneHot takes only constant values"),
        ]);
    }
}
