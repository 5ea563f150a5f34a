//! `ai.onnx.preview.training.Adam`, version 1
//!
//! ```text
//! g = norm_coefficient X + G
//! V = alpha V + (1 - alpha) g
//! H = beta H + (1 - beta) g^2
//! r = T > 0 ? R sqrt(1 - beta^T) / (1 - alpha^T) : R
//! X = (1 - norm_coefficient_post) (X - r V / (sqrt(H) + epsilon))
//! ```
//!
//! `T` counts finished updates, so the first one is not corrected for bias; and `epsilon` is added
//! to the root before that correction. Both differ from PyTorch's Adam.
//! <https://onnx.ai/onnx/operators/onnx_aionnxpreviewtraining_Adam.html>

use super::rule::{Coefficients, Scalars, regularized};
use crate::graph::{Builder, ValueId};

/// Appends `r`, in float64.
pub(super) fn rate(c: &Coefficients, b: &mut Builder, r: ValueId, t: ValueId) -> ValueId {
    let rest = |b: &mut Builder, base: f64| {
        let base = b.like(t, base);
        let power = b.op("Pow", &[base, t], crate::graph::Attributes::none());
        let one = b.like(t, 1.0);
        b.sub(one, power)
    };
    let squares = rest(b, c.beta);
    let root = b.unary("Sqrt", squares);
    let average = rest(b, c.alpha);
    let numerator = b.mul(r, root);
    let corrected = b.div(numerator, average);
    let later = b.compare("Greater", t, 0.0);
    b.select(later, corrected, r)
}

/// Appends the update of one `X, G, V, H`.
pub(super) fn step(c: &Coefficients, b: &mut Builder, scalars: &Scalars, tensors: &[ValueId]) -> Vec<ValueId> {
    let &[x, g, v, h] = tensors else { unreachable!("invariant: four tensors for each parameter") };
    let g = regularized(c, b, x, g);
    let v = blend(b, v, g, c.alpha);
    let square = b.mul(g, g);
    let h = blend(b, h, square, c.beta);
    let root = b.unary("Sqrt", h);
    let scale = b.shift(root, c.epsilon);
    let direction = b.div(v, scale);
    let change = b.mul(scalars.rate, direction);
    let mut next = b.sub(x, change);
    if c.norm_coefficient_post != 0.0 {
        next = b.scale(next, 1.0 - c.norm_coefficient_post);
    }
    vec![next, v, h]
}

fn blend(b: &mut Builder, old: ValueId, new: ValueId, kept: f64) -> ValueId {
    let old = b.scale(old, kept);
    let new = b.scale(new, 1.0 - kept);
    b.add(old, new)
}
