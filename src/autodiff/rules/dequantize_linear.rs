//! DequantizeLinear
//!
//! Forward:  `y = (x - zero_point) * scale`, the scale for the whole tensor, per index of `axis`, or
//!           per block of `block_size` indices along it.
//! Backward: `dx = dy * scale`, where a gradient passes x although it is an integer, see
//!           `QuantizeLinear`; `dscale` = `dy * (x - zero_point)`, summed over what each scale is for.
//! Shapes:   x any; scale `[]`, `[D]` or, in blocks, of x's rank; dimensions may be symbols, but not the
//!           one that blocks divide.
//! Opsets:   10 to 24 (per axis from 13, blocks from 21), also in the domain `com.microsoft`.
//! <https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html>

use super::quantize_linear::{scale_for_each, sum_for_scale};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = rule("");
pub static MICROSOFT: Rule = rule("com.microsoft");

const fn rule(domain: &'static str) -> Rule {
    Rule {
        domain,
        op: "DequantizeLinear",
        opsets: 10..=24,
        inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Gradient(scale), InputRule::Constant]),
    }
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let dy = ctx.dy()?;
    let scale = scale_for_each(ctx)?;
    Ok(ctx.b.mul(dy, scale))
}

fn scale(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x, scale) = (ctx.dy()?, ctx.x(0)?, ctx.x(1)?);
    let one = ctx.b.like(scale, 1.0);
    let ones = ctx.b.expand_like(one, scale);
    let mut inputs = vec![Some(x), Some(ones)];
    inputs.extend(ctx.node().input(2).map(Some));
    let shifted = ctx.b.ops(&ctx.node().op, &inputs, ctx.attributes().clone(), 1);
    let product = ctx.b.mul(dy, shifted[0]);
    sum_for_scale(ctx, product)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::{DType, Tensor};

    #[test]
    fn gradients() {
        let x = Tensor::from_vec(&[2, 3, 4], (0..24).map(|value| (value * 7 % 50 - 20) as i8).collect::<Vec<i8>>());
        let zero = |values: &[i8]| Tensor::from_vec(&[values.len()], values.to_vec());
        let dequantize = |name| Case::new(name, "DequantizeLinear").linear().fixed(x.clone());
        let cases = [
            dequantize("whole tensor").range(&[], 0.1, 0.2),
            dequantize("whole tensor, zero point").range(&[], 0.1, 0.2).fixed(Tensor::scalar(3_i8)),
            dequantize("per axis").range(&[3], 0.1, 0.2).fixed(zero(&[1, 0, -2])),
            dequantize("per last axis").range(&[4], 0.1, 0.2).int("axis", -1),
            Case::new("per first axis of symbols", "DequantizeLinear")
                .linear()
                .fed(x.clone())
                .range(&[2], 0.1, 0.2)
                .int("axis", 0)
                .symbols(&[(0, 0, "rows"), (0, 2, "columns"), (1, 0, "rows")]),
            dequantize("in blocks")
                .range(&[2, 3, 2], 0.1, 0.2)
                .fixed(Tensor::zeros(DType::I8, &[2, 3, 2]))
                .int("axis", 2)
                .int("block_size", 2)
                .opset(21),
            dequantize("in blocks, a part of one").range(&[2, 2, 4], 0.1, 0.2).int("block_size", 2).opset(21),
            dequantize("domain of ONNX Runtime")
                .domain("com.microsoft")
                .range(&[3], 0.1, 0.2)
                .fixed(zero(&[1, 0, -2]))
                .int("axis", 1),
        ];
        check(&cases.map(|case| case.not_embedded("tract takes only a constant scale")));
    }
}
