//! Dropout
//!
//! Forward:  `y = x`, or in training `y = x * mask / (1 - ratio)` with the boolean mask of output 1.
//! Backward: `dx = dy`, or in training `dx = mask ? dy / (1 - ratio) : 0`.
//! Shapes:   ratio and training mode constant scalars or absent.
//! Opsets:   7 to 24; below 12 without the mask.
//! <https://onnx.ai/onnx/operators/onnx__Dropout.html>

use super::shared::{constant_number, masked};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = Rule {
    domain: "",
    op: "Dropout",
    opsets: 7..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant, InputRule::Constant]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let dy = ctx.dy()?;
    if number(ctx, 2, 0.0)? == 0.0 {
        return Ok(dy);
    }
    let ratio = number(ctx, 1, 0.5)?;
    if ratio == 0.0 {
        return Ok(dy);
    }
    let Some(mask) = ctx.node().output(1) else {
        let reason = "training-form dropout must have been given a mask output by the training pass";
        return Err(RuleError::Unsupported(reason.into()));
    };
    let scaled = ctx.b.scale(dy, if ratio < 1.0 { 1.0 / (1.0 - ratio) } else { 0.0 });
    Ok(masked(ctx, mask, scaled))
}

fn number(ctx: &Ctx<'_>, index: usize, default: f64) -> Result<f64, RuleError> {
    let Some(value) = ctx.node().input(index) else { return Ok(default) };
    constant_number(ctx, value).ok_or_else(|| RuleError::NotConstant { value: ctx.name(value) })
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::{Attributes, Builder, DType, Fact, OpId, Tensor};

    #[test]
    fn gradients() {
        let dropout = |name| Case::new(name, "Dropout").linear().input(&[4, 8]);
        let training =
            |name, ratio: f32| dropout(name).fixed(Tensor::scalar(ratio)).fixed(Tensor::scalar(true)).int("seed", 7);
        check(&[
            dropout("inference"),
            dropout("inference with mask").fixed(Tensor::scalar(0.5_f32)).outputs(2),
            dropout("mode false").fixed(Tensor::scalar(0.5_f32)).fixed(Tensor::scalar(false)).batch(),
            dropout("ratio as attribute").opset(7).float("ratio", 0.25).batch(),
            training("ratio 0", 0.0),
            training("training", 0.25).outputs(2).batch().not_embedded("tract has no dropout in training form"),
        ]);
    }

    #[test]
    fn a_mask_is_needed_in_training() {
        let mut b = Builder::new("dropout");
        let x = b.input("x", Fact::fixed(DType::F32, &[]));
        let (ratio, mode) = (b.scalar(DType::F32, 0.5), b.constant("mode", Tensor::scalar(true)));
        let inputs = [Some(x), Some(ratio), Some(mode)];
        let y = b.ops(&OpId::standard("Dropout"), &inputs, Attributes::none(), 1)[0];
        let error = crate::autodiff::gradients(&mut b, 18, y, &[x]).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("must have been given a mask"), "{source}");
    }
}
