//! Adam
//!
//! ```text
//! g = grad + weight_decay p
//! m = beta1 m + (1 - beta1) g
//! v = beta2 v + (1 - beta2) g^2
//! w = max(w, v)  (amsgrad), else v
//! t = t + 1
//! p = p - lr / (1 - beta1^t) m / (sqrt(w / (1 - beta2^t)) + eps)
//! ```
//!
//! Slots: `exp_avg` (m) and `exp_avg_sq` (v), zeros, with amsgrad `max_exp_avg_sq` (w), zeros, and
//! `step` (t), a float32 number from 0. With `decoupled_weight_decay` the update is that of AdamW.
//!
//! `1 - beta^t` loses its digits in float32 while `beta^t` is near 1, so it is built as
//! `2 u / (1 + u)` with `u = tanh(-t ln(beta) / 2)`, which is the same and keeps them.
//! <https://pytorch.org/docs/stable/generated/torch.optim.Adam.html>

use super::{Next, OptimizerSpec, SlotSpec, State, blend, decayed};
use crate::graph::{Attributes, Builder, DType, ValueId};

/// Returns the slots.
pub(super) fn slots(spec: &OptimizerSpec) -> Vec<SlotSpec> {
    let mut slots = vec![SlotSpec::zeros("exp_avg"), SlotSpec::zeros("exp_avg_sq")];
    slots.extend(spec.amsgrad().then(|| SlotSpec::zeros("max_exp_avg_sq")));
    slots.push(SlotSpec::count());
    slots
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
    let &[average, squares, ref largest @ .., count] = state.slots.as_slice() else {
        unreachable!("invariant: made with the slots of this file");
    };
    let [beta1, beta2] = spec.betas();
    let square = b.mul(grad, grad);
    let average = blend(b, average, grad, beta1);
    let squares = blend(b, squares, square, beta2);
    let mut slots = vec![average, squares];
    for largest in largest {
        slots.push(b.op("Max", &[*largest, squares], Attributes::none()));
    }
    let divisor = slots.last().copied().unwrap_or(squares);
    let count = b.shift(count, 1.0);
    slots.push(count);
    let dtype = b.dtype(start);
    let steps = if dtype == DType::F32 { count } else { b.cast(count, dtype) };
    let rate = match correction(b, steps, beta1) {
        Some(correction) => b.div(lr, correction),
        None => lr,
    };
    let mut root = b.unary("Sqrt", divisor);
    if let Some(correction) = correction(b, steps, beta2) {
        let correction = b.unary("Sqrt", correction);
        root = b.div(root, correction);
    }
    let scale = b.shift(root, spec.eps());
    let numerator = b.mul(average, rate);
    let change = b.div(numerator, scale);
    Next { value: b.sub(start, change), slots }
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
        let [m, v, largest @ .., t] = slots else { unreachable!() };
        let [beta1, beta2] = spec.betas();
        let g = grad + spec.weight_decay() * p;
        *m = beta1 * *m + (1.0 - beta1) * g;
        *v = beta2 * *v + (1.0 - beta2) * g * g;
        let mut w = *v;
        for largest in largest {
            *largest = largest.max(*v);
            w = *largest;
        }
        *t += 1.0;
        p - lr / (1.0 - beta1.powf(*t)) * *m / ((w / (1.0 - beta2.powf(*t))).sqrt() + spec.eps())
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
            Case::new("amsgrad", &OptimizerSpec { amsgrad: Some(true), ..betas([0.5, 0.1]) }, scalar),
            Case::new("after 20000 steps", &spec, scalar).starting_at(20000.0),
        ]);
    }
}
