//! Lion
//!
//! ```text
//! p = p (1 - lr weight_decay)
//! p = p - lr sign(beta1 m + (1 - beta1) grad)
//! m = beta2 m + (1 - beta2) grad
//! ```
//!
//! Slots: `exp_avg` (m), zeros.
//! Chen et al., Symbolic Discovery of Optimization Algorithms: <https://arxiv.org/abs/2302.06675>

use super::{Next, OptimizerSpec, SlotSpec, State, blend, shrunk};
use crate::graph::{Builder, ValueId};

/// Returns the slots.
pub(super) fn slots() -> Vec<SlotSpec> {
    vec![SlotSpec::zeros("exp_avg")]
}

/// Appends the update of one parameter.
pub(super) fn step(spec: &OptimizerSpec, b: &mut Builder, lr: ValueId, state: &State) -> Next {
    let [average] = state.slots[..] else {
        unreachable!("invariant: made with the slots of this file");
    };
    let [beta1, beta2] = spec.betas();
    let start = shrunk(b, spec.weight_decay(), lr, state);
    // In place: the blend `c` of the step must come before the node that writes the average, which is
    // `beta2 m + (1 - beta2) g = c + (beta2 - beta1) (m - g)`.
    let own = blend(b, average, state.grad, beta1);
    let direction = b.unary("Sign", own);
    let change = b.mul(direction, lr);
    let apart = b.sub(average, state.grad);
    let moved = b.scale(apart, beta2 - beta1);
    let average = b.add(own, moved);
    Next { value: b.sub(start, change), slots: vec![average] }
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::optim::testing::{Case, check};
    use crate::optim::{OptimizerKind, OptimizerSpec};

    /// The pseudo-code of the head for one number.
    fn scalar(spec: &OptimizerSpec, p: f64, g: f64, slots: &mut [f64], lr: f64) -> f64 {
        let [m] = slots else { unreachable!() };
        let [beta1, beta2] = spec.betas();
        let c = beta1 * *m + (1.0 - beta1) * g;
        *m = beta2 * *m + (1.0 - beta2) * g;
        p * (1.0 - lr * spec.weight_decay()) - lr * if c == 0.0 { 0.0 } else { c.signum() }
    }

    #[test]
    fn three_steps() {
        let spec = OptimizerSpec::new(OptimizerKind::Lion);
        check(&[
            Case::new("defaults", &spec, scalar),
            Case::new("decay", &OptimizerSpec { weight_decay: Some(0.5), ..spec.clone() }, scalar),
            Case::new("betas", &OptimizerSpec { betas: Some([0.95, 0.5]), ..spec.clone() }, scalar),
            Case::new("no averages", &OptimizerSpec { betas: Some([0.0, 0.0]), ..spec }, scalar),
        ]);
    }
}
