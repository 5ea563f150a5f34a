//! Gradient clipping by the norm of all gradients together
//!
//! `norm = sqrt(sum over parameters of sum(g^2))`; `g = g min(1, limit / (norm + 1e-6))`.
//! <https://pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html>

use crate::graph::{Attributes, Builder, DType, Origin, ValueId};

/// Appends the clipping and returns the clipped gradients.
pub(super) fn build(b: &mut Builder, limit: f32, grads: &[ValueId]) -> Vec<ValueId> {
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
