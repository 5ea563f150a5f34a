//! SGD
//!
//! ```text
//! g = grad + weight_decay p
//! v = momentum v + (1 - dampening) g      only with momentum; v = g in the first step
//! u = g + momentum v  (nesterov), else v  g without momentum
//! t = t + 1                               only with dampening
//! p = p - lr u
//! ```
//!
//! Slots: `momentum` (v, zeros), only with momentum, and `step` (t), a float32 number from 0, only
//! with dampening. Without it the first step gives `v = g` from zeros.
//! <https://pytorch.org/docs/stable/generated/torch.optim.SGD.html>

use super::{Next, OptimizerSpec, SlotSpec, State, decayed};
use crate::graph::{Builder, DType, ValueId};

/// Returns the slots.
pub(super) fn slots(spec: &OptimizerSpec) -> Vec<SlotSpec> {
    let mut slots = Vec::new();
    slots.extend((spec.momentum() != 0.0).then(|| SlotSpec::zeros("momentum")));
    slots.extend((spec.dampening() != 0.0).then(SlotSpec::count));
    slots
}

/// Appends the update of one parameter.
pub(super) fn step(spec: &OptimizerSpec, b: &mut Builder, lr: ValueId, state: &State) -> Next {
    let grad = decayed(b, spec.weight_decay(), state);
    let mut slots = Vec::new();
    let mut update = grad;
    if let [velocity, ref count @ ..] = state.slots[..] {
        let kept = b.scale(velocity, spec.momentum());
        let count = count.first().map(|count| b.shift(*count, 1.0));
        let mut added = grad;
        if let Some(count) = count {
            let factor = dampened(b, spec.dampening(), count, grad);
            added = b.mul(grad, factor);
        }
        let velocity = b.add(kept, added);
        slots.push(velocity);
        slots.extend(count);
        update = velocity;
        if spec.nesterov() {
            let ahead = b.scale(velocity, spec.momentum());
            update = b.add(grad, ahead);
        }
    }
    let change = b.mul(update, lr);
    Next { value: b.sub(state.value, change), slots }
}

/// Appends `1 - dampening`, 1 where this is the first step, in the dtype of the gradient.
fn dampened(b: &mut Builder, dampening: f64, count: ValueId, grad: ValueId) -> ValueId {
    let begun = b.compare("Greater", count, 1.0);
    let (less, whole) = (b.scalar(DType::F32, 1.0 - dampening), b.scalar(DType::F32, 1.0));
    let factor = b.select(begun, less, whole);
    let dtype = b.dtype(grad);
    if dtype == DType::F32 { factor } else { b.cast(factor, dtype) }
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::optim::testing::{Case, check};
    use crate::optim::{OptimizerKind, OptimizerSpec};

    /// The pseudo-code of the head for one number.
    fn scalar(spec: &OptimizerSpec, p: f64, grad: f64, slots: &mut [f64], lr: f64) -> f64 {
        let momentum = spec.momentum.unwrap_or(0.0);
        let g = grad + spec.weight_decay.unwrap_or(0.0) * p;
        let mut u = g;
        if let [v, count @ ..] = slots {
            let first = count.contains(&0.0);
            *v = momentum * *v + if first { g } else { (1.0 - spec.dampening.unwrap_or(0.0)) * g };
            count.iter_mut().for_each(|count| *count += 1.0);
            u = if spec.nesterov == Some(true) { g + momentum * *v } else { *v };
        }
        p - lr * u
    }

    #[test]
    fn three_steps() {
        let spec = OptimizerSpec::new(OptimizerKind::Sgd);
        let momentum = OptimizerSpec { momentum: Some(0.9), ..spec.clone() };
        let nesterov = OptimizerSpec { nesterov: Some(true), ..momentum.clone() };
        let decay = |spec: &OptimizerSpec| OptimizerSpec { weight_decay: Some(0.1), ..spec.clone() };
        let dampened = OptimizerSpec { dampening: Some(0.3), ..decay(&momentum) };
        let clip = |limit| OptimizerSpec { clip_norm: Some(limit), ..decay(&nesterov) };
        check(&[
            Case::new("plain", &spec, scalar),
            Case::new("momentum", &momentum, scalar),
            Case::new("nesterov", &nesterov, scalar),
            Case::new("decay", &decay(&spec), scalar),
            Case::new("momentum, decay", &decay(&momentum), scalar),
            Case::new("nesterov, decay", &decay(&nesterov), scalar),
            Case::new("dampening", &dampened, scalar),
            Case::new("dampening, later", &dampened, scalar).starting_at(7.0),
            Case::new("clipped", &clip(0.5), scalar),
            Case::new("limit not reached", &clip(100.0), scalar),
            Case::new("clipped by value", &OptimizerSpec { clip_value: Some(0.3), ..decay(&nesterov) }, scalar),
            Case::new("clipped by value, then norm", &OptimizerSpec { clip_value: Some(0.3), ..clip(0.5) }, scalar),
        ]);
    }
}
