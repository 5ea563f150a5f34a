//! `ai.onnx.preview.training.Adagrad`, version 1
//!
//! ```text
//! r = R / (1 + T decay_factor)
//! g = norm_coefficient X + G
//! H = H + g^2
//! X = X - r g / (sqrt(H) + epsilon)
//! ```
//! <https://onnx.ai/onnx/operators/onnx_aionnxpreviewtraining_Adagrad.html>

use super::rule::{Coefficients, Scalars, regularized};
use crate::graph::{Builder, ValueId};

/// Appends `r`, in float64.
pub(super) fn rate(c: &Coefficients, b: &mut Builder, r: ValueId, t: ValueId) -> ValueId {
    if c.decay_factor == 0.0 {
        return r;
    }
    let decay = b.scale(t, c.decay_factor);
    let divisor = b.shift(decay, 1.0);
    b.div(r, divisor)
}

/// Appends the update of one `X, G, H`.
pub(super) fn step(c: &Coefficients, b: &mut Builder, scalars: &Scalars, tensors: &[ValueId]) -> Vec<ValueId> {
    let &[x, g, h] = tensors else { unreachable!("invariant: three tensors for each parameter") };
    let g = regularized(c, b, x, g);
    let square = b.mul(g, g);
    let h = b.add(h, square);
    let root = b.unary("Sqrt", h);
    let scale = b.shift(root, c.epsilon);
    let step = b.mul(scalars.rate, g);
    let change = b.div(step, scale);
    vec![b.sub(x, change), h]
}
