//! Gradients of a scaled loss.
//!
//! In float16 a small gradient is 0. The train graph of a model that is prepared so reads `loss.scale`, a float32 scalar,
//! computes the gradients of `loss.scale loss`, and gives `P.grad = gradient (1 / loss.scale)`, computed in the dtype
//! of the parameter. What is done with gradients after that (adding up, clipping, the update) does not see the scale.

use super::{Prepared, names};
use crate::graph::{Builder, DType, Fact, Origin, ValueId};

/// The scale of a train graph under construction.
pub(super) struct Scale {
    /// The input.
    scale: ValueId,
    /// Its inverse by dtype.
    inverse: Vec<(DType, ValueId)>,
}

impl Scale {
    /// Appends the input, where the loss is scaled.
    pub(super) fn of(prepared: &Prepared, b: &mut Builder) -> Option<Scale> {
        let scale = prepared.scaled.then(|| b.input(names::SCALE, Fact::fixed(DType::F32, &[])))?;
        Some(Scale { scale, inverse: Vec::new() })
    }

    /// Returns the scale in the dtype of a loss.
    pub(super) fn like(&self, b: &mut Builder, loss: ValueId) -> ValueId {
        let dtype = b.dtype(loss);
        b.enter(Origin::Backward(names::LOSS.into()), "loss/grad");
        if dtype == DType::F32 { self.scale } else { b.cast(self.scale, dtype) }
    }

    /// Appends the division of a parameter's gradient and returns it.
    pub(super) fn divided(&mut self, b: &mut Builder, parameter: &str, grad: ValueId) -> ValueId {
        let dtype = b.dtype(grad);
        let known = self.inverse.iter().find(|(of, _)| *of == dtype).map(|(_, inverse)| *inverse);
        let inverse = known.unwrap_or_else(|| {
            b.enter(Origin::Update("gradients".into()), names::SCALE);
            let inverse = b.unary("Reciprocal", self.scale);
            let inverse = if dtype == DType::F32 { inverse } else { b.cast(inverse, dtype) };
            self.inverse.push((dtype, inverse));
            inverse
        });
        b.enter(Origin::Update(parameter.into()), &format!("{parameter}/unscale"));
        let fact = b.fact(grad).clone();
        let own = b.mul(grad, inverse);
        b.refine(own, &fact);
        own
    }
}
