//! The learning rate of every step, as a pure function.
//!
//! With base rate `b`, step `s` from 0, `T` steps in the run, `w` warm-up steps, and
//! `t = (s - w) / (T - w)`, which is 0 during warm-up and at most 1:
//!
//! - constant: `b`
//! - cosine: `m + (b - m) (1 + cos(pi t)) / 2`, `m` = `lr_min` (PyTorch's `CosineAnnealingLR` with
//!   `T_max = T - w`, stepped every step)
//! - linear: `b + (m - b) t`
//! - step: `b gamma^floor(e / step_epochs)`, `e` = whole epochs done
//!
//! During warm-up the rate is multiplied by `(s + 1) / w`.

use serde::{Deserialize, Serialize};

/// The shape of the learning rate over a run, `[schedule]` of a job file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// The same rate throughout.
    Constant {
        /// Steps over which the rate rises to its full value.
        #[serde(default)]
        warmup_steps: u64,
    },
    /// Half a cosine from the base rate to `lr_min`.
    Cosine {
        /// The rate at the end.
        #[serde(default)]
        lr_min: f64,
        /// Steps over which the rate rises to its full value.
        #[serde(default)]
        warmup_steps: u64,
    },
    /// A straight line from the base rate to `lr_min`.
    Linear {
        /// The rate at the end.
        #[serde(default)]
        lr_min: f64,
        /// Steps over which the rate rises to its full value.
        #[serde(default)]
        warmup_steps: u64,
    },
    /// A factor every few epochs.
    Step {
        /// Epochs between two changes, at least 1.
        step_epochs: u64,
        /// The factor of a change, above 0.
        #[serde(default = "tenth")]
        gamma: f64,
        /// Steps over which the rate rises to its full value.
        #[serde(default)]
        warmup_steps: u64,
    },
}

fn tenth() -> f64 {
    0.1
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule::Constant { warmup_steps: 0 }
    }
}

impl Schedule {
    /// Returns the key and the reason of a value out of its range.
    pub fn problem(&self) -> Option<(&'static str, String)> {
        let at_least_0 =
            |value: f64| (!(value.is_finite() && value >= 0.0)).then(|| format!("expected 0 or more, found {value}"));
        match self {
            Schedule::Constant { .. } => None,
            Schedule::Cosine { lr_min, .. } | Schedule::Linear { lr_min, .. } => {
                at_least_0(*lr_min).map(|reason| ("lr_min", reason))
            }
            Schedule::Step { step_epochs: 0, .. } => Some(("step_epochs", "expected 1 or more, found 0".into())),
            Schedule::Step { gamma, .. } if !(gamma.is_finite() && *gamma > 0.0) => {
                Some(("gamma", format!("expected a factor above 0, found {gamma}")))
            }
            Schedule::Step { .. } => None,
        }
    }

    fn warmup_steps(&self) -> u64 {
        match self {
            Schedule::Constant { warmup_steps }
            | Schedule::Cosine { warmup_steps, .. }
            | Schedule::Linear { warmup_steps, .. }
            | Schedule::Step { warmup_steps, .. } => *warmup_steps,
        }
    }
}

/// Returns the learning rate of step `step`, counted from 0, of a run of `total_steps` steps.
pub fn lr_at(schedule: &Schedule, base_lr: f64, step: u64, total_steps: u64, steps_per_epoch: u64) -> f64 {
    let warmup = schedule.warmup_steps();
    let span = total_steps.saturating_sub(warmup).max(1);
    let fraction = (step.saturating_sub(warmup) as f64 / span as f64).min(1.0);
    let rate = match schedule {
        Schedule::Constant { .. } => base_lr,
        Schedule::Cosine { lr_min, .. } => {
            lr_min + (base_lr - lr_min) * (1.0 + (std::f64::consts::PI * fraction).cos()) / 2.0
        }
        Schedule::Linear { lr_min, .. } => base_lr + (lr_min - base_lr) * fraction,
        Schedule::Step { step_epochs, gamma, .. } => {
            let changes = step / steps_per_epoch.max(1) / (*step_epochs).max(1);
            base_lr * gamma.powf(changes as f64)
        }
    };
    if step < warmup { rate * ((step + 1) as f64 / warmup as f64) } else { rate }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_the_formulas() {
        struct Case {
            schedule: Schedule,
            expected: &'static [(u64, f64)],
        }
        // 10 epochs of 10 steps, base rate 0.5.
        let cases = [
            Case { schedule: Schedule::default(), expected: &[(0, 0.5), (99, 0.5)] },
            Case {
                schedule: Schedule::Constant { warmup_steps: 4 },
                expected: &[(0, 0.125), (1, 0.25), (3, 0.5), (4, 0.5)],
            },
            Case {
                schedule: Schedule::Cosine { lr_min: 0.1, warmup_steps: 0 },
                expected: &[(0, 0.5), (25, 0.441_421_356_237_309_5), (50, 0.3), (100, 0.1), (150, 0.1)],
            },
            Case {
                schedule: Schedule::Cosine { lr_min: 0.0, warmup_steps: 20 },
                expected: &[(0, 0.025), (19, 0.5), (20, 0.5), (60, 0.25), (100, 0.0)],
            },
            Case {
                schedule: Schedule::Linear { lr_min: 0.1, warmup_steps: 0 },
                expected: &[(0, 0.5), (25, 0.4), (100, 0.1)],
            },
            Case {
                schedule: Schedule::Step { step_epochs: 3, gamma: 0.1, warmup_steps: 0 },
                expected: &[(0, 0.5), (29, 0.5), (30, 0.05), (59, 0.05), (60, 0.005), (99, 0.0005)],
            },
            Case {
                schedule: Schedule::Step { step_epochs: 1, gamma: 0.5, warmup_steps: 20 },
                expected: &[(9, 0.25), (10, 0.1375), (19, 0.25), (20, 0.125)],
            },
            Case {
                schedule: Schedule::Cosine { lr_min: 0.0, warmup_steps: 1000 },
                expected: &[(0, 0.0005), (99, 0.05)],
            },
        ];
        for case in cases {
            for (step, expected) in case.expected {
                let found = lr_at(&case.schedule, 0.5, *step, 100, 10);
                assert!(
                    (found - expected).abs() < 1e-12,
                    "{:?} at {step}: {found}, expected {expected}",
                    case.schedule
                );
            }
        }
    }

    #[test]
    fn values_out_of_range_are_named() {
        let cases = [
            (Schedule::Cosine { lr_min: -1.0, warmup_steps: 0 }, Some("lr_min")),
            (Schedule::Linear { lr_min: f64::NAN, warmup_steps: 0 }, Some("lr_min")),
            (Schedule::Step { step_epochs: 0, gamma: 0.1, warmup_steps: 0 }, Some("step_epochs")),
            (Schedule::Step { step_epochs: 1, gamma: 0.0, warmup_steps: 0 }, Some("gamma")),
            (Schedule::default(), None),
        ];
        for (schedule, key) in cases {
            assert_eq!(schedule.problem().map(|problem| problem.0), key, "{schedule:?}");
        }
    }
}
