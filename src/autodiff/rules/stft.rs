//! STFT
//!
//! Forward:  `y[f, k] = sum over t of w_t x[f s + t] exp(-2 pi i k t / L)`: frames of L elements, s apart;
//!           one-sided, k runs to `L/2`.
//! Backward: with `B[k, t]` the real and imaginary parts of the exponentials, `dx` = `w_t (dy[f] B)_t`
//!           added up at `f s + t`; `dw_t = sum over f of x[f s + t] (dy[f] B)_t`.
//! Shapes:   x `[N, n]` or `[N, n, 1 or 2]`, w `[L]`, y `[N, F, K, 2]`; N may be a symbol; step and
//!           length of the frames are constant.
//! Opsets:   17 to 24.
//! <https://onnx.ai/onnx/operators/onnx__STFT.html>

use super::shared::{float_constant, shaped_like, zeros_like};
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
            if step > 0
                && count > 0
                && (1..=LONGEST).contains(&length)
                && (count - 1).saturating_mul(step) + length <= size =>
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

/// `[K 2, parts L]`: what each part of the signal gives to the real and the imaginary part of y.
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
        let shape = [2 * f.bins, f.parts * f.length].map(|size| size as usize);
        Ok(float_constant(ctx, "exponentials", &shape, &all, dtype))
    })
}

/// `dy B`: what the elements of every frame feel, `[N, F, parts, L]`.
fn felt(ctx: &mut Ctx<'_>, f: &Frames) -> Result<ValueId, RuleError> {
    ctx.once("felt", |ctx| {
        let dy = ctx.dy()?;
        let exponentials = exponentials(ctx, f)?;
        let pairs = ctx.b.reshape(dy, &[0, f.count, 2 * f.bins]);
        let felt = ctx.b.op("MatMul", &[pairs, exponentials], Attributes::none());
        Ok(ctx.b.reshape(felt, &[0, f.count, f.parts, f.length]))
    })
}

/// Places in the signal of the elements of all frames.
fn places(f: &Frames) -> Vec<i64> {
    (0..f.count).flat_map(|frame| (0..f.length).map(move |at| frame * f.step + at)).collect()
}

fn signal(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let f = frames(ctx)?;
    let x = ctx.x(0)?;
    let mut felt = felt(ctx, &f)?;
    if let Some(window) = ctx.node().input(2) {
        felt = ctx.b.mul(felt, window);
    }
    let felt = ctx.b.transpose(felt, &[0, 2, 1, 3]);
    let felt = ctx.b.reshape(felt, &[0, f.parts, f.count * f.length]);
    let places = places(&f);
    let places = ctx.b.constant("places", Tensor::from_vec(&[1, 1, places.len()], places));
    let places = ctx.b.expand_like(places, felt);
    let split = ctx.b.reshape(x, &[0, f.size, f.parts]);
    let split = ctx.b.transpose(split, &[0, 2, 1]);
    let zeros = zeros_like(ctx, split);
    let add = Attributes::none().with("axis", 2).with("reduction", "add");
    let added = ctx.b.op("ScatterElements", &[zeros, places, felt], add);
    let turned = ctx.b.transpose(added, &[0, 2, 1]);
    let dx = ctx.b.reshape_like(turned, x);
    Ok(shaped_like(ctx, dx, x))
}

fn window(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let f = frames(ctx)?;
    let (x, window, felt) = (ctx.x(0)?, ctx.x(2)?, felt(ctx, &f)?);
    let places = Tensor::from_vec(&[f.count as usize, f.length as usize], places(&f));
    let places = ctx.b.constant("frames", places);
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
