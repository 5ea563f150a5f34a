//! LRN
//!
//! Forward:  `y = x / s^beta`, `s = bias + alpha / size * (sum of x^2 over a window of channels)`; the window of
//!           channel c goes from `c - floor((size - 1) / 2)` to `c + ceil((size - 1) / 2)`.
//! Backward: `dx = dy / s^beta - 2 alpha beta / size * x * (sum of dy * y / s over the mirrored window)`.
//! Shapes:   `[N, C, H, W]`.
//! Opsets:   1 to 24.
//! <https://onnx.ai/onnx/operators/onnx__LRN.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule =
    Rule { domain: "", op: "LRN", opsets: 1..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x, y) = (ctx.dy()?, ctx.x(0)?, ctx.y(0)?);
    let alpha = f64::from(ctx.attributes().float("alpha", 0.0001)?);
    let beta = f64::from(ctx.attributes().float("beta", 0.75)?);
    let bias = f64::from(ctx.attributes().float("bias", 1.0)?);
    let size = ctx.attributes().int("size", 0)?;
    if size < 1 {
        return Err(RuleError::Unsupported(format!("size is 1 or more, found {size}")));
    }
    let (small, large) = ((size - 1) / 2, size / 2);
    let square = ctx.b.mul(x, x);
    let mean = channel_mean(ctx, square, small, large)?;
    let scaled = ctx.b.scale(mean, alpha);
    let s = ctx.b.shift(scaled, bias);
    let power = ctx.b.like(s, -beta);
    let factor = ctx.b.op("Pow", &[s, power], Attributes::none());
    let direct = ctx.b.mul(dy, factor);
    let product = ctx.b.mul(dy, y);
    let ratio = ctx.b.div(product, s);
    let mean = channel_mean(ctx, ratio, large, small)?;
    let through = ctx.b.mul(x, mean);
    let through = ctx.b.scale(through, 2.0 * alpha * beta);
    Ok(ctx.b.sub(direct, through))
}

/// Sums over the channels from `before` to `after` around each, zeros outside, divided by `before + after + 1`.
fn channel_mean(ctx: &mut Ctx<'_>, value: ValueId, before: i64, after: i64) -> Result<ValueId, RuleError> {
    let spatial = ctx.rank(ctx.x(0)?)?.saturating_sub(2);
    let mut kernel = vec![1; spatial + 1];
    kernel[0] = before + after + 1;
    let mut pads = vec![0; 2 * (spatial + 1)];
    pads[0] = before;
    pads[spatial + 1] = after;
    let image = ctx.b.unsqueeze(value, &[1]);
    let attributes = Attributes::none().with("count_include_pad", 1).with("kernel_shape", kernel).with("pads", pads);
    let mean = ctx.b.op("AveragePool", &[image], attributes);
    Ok(ctx.b.squeeze(mean, &[1]))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let lrn = |name, size: i64| Case::new(name, "LRN").int("size", size).float("alpha", 0.5);
        check(&[
            lrn("odd window", 3).input(&[2, 5, 2, 3]).batch(),
            lrn("symbols", 3).input(&[2, 5, 2, 3]).symbols(&[(0, 0, "batch"), (0, 1, "channels"), (0, 2, "height")]),
            lrn("beta and bias", 3).input(&[2, 6, 3, 2]).float("beta", 0.5).float("bias", 2.0),
            lrn("even window", 4)
                .float("alpha", 4.0)
                .input(&[2, 6, 3, 2])
                .only_embedded("ONNX Runtime has odd windows only"),
            lrn("window above the channels", 5).input(&[1, 2, 2, 2]),
            lrn("one channel", 1).input(&[2, 3, 2, 2]).batch(),
            Case::new("defaults", "LRN").int("size", 3).range(&[1, 3, 2, 2], -30.0, 30.0),
            lrn("zeros", 3).values(&[1, 2, 1, 1], &[0.0; 2]).expect(0, &[1.0; 2]),
        ]);
    }
}
