//! AdamW
//!
//! ```text
//! p = p (1 - lr weight_decay)
//! then as Adam without weight decay
//! ```
//!
//! Slots: those of Adam.
//! <https://pytorch.org/docs/stable/generated/torch.optim.AdamW.html>

use super::adam::adapted;
use super::{Next, OptimizerSpec, State, shrunk};
use crate::graph::{Builder, ValueId};

/// Appends the update of one parameter.
pub(super) fn step(spec: &OptimizerSpec, b: &mut Builder, lr: ValueId, state: &State) -> Next {
    let start = shrunk(b, spec.weight_decay(), lr, state);
    adapted(spec, b, lr, state, start, state.grad)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::optim::testing::{Case, check};
    use crate::optim::{OptimizerKind, OptimizerSpec};

    /// The pseudo-code of the head for one number.
    fn scalar(spec: &OptimizerSpec, p: f64, g: f64, slots: &mut [f64], lr: f64) -> f64 {
        let [m, v, t] = slots else { unreachable!() };
        let [beta1, beta2] = spec.betas();
        let p = p * (1.0 - lr * spec.weight_decay());
        *m = beta1 * *m + (1.0 - beta1) * g;
        *v = beta2 * *v + (1.0 - beta2) * g * g;
        *t += 1.0;
        p - lr / (1.0 - beta1.powf(*t)) * *m / ((*v / (1.0 - beta2.powf(*t))).sqrt() + spec.eps())
    }

    #[test]
    fn three_steps() {
        let spec = OptimizerSpec::new(OptimizerKind::AdamW);
        let decay = |decay| OptimizerSpec { weight_decay: Some(decay), ..spec.clone() };
        let adam = OptimizerSpec {
            decoupled_weight_decay: Some(true),
            weight_decay: Some(0.1),
            ..OptimizerSpec::new(OptimizerKind::Adam)
        };
        check(&[
            Case::new("adam, decoupled", &adam, scalar),
            Case::new("defaults", &spec, scalar),
            Case::new("no decay", &decay(0.0), scalar),
            Case::new("much decay", &decay(0.5), scalar),
            Case::new("betas, eps", &OptimizerSpec { betas: Some([0.5, 0.9]), eps: Some(0.1), ..spec.clone() }, scalar),
        ]);
    }
}
