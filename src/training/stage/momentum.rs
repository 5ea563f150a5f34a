//! `ai.onnx.preview.training.Momentum`, version 1
//!
//! ```text
//! g = norm_coefficient X + G
//! V = alpha V + (T > 0 ? beta : 1) g
//! X = X - R V                  mode "standard"
//! X = X - R (g + alpha V)      mode "nesterov", with the new V
//! ```
//! <https://onnx.ai/onnx/operators/onnx_aionnxpreviewtraining_Momentum.html>

use super::rule::{Coefficients, Scalars, regularized};
use crate::graph::{Builder, ValueId};

/// Appends the factor of the gradient, in float64; `None` where it is 1 in every step.
pub(super) fn factor(c: &Coefficients, b: &mut Builder, t: ValueId) -> Option<ValueId> {
    if c.beta == 1.0 {
        return None;
    }
    let later = b.compare("Greater", t, 0.0);
    let (beta, one) = (b.like(t, c.beta), b.like(t, 1.0));
    Some(b.select(later, beta, one))
}

/// Appends the update of one `X, G, V`.
pub(super) fn step(c: &Coefficients, b: &mut Builder, scalars: &Scalars, tensors: &[ValueId]) -> Vec<ValueId> {
    let &[x, g, v] = tensors else { unreachable!("invariant: three tensors for each parameter") };
    let g = regularized(c, b, x, g);
    let kept = b.scale(v, c.alpha);
    let added = match scalars.factor {
        Some(factor) => b.mul(factor, g),
        None => g,
    };
    let v = b.add(kept, added);
    let direction = if c.nesterov {
        let ahead = b.scale(v, c.alpha);
        b.add(g, ahead)
    } else {
        v
    };
    let change = b.mul(scalars.rate, direction);
    vec![b.sub(x, change), v]
}
