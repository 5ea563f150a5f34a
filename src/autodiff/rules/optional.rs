//! Optional and OptionalGetElement
//!
//! Forward:  a tensor becomes an optional value, or is taken out of it.
//! Backward: `dx = dy`: an optional value's gradient is that of its tensor.
//! Shapes:   any.
//! Opsets:   15 to 24.
//! <https://onnx.ai/onnx/operators/onnx__OptionalGetElement.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static OPTIONAL: Rule = rule("Optional");
pub static OPTIONAL_GET_ELEMENT: Rule = rule("OptionalGetElement");

const fn rule(op: &'static str) -> Rule {
    Rule { domain: "", op, opsets: 15..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) }
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    ctx.dy()
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::graph::{Attributes, Builder, DType, Fact, Model, Tensor};
    use crate::runner::{evaluate, testing};

    #[test]
    fn a_gradient_passes() {
        let mut b = Builder::new("optional");
        let x = b.input("x", Fact::fixed(DType::F32, &[3]));
        let maybe = b.op("Optional", &[x], Attributes::none());
        let parts = [0, 1].map(|_| {
            let part = b.op("OptionalGetElement", &[maybe], Attributes::none());
            b.refine(part, &Fact::fixed(DType::F32, &[3]));
            part
        });
        let product = b.mul(parts[0], parts[1]);
        let loss = b.reduce("ReduceSum", product, &[0], false);
        let grads = crate::autodiff::gradients(&mut b, 18, loss, &[x]).unwrap();
        b.output(grads[0].unwrap(), "dx");
        let model =
            Model { graph: b.finish(), opsets: [(String::new(), 18)].into(), ir_version: 8, ..Model::default() };
        let x = Tensor::from_vec(&[3], vec![1.0_f32, -2.0, 0.5]);
        let found = evaluate(&mut testing::onnxruntime(), &model, &[("x", &x)]).unwrap();
        assert_eq!(found, [Tensor::from_vec(&[3], vec![2.0_f32, -4.0, 1.0])]);
    }
}
