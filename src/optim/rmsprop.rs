//! RMSprop
//!
//! ```text
//! g = grad + weight_decay p
//! v = alpha v + (1 - alpha) g^2
//! m = alpha m + (1 - alpha) g               only centered
//! d = sqrt(v - m^2) + eps  (centered), else sqrt(v) + eps
//! u = momentum u + g / d  (with momentum), else g / d
//! p = p - lr u
//! ```
//!
//! Slots: `square_avg` (v), when centered `grad_avg` (m), with momentum `momentum` (u); all zeros.
//! A variance that rounding puts below 0 counts as 0.
//! <https://pytorch.org/docs/stable/generated/torch.optim.RMSprop.html>

use super::{Next, OptimizerSpec, SlotSpec, State, blend, decayed};
use crate::graph::{Attributes, Builder, ValueId};

/// Returns the slots.
pub(super) fn slots(spec: &OptimizerSpec) -> Vec<SlotSpec> {
    let mut slots = vec![SlotSpec::zeros("square_avg")];
    slots.extend(spec.centered().then(|| SlotSpec::zeros("grad_avg")));
    slots.extend((spec.momentum() != 0.0).then(|| SlotSpec::zeros("momentum")));
    slots
}

/// Appends the update of one parameter.
pub(super) fn step(spec: &OptimizerSpec, b: &mut Builder, lr: ValueId, state: &State) -> Next {
    let grad = decayed(b, spec.weight_decay(), state);
    let mut held = state.slots.iter().copied();
    let mut slot = || held.next().expect("invariant: made with the slots of this file");
    let square = b.mul(grad, grad);
    let squares = blend(b, slot(), square, spec.alpha());
    let mut slots = vec![squares];
    let mut variance = squares;
    if spec.centered() {
        let mean = blend(b, slot(), grad, spec.alpha());
        slots.push(mean);
        let square = b.mul(mean, mean);
        let difference = b.sub(squares, square);
        let zero = b.like(difference, 0.0);
        variance = b.op("Max", &[difference, zero], Attributes::none());
    }
    let root = b.unary("Sqrt", variance);
    let divisor = b.shift(root, spec.eps());
    let mut update = b.div(grad, divisor);
    if spec.momentum() != 0.0 {
        let kept = b.scale(slot(), spec.momentum());
        update = b.add(kept, update);
        slots.push(update);
    }
    let change = b.mul(update, lr);
    Next { value: b.sub(state.value, change), slots }
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::optim::testing::{Case, check};
    use crate::optim::{OptimizerKind, OptimizerSpec};

    /// The pseudo-code of the head for one number.
    fn scalar(spec: &OptimizerSpec, p: f64, grad: f64, slots: &mut [f64], lr: f64) -> f64 {
        let alpha = spec.alpha();
        let g = grad + spec.weight_decay() * p;
        let (v, rest) = slots.split_first_mut().unwrap();
        *v = alpha * *v + (1.0 - alpha) * g * g;
        let (mut variance, mut rest) = (*v, rest);
        if spec.centered() {
            let (m, after) = rest.split_first_mut().unwrap();
            *m = alpha * *m + (1.0 - alpha) * g;
            variance -= *m * *m;
            rest = after;
        }
        let mut u = g / (variance.sqrt() + spec.eps());
        if let [velocity] = rest {
            *velocity = spec.momentum() * *velocity + u;
            u = *velocity;
        }
        p - lr * u
    }

    #[test]
    fn three_steps() {
        let spec = OptimizerSpec::new(OptimizerKind::RmsProp);
        let momentum = OptimizerSpec { momentum: Some(0.9), ..spec.clone() };
        let centered = OptimizerSpec { centered: Some(true), alpha: Some(0.8), eps: Some(1e-3), ..spec.clone() };
        check(&[
            Case::new("defaults", &spec, scalar),
            Case::new("momentum", &momentum, scalar),
            Case::new("centered", &centered, scalar),
            Case::new("centered, momentum", &OptimizerSpec { momentum: Some(0.5), ..centered.clone() }, scalar),
            Case::new("decay, eps", &OptimizerSpec { weight_decay: Some(0.1), eps: Some(0.1), ..momentum }, scalar),
        ]);
    }
}
