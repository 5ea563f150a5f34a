//! STFT
//!
//! Forward:  `y[f, k] = sum over t of w_t x[f s + t] exp(-2 pi i k t / L)`: frames of L elements, s apart;
//!           one-sided, k runs to `L/2`.
//! Backward: with `B[k, t]` the real and imaginary parts of the exponentials,
//!           `dx = ConvTranspose(dy, w B)` with stride s; `dw_t = sum over f of x[f s + t] (dy[f] B)_t`.
//! Shapes:   x `[N, n]` or `[N, n, 1 or 2]`, w `[L]`, y `[N, F, K, 2]`; N may be a symbol; step and
//!           length of the frames are constant.
//! Opsets:   17 to 24.
//! <https://onnx.ai/onnx/operators/onnx__STFT.html>

use super::shared::{float_constant, shaped_like};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, Tensor, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "STFT",
    opsets: 17..=24,
    inputs: Inputs::Fixed(&[
        InputRule::Gradient(signal),
        InputRule::Constant,
        InputRule::Gradient(window),
        InputRule::Constant,
    ]),
};

/// Largest length of a frame.
const LONGEST: i64 = 1 << 13;

struct Frames {
    step: i64,
    length: i64,
    /// Elements of the signal.
    size: i64,
    count: i64,
    /// Frequencies.
    bins: i64,
    /// 1 for a real signal, 2 for a complex one.
    parts: i64,
}

fn frames(ctx: &Ctx<'_>) -> Result<Frames, RuleError> {
    let sizes = |value, from| -> Result<Vec<i64>, RuleError> {
        Ok(ctx.sizes_from(value, from)?.iter().map(|size| *size as i64).collect())
    };
    let (x, y) = (sizes(ctx.x(0)?, 1)?, sizes(ctx.y(0)?, 1)?);
    let first = |list: Option<Vec<i64>>| list.and_then(|list| list.first().copied());
    let step = first(ctx.constant_ints(1)?);
    let length = match first(ctx.constant_ints(3)?) {
        Some(length) => Some(length),
        None => first(Some(sizes(ctx.x(2)?, 0)?)),
    };
    match (x.as_slice(), y.as_slice(), step, length) {
        (&[size, ref parts @ ..], &[count, bins, 2], Some(step), Some(length))
            if step > 0 && (1..=LONGEST).contains(&length) && (count - 1).saturating_mul(step) + length <= size =>
        {
            let parts = parts.first().copied().unwrap_or(1);
            Ok(Frames { step, length, size, count, bins, parts })
        }
        _ => Err(RuleError::Unsupported(format!(
            "frames {step:?} apart, {length:?} long, of x {} to y {}",
            ctx.b.fact(ctx.x(0)?),
            ctx.b.fact(ctx.y(0)?)
        ))),
    }
}

/// `[K 2, parts, L]`: what each part of the signal gives to the real and the imaginary part of y.
fn exponentials(ctx: &mut Ctx<'_>, f: &Frames) -> Result<ValueId, RuleError> {
    ctx.once("exponentials", |ctx| {
        let mut all = Vec::new();
        for (bin, imaginary) in (0..f.bins).flat_map(|bin| [(bin, false), (bin, true)]) {
            for part in 0..f.parts {
                for at in 0..f.length {
                    let turn = (bin * at % f.length) as f64 / f.length as f64;
                    let (sin, cos) = (turn * std::f64::consts::TAU).sin_cos();
                    all.push(match (part, imaginary) {
                        (0, false) | (1, true) => cos,
                        (0, true) => -sin,
                        _ => sin,
                    });
                }
            }
        }
        let dtype = ctx.dtype(ctx.x(0)?);
        let shape = [2 * f.bins, f.parts, f.length].map(|size| size as usize);
        Ok(float_constant(ctx, "exponentials", &shape, &all, dtype))
    })
}

fn signal(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let f = frames(ctx)?;
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let mut kernel = exponentials(ctx, &f)?;
    if let Some(window) = ctx.node().input(2) {
        kernel = ctx.b.mul(kernel, window);
    }
    let channels = ctx.b.transpose(dy, &[0, 2, 3, 1]);
    let channels = ctx.b.reshape(channels, &[0, 2 * f.bins, f.count]);
    let rest = f.size - (f.count - 1) * f.step - f.length;
    let attributes = Attributes::none().with("output_padding", vec![rest]).with("strides", vec![f.step]);
    let spread = ctx.b.op("ConvTranspose", &[channels, kernel], attributes);
    let spread = ctx.b.transpose(spread, &[0, 2, 1]);
    let dx = ctx.b.reshape_like(spread, x);
    Ok(shaped_like(ctx, dx, x))
}

fn window(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let f = frames(ctx)?;
    let (dy, x, window) = (ctx.dy()?, ctx.x(0)?, ctx.x(2)?);
    let exponentials = exponentials(ctx, &f)?;
    let flat = ctx.b.reshape(exponentials, &[2 * f.bins, f.parts * f.length]);
    let pairs = ctx.b.reshape(dy, &[0, f.count, 2 * f.bins]);
    let felt = ctx.b.op("MatMul", &[pairs, flat], Attributes::none());
    let felt = ctx.b.reshape(felt, &[0, f.count, f.parts, f.length]);
    let places: Vec<i64> = (0..f.count).flat_map(|frame| (0..f.length).map(move |at| frame * f.step + at)).collect();
    let places = ctx.b.constant("places", Tensor::from_vec(&[f.count as usize, f.length as usize], places));
    let split = ctx.b.reshape(x, &[0, f.size, f.parts]);
    let frames = ctx.b.op("Gather", &[split, places], Attributes::none().with("axis", 1));
    let frames = ctx.b.transpose(frames, &[0, 1, 3, 2]);
    let product = ctx.b.mul(frames, felt);
    let dw = ctx.b.reduce("ReduceSum", product, &[0, 1, 2], false);
    Ok(shaped_like(ctx, dw, window))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let number = |value: i64| Tensor::scalar(value);
        let stft = |name, shape: &[usize], step| Case::new(name, "STFT").linear().input(shape).fixed(number(step));
        let trained = |name, shape: &[usize], step, length| {
            stft(name, shape, step).input(&[length]).not_embedded("tract takes only a constant window")
        };
        check(&[
            trained("real", &[2, 17, 1], 3, 8).fixed(number(8)),
            trained("a rest", &[2, 19, 1], 5, 6).batch(),
            trained("both sides", &[1, 16, 1], 4, 7).int("onesided", 0),
            trained("complex", &[2, 14, 2], 3, 5).int("onesided", 0),
            trained("newest", &[1, 12, 1], 2, 4).opset(21).fixed(number(4)),
            stft("without window", &[2, 16, 1], 4).missing().fixed(number(8)),
            stft("frozen window", &[2, 16, 1], 3).fixed(Tensor::from_vec(&[4], vec![0.25f32, 1.0, 0.5, -0.75])).batch(),
        ]);
    }
}
