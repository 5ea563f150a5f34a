//! Stochastic gradient descent.
//!
//! ```text
//! g = grad + p weight_decay               only with weight decay
//! v = v momentum + g dampened             only with momentum; without the factor where it is `None`
//! u = g + v momentum  (nesterov), else v  g without momentum
//! p = p - u lr
//! ```

use super::by_chunks;
use crate::exec::Exec;
use crate::lanes::{each, get, put};
use crate::pool::Shared;
use crate::simd::{Simd, Task, dispatch_at};
use std::ops::Range;

/// What all tensors share.
#[derive(Clone, Copy, Debug)]
pub struct Sgd {
    /// Factor of the velocity.
    pub momentum: f32,
    /// Looks ahead.
    pub nesterov: bool,
}

/// A parameter and what belongs to it.
#[derive(Debug)]
pub struct SgdTensor<'a> {
    /// The parameter.
    pub value: &'a mut [f32],
    /// Its gradient.
    pub grad: &'a [f32],
    /// Its velocity, only with momentum.
    pub velocity: Option<&'a mut [f32]>,
    /// The learning rate.
    pub lr: f32,
    /// Weight decay.
    pub weight_decay: f32,
    /// `1 - dampening`, from the second step on.
    pub dampened: Option<f32>,
}

struct Held<'a> {
    value: Shared<f32>,
    grad: &'a [f32],
    velocity: Option<Shared<f32>>,
    lr: f32,
    weight_decay: f32,
    dampened: Option<f32>,
}

struct Part<'a> {
    sgd: Sgd,
    held: &'a Held<'a>,
    range: Range<usize>,
}

impl Task for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Part { sgd, held, range } = self;
        let (start, len) = (range.start, range.len());
        // SAFETY: the lengths were checked; tasks have ranges of their own.
        unsafe {
            let p = held.value.part(start, len).as_mut_ptr();
            let grad = held.grad[range].as_ptr();
            let velocity = held.velocity.map(|velocity| velocity.part(start, len).as_mut_ptr());
            let (lr, decay, momentum) = (S::splat(held.lr), S::splat(held.weight_decay), S::splat(sgd.momentum));
            each!(S, len, |at, count| {
                let value = get::<S>(p, at, count);
                let mut g = get::<S>(grad, at, count);
                if held.weight_decay != 0.0 {
                    g = S::add(g, S::mul(value, decay));
                }
                let mut update = g;
                if let Some(velocity) = velocity {
                    let added = match held.dampened {
                        Some(factor) => S::mul(g, S::splat(factor)),
                        None => g,
                    };
                    let v = S::add(S::mul(get::<S>(velocity, at, count), momentum), added);
                    put::<S>(velocity, at, count, v);
                    update = if sgd.nesterov { S::add(g, S::mul(v, momentum)) } else { v };
                }
                put::<S>(p, at, count, S::sub(value, S::mul(update, lr)));
            });
        }
    }
}

impl Sgd {
    /// Updates the parameters and their velocities.
    ///
    /// # Panics
    /// When slices of a tensor have different lengths.
    pub fn step(self, exec: Exec<'_>, tensors: &mut [SgdTensor<'_>]) {
        let held: Vec<Held<'_>> = tensors
            .iter_mut()
            .map(|tensor| {
                let len = tensor.value.len();
                let velocity = tensor.velocity.as_deref_mut();
                assert!(tensor.grad.len() == len && velocity.as_ref().is_none_or(|v| v.len() == len), "one length");
                Held {
                    value: Shared::of(tensor.value),
                    grad: tensor.grad,
                    velocity: velocity.map(Shared::of),
                    lr: tensor.lr,
                    weight_decay: tensor.weight_decay,
                    dampened: tensor.dampened,
                }
            })
            .collect();
        by_chunks(exec.pool, held.iter().map(|held| held.grad.len()), &|tensor, range| {
            dispatch_at(exec.level, Part { sgd: self, held: &held[tensor], range });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{everywhere, numbers};

    #[test]
    fn the_same_bits_as_operations_one_by_one() {
        for (momentum, nesterov, weight_decay, dampened) in
            [(0.0, false, 0.0, None), (0.9, false, 5e-4, None), (0.9, true, 0.01, None), (0.5, true, 0.0, Some(0.75))]
        {
            let lengths = [5_usize, 40_000, 1, 16];
            let make = |salt: u64| -> Vec<Vec<f32>> {
                lengths.iter().enumerate().map(|(at, len)| numbers(*len, salt + at as u64, 1.0)).collect()
            };
            let (values, grads, velocities, lr) = (make(10), make(20), make(30), 0.1_f32);
            let mut expected = Vec::new();
            for ((p, g), v) in values.iter().zip(&grads).zip(&velocities) {
                for ((p, g), v) in p.iter().zip(g).zip(v) {
                    let g = if weight_decay == 0.0 { *g } else { g + p * weight_decay };
                    let mut u = g;
                    if momentum != 0.0 {
                        let v = v * momentum + dampened.map_or(g, |factor| g * factor);
                        u = if nesterov { g + v * momentum } else { v };
                        expected.push(v);
                    }
                    expected.push(p - u * lr);
                }
            }
            for (level, found) in everywhere(|exec| {
                let (mut values, mut velocities) = (values.clone(), velocities.clone());
                let states = values.iter_mut().zip(&grads).zip(&mut velocities);
                let mut tensors: Vec<SgdTensor<'_>> = states
                    .map(|((value, grad), velocity)| SgdTensor {
                        value,
                        grad,
                        velocity: (momentum != 0.0).then_some(velocity),
                        lr,
                        weight_decay,
                        dampened,
                    })
                    .collect();
                Sgd { momentum, nesterov }.step(exec, &mut tensors);
                let mut found = Vec::new();
                for (p, v) in values.iter().flatten().zip(velocities.iter().flatten()) {
                    found.extend((momentum != 0.0).then_some(*v));
                    found.push(*p);
                }
                found
            }) {
                assert!(found == expected, "{level}");
            }
        }
    }
}
