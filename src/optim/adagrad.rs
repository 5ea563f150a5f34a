//! Adagrad
//!
//! ```text
//! g = grad + weight_decay p
//! s = s + g^2
//! r = lr / (1 + t lr_decay)
//! t = t + 1                                 only with lr_decay
//! p = p - r g / (sqrt(s) + eps)
//! ```
//!
//! Slots: `sum` (s), filled with `initial_accumulator_value`, and `step` (t), a float32 number from
//! 0, only with `lr_decay`.
//! <https://pytorch.org/docs/stable/generated/torch.optim.Adagrad.html>

use super::{Next, OptimizerSpec, SlotSpec, State, decayed};
use crate::graph::{Builder, DType, ValueId};

/// Returns the slots.
pub(super) fn slots(spec: &OptimizerSpec) -> Vec<SlotSpec> {
    let mut slots = vec![SlotSpec { initial: spec.initial_accumulator_value(), ..SlotSpec::zeros("sum") }];
    slots.extend((spec.lr_decay() != 0.0).then(SlotSpec::count));
    slots
}

/// Appends the update of one parameter.
pub(super) fn step(spec: &OptimizerSpec, b: &mut Builder, lr: ValueId, state: &State) -> Next {
    let [sum, ref count @ ..] = state.slots[..] else {
        unreachable!("invariant: made with the slots of this file");
    };
    let grad = decayed(b, spec.weight_decay(), state);
    let square = b.mul(grad, grad);
    let sum = b.add(sum, square);
    let mut slots = vec![sum];
    let mut rate = lr;
    if let [count] = *count {
        let count = b.shift(count, 1.0);
        slots.push(count);
        let dtype = b.dtype(lr);
        let steps = b.shift(count, -1.0);
        let steps = if dtype == DType::F32 { steps } else { b.cast(steps, dtype) };
        let fall = b.scale(steps, spec.lr_decay());
        let divisor = b.shift(fall, 1.0);
        rate = b.div(lr, divisor);
    }
    let root = b.unary("Sqrt", sum);
    let divisor = b.shift(root, spec.eps());
    let direction = b.div(grad, divisor);
    let change = b.mul(direction, rate);
    Next { value: b.sub(state.value, change), slots }
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::optim::testing::{Case, check};
    use crate::optim::{OptimizerKind, OptimizerSpec};

    /// The pseudo-code of the head for one number.
    fn scalar(spec: &OptimizerSpec, p: f64, grad: f64, slots: &mut [f64], lr: f64) -> f64 {
        let [s, count @ ..] = slots else { unreachable!() };
        let g = grad + spec.weight_decay() * p;
        *s += g * g;
        let mut r = lr;
        for t in count {
            r = lr / (1.0 + *t * spec.lr_decay());
            *t += 1.0;
        }
        p - r * g / (s.sqrt() + spec.eps())
    }

    #[test]
    fn three_steps() {
        let spec = OptimizerSpec::new(OptimizerKind::Adagrad);
        let decay = OptimizerSpec { lr_decay: Some(0.25), ..spec.clone() };
        let first = OptimizerSpec { initial_accumulator_value: Some(0.5), eps: Some(0.01), ..decay.clone() };
        check(&[
            Case::new("defaults", &spec, scalar),
            Case::new("weight decay", &OptimizerSpec { weight_decay: Some(0.1), ..spec.clone() }, scalar),
            Case::new("rate decay", &decay, scalar),
            Case::new("rate decay, later", &decay, scalar).starting_at(100.0),
            Case::new("initial sum", &first, scalar),
        ]);
    }
}
