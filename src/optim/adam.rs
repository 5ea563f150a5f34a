//! Adam
//!
//! ```text
//! g = grad + weight_decay p
//! m = beta1 m + (1 - beta1) g
//! v = beta2 v + (1 - beta2) g^2
//! t = t + 1
//! p = p - lr / (1 - beta1^t) m / (sqrt(v / (1 - beta2^t)) + eps)
//! ```
//!
//! Slots: `exp_avg` (m) and `exp_avg_sq` (v), zeros, and `step` (t), a float32 number from 0.
//!
//! `1 - beta^t` loses its digits in float32 while `beta^t` is near 1, so it is built as
//! `2 u / (1 + u)` with `u = tanh(-t ln(beta) / 2)`, which is the same and keeps them.
//! <https://pytorch.org/docs/stable/generated/torch.optim.Adam.html>

use super::sgd::decayed;
use super::{Next, OptimizerSpec, SlotSpec, State};
use crate::graph::{Builder, DType, ValueId};

/// Returns the slots.
pub(super) fn slots() -> Vec<SlotSpec> {
    let zeros = |name, scalar| SlotSpec { name, scalar, initial: 0.0 };
    vec![zeros("exp_avg", false), zeros("exp_avg_sq", false), zeros("step", true)]
}

/// Appends the update of one parameter.
pub(super) fn step(spec: &OptimizerSpec, b: &mut Builder, lr: ValueId, state: &State) -> Next {
    let grad = decayed(b, spec.weight_decay(), state);
    adapted(spec, b, lr, state, state.value, grad)
}

/// Appends the averages and the step from `start`, the parameter or what decay left of it.
pub(super) fn adapted(
    spec: &OptimizerSpec,
    b: &mut Builder,
    lr: ValueId,
    state: &State,
    start: ValueId,
    grad: ValueId,
) -> Next {
    let &[average, squares, count] = state.slots.as_slice() else {
        unreachable!("invariant: made with the slots of this file");
    };
    let [beta1, beta2] = spec.betas();
    let square = b.mul(grad, grad);
    let average = blend(b, average, grad, beta1);
    let squares = blend(b, squares, square, beta2);
    let count = b.shift(count, 1.0);
    let dtype = b.dtype(start);
    let steps = if dtype == DType::F32 { count } else { b.cast(count, dtype) };
    let rate = match correction(b, steps, beta1) {
        Some(correction) => b.div(lr, correction),
        None => lr,
    };
    let mut root = b.unary("Sqrt", squares);
    if let Some(correction) = correction(b, steps, beta2) {
        let correction = b.unary("Sqrt", correction);
        root = b.div(root, correction);
    }
    let scale = b.shift(root, spec.eps());
    let numerator = b.mul(average, rate);
    let change = b.div(numerator, scale);
    Next { value: b.sub(start, change), slots: vec![average, squares, count] }
}

/// Appends `beta old + (1 - beta) new`.
fn blend(b: &mut Builder, old: ValueId, new: ValueId, beta: f64) -> ValueId {
    let kept = b.scale(old, beta);
    let added = b.scale(new, 1.0 - beta);
    b.add(kept, added)
}

/// Appends `1 - beta^t`; `None` for beta 0, where it is 1.
fn correction(b: &mut Builder, steps: ValueId, beta: f64) -> Option<ValueId> {
    if beta == 0.0 {
        return None;
    }
    let exponent = b.scale(steps, -0.5 * beta.ln());
    let u = b.unary("Tanh", exponent);
    let twice = b.add(u, u);
    let whole = b.shift(u, 1.0);
    Some(b.div(twice, whole))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::optim::testing::{Case, check};
    use crate::optim::{OptimizerKind, OptimizerSpec};

    /// The pseudo-code of the head for one number.
    fn scalar(spec: &OptimizerSpec, p: f64, grad: f64, slots: &mut [f64], lr: f64) -> f64 {
        let [m, v, t] = slots else { unreachable!() };
        let [beta1, beta2] = spec.betas();
        let g = grad + spec.weight_decay() * p;
        *m = beta1 * *m + (1.0 - beta1) * g;
        *v = beta2 * *v + (1.0 - beta2) * g * g;
        *t += 1.0;
        p - lr / (1.0 - beta1.powf(*t)) * *m / ((*v / (1.0 - beta2.powf(*t))).sqrt() + spec.eps())
    }

    #[test]
    fn three_steps() {
        let spec = OptimizerSpec::new(OptimizerKind::Adam);
        let betas = |betas| OptimizerSpec { betas: Some(betas), ..spec.clone() };
        check(&[
            Case::new("defaults", &spec, scalar),
            Case::new("decay", &OptimizerSpec { weight_decay: Some(0.1), ..spec.clone() }, scalar),
            Case::new("eps", &OptimizerSpec { eps: Some(0.1), ..spec.clone() }, scalar),
            Case::new("betas", &betas([0.5, 0.9]), scalar),
            Case::new("slow betas", &betas([0.9, 0.99999]), scalar),
            Case::new("no averages", &betas([0.0, 0.0]), scalar),
            Case::new("clipped", &OptimizerSpec { clip_norm: Some(0.5), ..spec.clone() }, scalar),
            Case::new("after 20000 steps", &spec, scalar).starting_at(20000.0),
        ]);
    }
}
