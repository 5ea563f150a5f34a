//! SGD
//!
//! ```text
//! g = grad + weight_decay p
//! v = momentum v + g                      only with momentum
//! u = g + momentum v  (nesterov), else v  g without momentum
//! p = p - lr u
//! ```
//!
//! Slots: `momentum` (v, zeros), only with momentum. From zeros the first step gives `v = g`, as
//! in PyTorch.
//! <https://pytorch.org/docs/stable/generated/torch.optim.SGD.html>

use super::{Next, OptimizerSpec, SlotSpec, State};
use crate::graph::{Builder, ValueId};

/// Returns the slots.
pub(super) fn slots(spec: &OptimizerSpec) -> Vec<SlotSpec> {
    match spec.momentum() {
        0.0 => Vec::new(),
        _ => vec![SlotSpec { name: "momentum", scalar: false, initial: 0.0 }],
    }
}

/// Appends the update of one parameter.
pub(super) fn step(spec: &OptimizerSpec, b: &mut Builder, lr: ValueId, state: &State) -> Next {
    let grad = decayed(b, spec.weight_decay(), state);
    let mut slots = Vec::new();
    let mut update = grad;
    if let [velocity] = state.slots[..] {
        let kept = b.scale(velocity, spec.momentum());
        let velocity = b.add(kept, grad);
        slots.push(velocity);
        update = velocity;
        if spec.nesterov() {
            let ahead = b.scale(velocity, spec.momentum());
            update = b.add(grad, ahead);
        }
    }
    let change = b.mul(update, lr);
    Next { value: b.sub(state.value, change), slots }
}

/// Appends `grad + weight_decay p`.
pub(super) fn decayed(b: &mut Builder, weight_decay: f64, state: &State) -> ValueId {
    if weight_decay == 0.0 {
        return state.grad;
    }
    let pull = b.scale(state.value, weight_decay);
    b.add(state.grad, pull)
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
        if let [v] = slots {
            *v = momentum * *v + g;
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
        let clip = |limit| OptimizerSpec { clip_norm: Some(limit), ..decay(&nesterov) };
        check(&[
            Case::new("plain", &spec, scalar),
            Case::new("momentum", &momentum, scalar),
            Case::new("nesterov", &nesterov, scalar),
            Case::new("decay", &decay(&spec), scalar),
            Case::new("momentum, decay", &decay(&momentum), scalar),
            Case::new("nesterov, decay", &decay(&nesterov), scalar),
            Case::new("clipped", &clip(0.5), scalar),
            Case::new("limit not reached", &clip(100.0), scalar),
        ]);
    }
}
