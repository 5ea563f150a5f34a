//! DFT
//!
//! Forward:  `y_k = sum over t of x_t exp(-2 pi i k t / L)` along an axis, x cut or zero-padded to L
//!           elements; the inverse has the other sign and divides by L; one-sided, k runs to `L/2`.
//!           The one-sided inverse makes L real numbers of the first `L/2 + 1` elements of x.
//! Backward: the transform in the other direction, times L (forward) or by L (inverse); of the
//!           real part where x is real, cut or zero-padded to the length of x. Of the one-sided
//!           inverse `dx_k = c_k / L * DFT(dy)_k` with c 2, or 1 for what is its own mirror image
//!           (k of 0 and `L/2`).
//! Shapes:   x `[.., n, .., 1 or 2]`, y `[.., K, .., 2]`; n and L are fixed, the others may be symbols.
//! Opsets:   17 to 24 (the axis is an attribute to 19, an input from 20).
//! <https://onnx.ai/onnx/operators/onnx__DFT.html>

use super::shared::{float_constant, shaped_like};
use crate::autodiff::rule::axis;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, OpId, Tensor, ValueId};

/// Opset 20 on.
pub static RULE: Rule = Rule {
    domain: "",
    op: "DFT",
    opsets: 20..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(with_axis_input), InputRule::Constant, InputRule::Constant]),
};

/// Opset 17 to 19.
pub static ATTRIBUTE: Rule = Rule {
    domain: "",
    op: "DFT",
    opsets: 17..=19,
    inputs: Inputs::Fixed(&[InputRule::Gradient(with_axis_attribute), InputRule::Constant]),
};

fn with_axis_input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let at = ctx.constant_ints(2)?.and_then(|axes| axes.first().copied()).unwrap_or(-2);
    input(ctx, at, true)
}

fn with_axis_attribute(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let at = ctx.attributes().int("axis", 1)?;
    input(ctx, at, false)
}

fn input(ctx: &mut Ctx<'_>, at: i64, axis_input: bool) -> Result<ValueId, RuleError> {
    let (x, mut grad) = (ctx.x(0)?, ctx.dy()?);
    let rank = ctx.rank(x)?;
    let at = axis(at, rank)?;
    let size = |ctx: &Ctx<'_>, value, at: usize| -> Result<i64, RuleError> {
        let known = ctx.dims(value)?.get(at).and_then(|dim| i64::try_from(dim.known()?).ok());
        known.ok_or_else(|| RuleError::NoShape {
            value: ctx.name(value),
            dims: at.to_string(),
            found: ctx.b.fact(value).to_string(),
        })
    };
    let (from, to) = (size(ctx, x, at)?, size(ctx, ctx.y(0)?, at)?);
    let length = ctx.constant_ints(1)?.and_then(|length| length.first().copied()).unwrap_or(from);
    let (inverse, one_sided) = (ctx.attributes().int("inverse", 0)?, ctx.attributes().int("onesided", 0)?);
    if inverse == 1 && one_sided == 1 {
        return one_sided_inverse(ctx, at, axis_input, (from, to));
    }
    grad = resized(ctx, grad, rank, at, (to, length));
    grad = transform(ctx, grad, at, axis_input, Attributes::none().with("inverse", 1 - inverse));
    let scale = if inverse == 1 { 1.0 / length as f64 } else { length as f64 };
    grad = ctx.b.scale(grad, scale);
    grad = resized(ctx, grad, rank, at, (length, from));
    let parts = size(ctx, x, rank - 1)?;
    grad = resized(ctx, grad, rank, rank - 1, (2, parts));
    Ok(shaped_like(ctx, grad, x))
}

/// The gradient of `to` real numbers to the `from` elements they are made of.
fn one_sided_inverse(
    ctx: &mut Ctx<'_>,
    at: usize,
    axis_input: bool,
    (from, to): (i64, i64),
) -> Result<ValueId, RuleError> {
    let (x, grad) = (ctx.x(0)?, ctx.dy()?);
    let (rank, read) = (ctx.rank(x)?, to / 2 + 1);
    if from < read {
        let reason = format!("a one-sided inverse to length {to} reads {read} elements and has {from}");
        return Err(RuleError::Unsupported(reason));
    }
    let grad = transform(ctx, grad, at, axis_input, Attributes::none().with("onesided", 1));
    let dtype = ctx.dtype(grad);
    let weights: Vec<f64> = (0..read).map(|k| if k == 0 || 2 * k == to { 1.0 } else { 2.0 } / to as f64).collect();
    let mut shape = vec![1; rank - at];
    shape[0] = weights.len();
    let weights = float_constant(ctx, "weights", &shape, &weights, dtype);
    let grad = ctx.b.mul(grad, weights);
    let grad = resized(ctx, grad, rank, at, (read, from));
    Ok(shaped_like(ctx, grad, x))
}

fn transform(ctx: &mut Ctx<'_>, x: ValueId, at: usize, axis_input: bool, mut attributes: Attributes) -> ValueId {
    let mut inputs = vec![Some(x)];
    if axis_input {
        let at = ctx.b.constant("axis", Tensor::scalar(at as i64));
        inputs.extend([None, Some(at)]);
    } else {
        attributes.set("axis", at as i64);
    }
    ctx.b.ops(&OpId::standard("DFT"), &inputs, attributes, 1)[0]
}

/// Cuts or zero-pads an axis at its end.
fn resized(ctx: &mut Ctx<'_>, value: ValueId, rank: usize, at: usize, (from, to): (i64, i64)) -> ValueId {
    if to < from {
        let [start, end, axes] =
            [("starts", 0), ("ends", to), ("axes", at as i64)].map(|(name, n)| ctx.b.ints(name, &[n]));
        return ctx.b.op("Slice", &[value, start, end, axes], Attributes::none());
    }
    if to == from {
        return value;
    }
    let mut pads = vec![0; 2 * rank];
    pads[rank + at] = to - from;
    let pads = ctx.b.ints("pads", &pads);
    let zero = ctx.b.like(value, 0.0);
    ctx.b.op("Pad", &[value, pads, zero], Attributes::none().with("mode", "constant"))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    const NO_LENGTH: &str = "tract fails on another length";

    #[test]
    fn gradients() {
        let dft = |name, shape: &[usize]| Case::new(name, "DFT").linear().input(shape);
        let at = |axis: i64| Tensor::scalar(axis);
        let back = |name, shape: &[usize]| {
            dft(name, shape).int("inverse", 1).int("onesided", 1).not_embedded("tract gives complex numbers")
        };
        check(&[
            dft("complex", &[2, 6, 2]),
            dft("real", &[2, 6, 1]).batch(),
            dft("odd length", &[2, 7, 1]),
            dft("inverse", &[2, 6, 2]).int("inverse", 1),
            dft("one-sided", &[2, 6, 1]).int("onesided", 1),
            dft("one-sided, odd", &[2, 7, 1]).int("onesided", 1).batch(),
            dft("axis 2", &[2, 3, 8, 2]).int("axis", 2),
            dft("padded", &[2, 5, 1]).fixed(Tensor::scalar(8i64)).not_embedded(NO_LENGTH),
            dft("cut, inverse", &[2, 7, 2]).fixed(Tensor::scalar(4i64)).int("inverse", 1).not_embedded(NO_LENGTH),
            dft("cut, one-sided", &[2, 7, 1]).fixed(Tensor::scalar(4i64)).int("onesided", 1).not_embedded(NO_LENGTH),
            dft("last axis", &[2, 3, 8, 2]).opset(20).not_embedded("tract takes axis 1 where none is given"),
            dft("first axis", &[4, 3, 2]).opset(20).missing().fixed(at(0)),
            dft("padded along an axis", &[2, 3, 4, 1])
                .opset(21)
                .fixed(Tensor::scalar(5i64))
                .fixed(at(1))
                .batch()
                .not_embedded(NO_LENGTH),
            back("one-sided inverse", &[2, 4, 2]).batch(),
            back("one-sided inverse, odd length", &[2, 4, 2]).fixed(Tensor::scalar(7i64)),
            back("one-sided inverse, cut", &[2, 5, 2]).fixed(Tensor::scalar(6i64)),
            back("one-sided inverse along an axis", &[2, 3, 4, 2]).opset(21).missing().fixed(at(-2)).batch(),
            back("one-sided inverse as PyTorch", &[1, 3, 2]).expect(0, &[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
            dft("as PyTorch", &[1, 4, 1]).int("onesided", 1).expect(0, &[3.0, -1.0, 1.0, 1.0]),
        ]);
    }
}
