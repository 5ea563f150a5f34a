//! Gradient clipping: of each element by value, then by the norm of all gradients together
//!
//! By value: `g = min(max(g, -limit), limit)`.
//! <https://pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_value_.html>
//!
//! By norm: `norm = sqrt(sum over parameters of sum(g^2))`; `g = g min(1, limit / (norm + 1e-6))`.
//! <https://pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html>
//!
//! With both, the norm is that of the elements already clipped, so that one very large element does not take the step
//! from all others; both limits hold in the end, because the norm only makes elements smaller.

use crate::graph::{Attributes, Builder, DType, Origin, ValueId};

/// Appends the clipping of each element to `-limit..=limit` and returns the clipped gradients.
pub(super) fn by_value(b: &mut Builder, limit: f32, grads: &[ValueId]) -> Vec<ValueId> {
    b.enter(Origin::Update("gradients".into()), "clip_value");
    let limit = f64::from(limit);
    let mut bounds: Vec<(DType, ValueId, ValueId)> = Vec::new();
    let mut clipped = Vec::with_capacity(grads.len());
    for grad in grads {
        let dtype = b.dtype(*grad);
        let known = bounds.iter().find(|(of, ..)| *of == dtype).map(|(_, least, most)| (*least, *most));
        let (least, most) = known.unwrap_or_else(|| {
            let (least, most) = (b.scalar(dtype, -limit), b.scalar(dtype, limit));
            bounds.push((dtype, least, most));
            (least, most)
        });
        clipped.push(b.op("Clip", &[*grad, least, most], Attributes::none()));
    }
    clipped
}

/// Appends the clipping by norm and returns the clipped gradients.
pub(super) fn by_norm(b: &mut Builder, limit: f32, grads: &[ValueId]) -> Vec<ValueId> {
    b.enter(Origin::Update("gradients".into()), "clip");
    let mut squares = Vec::with_capacity(grads.len());
    for grad in grads {
        let square = b.op("ReduceSumSquare", &[*grad], Attributes::none().with("keepdims", 0));
        squares.push(if b.dtype(square) == DType::F32 { square } else { b.cast(square, DType::F32) });
    }
    let total = b.op("Sum", &squares, Attributes::none());
    let norm = b.unary("Sqrt", total);
    let shifted = b.shift(norm, 1e-6);
    let limit = b.scalar(DType::F32, f64::from(limit));
    let ratio = b.div(limit, shifted);
    let one = b.scalar(DType::F32, 1.0);
    let factor = b.op("Min", &[ratio, one], Attributes::none());
    let mut clipped = Vec::with_capacity(grads.len());
    for grad in grads {
        let dtype = b.dtype(*grad);
        let factor = if dtype == DType::F32 { factor } else { b.cast(factor, dtype) };
        clipped.push(b.mul(*grad, factor));
    }
    clipped
}
