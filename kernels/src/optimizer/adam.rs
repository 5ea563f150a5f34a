//! Adam and AdamW.
//!
//! ```text
//! g = grad + p weight_decay                                  Adam
//! p = p (lr (-weight_decay) + 1)                             AdamW
//! m = m beta1 + g (1 - beta1)
//! v = v beta2 + g^2 (1 - beta2)
//! w = max(w, v)  (amsgrad), else v
//! p = p - m rate / (sqrt(w) / root + eps)
//! ```
//!
//! `rate = lr / (1 - beta1^t)`, `root = sqrt(1 - beta2^t)`, t the number of the step, from 1.

use super::by_chunks;
use crate::exec::Exec;
use crate::lanes::{each, get, put};
use crate::pool::Shared;
use crate::simd::{Simd, Task, dispatch_at};
use std::ops::Range;

/// A running average.
#[derive(Clone, Copy, Debug)]
pub struct Average {
    /// beta
    pub keep: f32,
    /// `1 - beta`
    pub add: f32,
    /// `-ln(beta) / 2`, infinite for beta 0.
    pub exponent: f32,
}

impl Average {
    /// Returns that of a beta in [0, 1).
    pub fn of(beta: f64) -> Average {
        Average { keep: beta as f32, add: (1.0 - beta) as f32, exponent: (-0.5 * beta.ln()) as f32 }
    }

    /// Returns `1 - beta^step`, as the graphs compute it: `2 u / (u + 1)`, `u = tanh(step exponent)`.
    pub fn correction(&self, step: f32) -> f32 {
        let u = (step * self.exponent).tanh();
        (u + u) / (u + 1.0)
    }
}

/// What all tensors share.
#[derive(Clone, Copy, Debug)]
pub struct Adam {
    /// Those of the gradient and of its square.
    pub averages: [Average; 2],
    /// Added to the root.
    pub eps: f32,
    /// Weight decay acts on the parameter, not on the gradient: AdamW.
    pub decoupled: bool,
}

/// A parameter and what belongs to it.
#[derive(Debug)]
pub struct AdamTensor<'a> {
    /// The parameter.
    pub value: &'a mut [f32],
    /// Its gradient.
    pub grad: &'a [f32],
    /// m
    pub average: &'a mut [f32],
    /// v
    pub squares: &'a mut [f32],
    /// w, only with amsgrad.
    pub largest: Option<&'a mut [f32]>,
    /// The number of the step, from 1.
    pub step: f32,
    /// The learning rate.
    pub lr: f32,
    /// Weight decay.
    pub weight_decay: f32,
}

struct Held<'a> {
    value: Shared<f32>,
    grad: &'a [f32],
    average: Shared<f32>,
    squares: Shared<f32>,
    largest: Option<Shared<f32>>,
    rate: f32,
    root: f32,
    pull: f32,
    kept: Option<f32>,
}

struct Part<'a> {
    adam: Adam,
    held: &'a Held<'a>,
    range: Range<usize>,
}

impl Task for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Part { adam, held, range } = self;
        let (start, len) = (range.start, range.len());
        let [first, second] = adam.averages;
        // SAFETY: the lengths were checked; tasks have ranges of their own.
        unsafe {
            let grad = held.grad[range].as_ptr();
            let part = |shared: Shared<f32>| shared.part(start, len).as_mut_ptr();
            let (p, m, v) = (part(held.value), part(held.average), part(held.squares));
            let largest = held.largest.map(part);
            let (keep1, add1) = (S::splat(first.keep), S::splat(first.add));
            let (keep2, add2) = (S::splat(second.keep), S::splat(second.add));
            let (rate, eps, pull) = (S::splat(held.rate), S::splat(adam.eps), S::splat(held.pull));
            let correction = S::splat(held.root);
            each!(S, len, |at, count| {
                let mut value = get::<S>(p, at, count);
                let mut g = get::<S>(grad, at, count);
                if held.pull != 0.0 {
                    g = S::add(g, S::mul(value, pull));
                }
                if let Some(kept) = held.kept {
                    value = S::mul(value, S::splat(kept));
                }
                let average = S::add(S::mul(get::<S>(m, at, count), keep1), S::mul(g, add1));
                put::<S>(m, at, count, average);
                let squares = S::add(S::mul(get::<S>(v, at, count), keep2), S::mul(S::mul(g, g), add2));
                put::<S>(v, at, count, squares);
                let mut most = squares;
                if let Some(largest) = largest {
                    most = S::max(get::<S>(largest, at, count), squares);
                    put::<S>(largest, at, count, most);
                }
                let root = S::div(S::sqrt(most), correction);
                let change = S::div(S::mul(average, rate), S::add(root, eps));
                put::<S>(p, at, count, S::sub(value, change));
            });
        }
    }
}

impl Adam {
    /// Updates the parameters and their averages.
    ///
    /// # Panics
    /// When slices of a tensor have different lengths.
    pub fn step(self, exec: Exec<'_>, tensors: &mut [AdamTensor<'_>]) {
        let [first, second] = self.averages;
        let held: Vec<Held<'_>> = tensors
            .iter_mut()
            .map(|tensor| {
                let len = tensor.value.len();
                let lengths = [tensor.grad.len(), tensor.average.len(), tensor.squares.len()];
                let largest = tensor.largest.as_deref_mut();
                assert!(lengths == [len; 3] && largest.as_ref().is_none_or(|largest| largest.len() == len));
                let decay = tensor.weight_decay;
                Held {
                    value: Shared::of(tensor.value),
                    grad: tensor.grad,
                    average: Shared::of(tensor.average),
                    squares: Shared::of(tensor.squares),
                    largest: largest.map(Shared::of),
                    rate: tensor.lr / first.correction(tensor.step),
                    root: second.correction(tensor.step).sqrt(),
                    pull: if self.decoupled { 0.0 } else { decay },
                    kept: (self.decoupled && decay != 0.0).then(|| tensor.lr * -decay + 1.0),
                }
            })
            .collect();
        by_chunks(exec.pool, held.iter().map(|held| held.grad.len()), &|tensor, range| {
            dispatch_at(exec.level, Part { adam: self, held: &held[tensor], range });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{everywhere, numbers};

    struct Case {
        betas: [f64; 2],
        decoupled: bool,
        weight_decay: f32,
        amsgrad: bool,
        step: f32,
    }

    /// The pseudo-code of the head, each operation rounded.
    fn element(case: &Case, lr: f32, p: f32, g: f32, [m, v, w]: [f32; 3]) -> [f32; 4] {
        let [beta1, beta2] = case.betas;
        let whole = |beta: f64| 1.0 - beta.powf(f64::from(case.step));
        let mut p = p;
        let mut g = g;
        if case.decoupled && case.weight_decay != 0.0 {
            p *= lr * -case.weight_decay + 1.0;
        } else if case.weight_decay != 0.0 {
            g += p * case.weight_decay;
        }
        let m = m * beta1 as f32 + g * (1.0 - beta1) as f32;
        let v = v * beta2 as f32 + g * g * (1.0 - beta2) as f32;
        let w = if case.amsgrad { w.max(v) } else { w };
        let root = if case.amsgrad { w } else { v }.sqrt();
        let (rate, correction) = (f64::from(lr) / whole(beta1), whole(beta2).sqrt());
        let change = (f64::from(m) * rate) / (f64::from(root) / correction + 1e-8);
        [(f64::from(p) - change) as f32, m, v, w]
    }

    #[test]
    fn steps() {
        let cases = [
            Case { betas: [0.9, 0.999], decoupled: true, weight_decay: 0.01, amsgrad: false, step: 1.0 },
            Case { betas: [0.9, 0.999], decoupled: false, weight_decay: 0.1, amsgrad: true, step: 7.0 },
            Case { betas: [0.0, 0.5], decoupled: true, weight_decay: 0.0, amsgrad: false, step: 20000.0 },
        ];
        for case in cases {
            let lengths = [5_usize, 40_000, 1, 16];
            let make = |salt: u64| -> Vec<Vec<f32>> {
                lengths.iter().enumerate().map(|(at, len)| numbers(*len, salt + at as u64, 1.0)).collect()
            };
            let squared = |salt: u64| -> Vec<Vec<f32>> {
                make(salt).into_iter().map(|all| all.into_iter().map(|x| x * x).collect()).collect()
            };
            let states = [make(10), make(30), squared(40), squared(50)];
            let (grads, lr) = (make(20), 0.01_f32);
            let at = |of: &[Vec<Vec<f32>>; 4], tensor: usize, place: usize| -> [f32; 4] {
                std::array::from_fn(|which| of[which][tensor][place])
            };
            for (level, found) in everywhere(|exec| {
                let mut made = states.clone();
                let [p, m, v, w] = &mut made;
                let tensors = p.iter_mut().zip(&grads).zip(m).zip(v).zip(w);
                let mut tensors: Vec<AdamTensor<'_>> = tensors
                    .map(|((((value, grad), average), squares), largest)| AdamTensor {
                        value,
                        grad,
                        average,
                        squares,
                        largest: case.amsgrad.then_some(largest),
                        step: case.step,
                        lr,
                        weight_decay: case.weight_decay,
                    })
                    .collect();
                Adam { averages: case.betas.map(Average::of), eps: 1e-8, decoupled: case.decoupled }
                    .step(exec, &mut tensors);
                made.into_iter().flatten().flatten().collect()
            }) {
                let mut rest = found.as_slice();
                let made = [(); 4].map(|()| {
                    lengths.map(|len| {
                        let (own, others) = rest.split_at(len);
                        rest = others;
                        own.to_vec()
                    })
                });
                let made = made.map(Vec::from);
                for (tensor, len) in lengths.into_iter().enumerate() {
                    for (place, grad) in grads[tensor].iter().enumerate().take(len) {
                        let [p, m, v, w] = at(&states, tensor, place);
                        let expected = element(&case, lr, p, *grad, [m, v, w]);
                        let found = at(&made, tensor, place);
                        assert_eq!(found[1..], expected[1..], "{level}");
                        let near = (found[0] - expected[0]).abs() <= 2e-6 * (p - found[0]).abs() + 1.8e-7 * p.abs();
                        assert!(near, "{level}: {} instead of {}", found[0], expected[0]);
                    }
                }
            }
        }
    }

    #[test]
    fn corrections() {
        for step in [1.0, 2.0, 100.0, 20000.0] {
            for beta in [0.9, 0.999, 0.99999] {
                let expected = 1.0 - f64::powf(beta, f64::from(step));
                let found = f64::from(Average::of(beta).correction(step));
                assert!((found / expected - 1.0).abs() < 5e-7, "{step}, {beta}");
            }
        }
        assert_eq!(Average::of(0.0).correction(3.0), 1.0);
    }
}
