//! Softmax and cross entropy as one, with class weights, an ignored index and label smoothing.
//!
//! Forward:  `loss = -sum_n((1 - e) w[t] p[n, t] + e / C sum_c(w[c] p[n, c])) / sum_n(w[t])` over the rows n whose
//!           target t is not ignored, `p = x - log_sum(x)`. A target that is no class makes it NaN; so does a batch in
//!           which no row counts.
//! Backward: `dx[n, c] = dloss ((1 - e) w[t] (q - (c == t)) + e / C (q sum(w) - w[c])) / sum_n(w[t])`, `q = exp(p)`;
//!           0 in ignored rows.
//! Shapes:   x `[rows, C]`, target `[rows]`, weights `[C]`, log_sum `[rows]`.

use crate::exec::Exec;
use crate::lanes::{by_rows, each, get, put, tasks};
use crate::math::exp;
use crate::pool::{Shared, split};
use crate::simd::{Simd, Task, dispatch_at};
use crate::softmax::summed;
use std::ops::Range;

/// What the loss depends on beside its inputs.
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropy<'a> {
    /// Number of classes.
    pub classes: usize,
    /// A factor of each class, 1 without.
    pub weights: Option<&'a [f32]>,
    /// Rows with this target do not count.
    pub ignore_index: i64,
    /// e, in [0, 1].
    pub smoothing: f32,
}

impl CrossEntropy<'_> {
    fn weight(&self, class: usize) -> f32 {
        self.weights.map_or(1.0, |weights| weights[class])
    }

    fn total(&self) -> f32 {
        self.weights.map_or(self.classes as f32, |weights| weights.iter().sum())
    }

    /// The class of a row; `None` where it does not count, an error where there is none.
    fn class(&self, target: i64) -> Result<Option<usize>, ()> {
        if target == self.ignore_index {
            return Ok(None);
        }
        let class = usize::try_from(target).map_err(|_| ())?;
        if class < self.classes { Ok(Some(class)) } else { Err(()) }
    }

    /// Returns the loss, and writes the logarithm of the sum of `exp(x)` of each row.
    ///
    /// # Panics
    /// When the lengths do not fit.
    pub fn forward(&self, exec: Exec<'_>, x: &[f32], target: &[i64], log_sum: &mut [f32]) -> f32 {
        self.check(x.len(), target.len(), log_sum.len());
        let rows = target.len();
        let count = tasks(rows, self.classes, 256);
        let mut parts = vec![[0.0_f64; 2]; count];
        let (shared, log_sum) = (Shared::of(&mut parts), Shared::of(log_sum));
        exec.pool.run(count, &|index| {
            let rows = split(rows, 1, count, index);
            let part = dispatch_at(exec.level, Forward { loss: self, rows, x, target, log_sum });
            // SAFETY: every task has an element of its own.
            unsafe { shared.part(index, 1)[0] = part };
        });
        let [score, weight] = parts.iter().fold([0.0, 0.0], |sum, part| [sum[0] + part[0], sum[1] + part[1]]);
        (-score / weight) as f32
    }

    /// Computes dx of a loss whose gradient is `dloss`.
    ///
    /// # Panics
    /// When the lengths do not fit.
    pub fn backward(&self, exec: Exec<'_>, x: &[f32], target: &[i64], log_sum: &[f32], dloss: f32, dx: &mut [f32]) {
        self.check(x.len(), target.len(), log_sum.len());
        assert_eq!(x.len(), dx.len(), "slices of one length");
        let mut weight = 0.0_f64;
        for target in target {
            weight += match self.class(*target) {
                Ok(class) => class.map_or(0.0, |class| f64::from(self.weight(class))),
                Err(()) => f64::NAN,
            };
        }
        let factor = (f64::from(dloss) / weight) as f32;
        let dx = Shared::of(dx);
        by_rows(exec.pool, target.len(), self.classes, &|rows| {
            dispatch_at(exec.level, Backward { loss: self, rows, x, target, log_sum, factor, dx });
        });
    }

    fn check(&self, x: usize, target: usize, log_sum: usize) {
        assert!(target.checked_mul(self.classes) == Some(x) && log_sum == target, "whole rows");
        assert!(self.weights.is_none_or(|weights| weights.len() == self.classes), "a weight of each class");
    }
}

struct Forward<'a> {
    loss: &'a CrossEntropy<'a>,
    rows: Range<usize>,
    x: &'a [f32],
    target: &'a [i64],
    log_sum: Shared<f32>,
}

impl Task for Forward<'_> {
    type Output = [f64; 2];

    #[inline(always)]
    fn run<S: Simd>(self) -> [f64; 2] {
        let Forward { loss, rows, x, target, log_sum } = self;
        let (classes, smoothing) = (loss.classes, f64::from(loss.smoothing));
        let mut sum = [0.0, 0.0];
        for row in rows {
            let x = &x[row * classes..][..classes];
            // SAFETY: the lengths were checked; every row belongs to one task.
            let log = unsafe {
                let (most, sum) = summed::<S>(x.as_ptr(), classes, None);
                let log = most + sum.ln();
                log_sum.part(row, 1)[0] = log;
                f64::from(log)
            };
            let Ok(class) = loss.class(target[row]) else {
                sum[1] = f64::NAN;
                continue;
            };
            let Some(class) = class else { continue };
            let weight = f64::from(loss.weight(class));
            sum[0] += (1.0 - smoothing) * weight * (f64::from(x[class]) - log);
            sum[1] += weight;
            if smoothing > 0.0 {
                let spread: f64 = match loss.weights {
                    Some(weights) => x.iter().zip(weights).map(|(x, w)| (f64::from(*x) - log) * f64::from(*w)).sum(),
                    None => x.iter().map(|x| f64::from(*x) - log).sum(),
                };
                sum[0] += smoothing / classes as f64 * spread;
            }
        }
        sum
    }
}

struct Backward<'a> {
    loss: &'a CrossEntropy<'a>,
    rows: Range<usize>,
    x: &'a [f32],
    target: &'a [i64],
    log_sum: &'a [f32],
    factor: f32,
    dx: Shared<f32>,
}

impl Task for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Backward { loss, rows, x, target, log_sum, factor, dx } = self;
        let classes = loss.classes;
        let share = loss.smoothing / classes as f32;
        for row in rows {
            // SAFETY: the lengths were checked; every row belongs to one task.
            unsafe {
                let dx = dx.part(row * classes, classes);
                let class = match loss.class(target[row]) {
                    Ok(Some(class)) => class,
                    Ok(None) => {
                        dx.fill(0.0);
                        continue;
                    }
                    Err(()) => {
                        dx.fill(f32::NAN);
                        continue;
                    }
                };
                let own = (1.0 - loss.smoothing) * loss.weight(class);
                let total = S::splat((own + share * loss.total()) * factor);
                let (x, log) = (x.as_ptr().add(row * classes), S::splat(log_sum[row]));
                let spread = S::splat(-share * factor);
                each!(S, classes, |at, count| {
                    let q = exp::<S>(S::sub(get::<S>(x, at, count), log));
                    let out = S::mul(q, total);
                    let weight = match loss.weights {
                        Some(weights) => get::<S>(weights.as_ptr(), at, count),
                        None => S::splat(1.0),
                    };
                    put::<S>(dx.as_mut_ptr(), at, count, S::fma(weight, spread, out));
                });
                dx[class] -= own * factor;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, numbers};

    fn log_probabilities(x: &[f32]) -> Vec<f64> {
        let most = x.iter().fold(f64::NEG_INFINITY, |most, x| most.max(f64::from(*x)));
        let log = most + x.iter().map(|x| (f64::from(*x) - most).exp()).sum::<f64>().ln();
        x.iter().map(|x| f64::from(*x) - log).collect()
    }

    fn formula(loss: &CrossEntropy<'_>, x: &[f32], target: &[i64]) -> f64 {
        let (mut score, mut weight) = (0.0, 0.0);
        let e = f64::from(loss.smoothing);
        for (x, t) in x.chunks(loss.classes).zip(target).filter(|(_, t)| **t != loss.ignore_index) {
            let p = log_probabilities(x);
            let w = |c: usize| loss.weights.map_or(1.0, |w| f64::from(w[c]));
            let spread: f64 = p.iter().enumerate().map(|(c, p)| w(c) * p).sum();
            score -= (1.0 - e) * w(*t as usize) * p[*t as usize] + e / p.len() as f64 * spread;
            weight += w(*t as usize);
        }
        score / weight
    }

    #[test]
    fn values_and_gradients() {
        for (rows, classes) in [(1, 1), (6, 5), (33, 17), (50, 1000)] {
            let x = numbers(rows * classes, 1, 5.0);
            let weights: Vec<f32> = numbers(classes, 2, 0.5).iter().map(|w| w + 1.0).collect();
            let target: Vec<i64> =
                (0..rows).map(|row| if row % 4 == 3 { -100 } else { (row * 7 % classes) as i64 }).collect();
            for weights in [None, Some(weights.as_slice())] {
                for smoothing in [0.0, 0.1] {
                    let loss = CrossEntropy { classes, weights, ignore_index: -100, smoothing };
                    check("loss", &[formula(&loss, &x, &target)], 1e-6, |exec| {
                        vec![loss.forward(exec, &x, &target, &mut vec![0.0; rows])]
                    });
                    let places: Vec<usize> = (0..x.len()).step_by(1 + x.len() / 60).collect();
                    let slope = |at: &usize| {
                        let at_step = |step: f32| {
                            let mut x = x.clone();
                            x[*at] += step;
                            (formula(&loss, &x, &target), f64::from(x[*at]))
                        };
                        let ((above, to), (below, from)) = (at_step(0.004), at_step(-0.004));
                        -2.0 * (above - below) / (to - from)
                    };
                    let expected: Vec<f64> = places.iter().map(slope).collect();
                    check("dx", &expected, 2e-5, |exec| {
                        let (mut log_sum, mut dx) = (vec![0.0; rows], vec![9.0; x.len()]);
                        loss.forward(exec, &x, &target, &mut log_sum);
                        loss.backward(exec, &x, &target, &log_sum, -2.0, &mut dx);
                        places.iter().map(|at| dx[*at]).collect()
                    });
                }
            }
        }
    }

    #[test]
    fn no_row_or_no_class_is_not_a_number() {
        let loss = CrossEntropy { classes: 3, weights: None, ignore_index: 1, smoothing: 0.0 };
        for target in [[1, 1], [0, 3], [-1, 0]] {
            check("loss", &[f64::NAN], 0.0, |exec| {
                let x = numbers(6, 1, 1.0);
                vec![loss.forward(exec, &x, &target, &mut [0.0; 2])]
            });
        }
    }
}
