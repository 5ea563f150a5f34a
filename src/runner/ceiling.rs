//! The ceiling check: what a schedule can save on this machine, told from a few steps before the first one.
//!
//! A step of a phase is predicted as
//! `data + forward + rest + backward * (backward flops of the phase / of the measured step) + update * (elements that
//! train / of the measured step)`. That one is a step of the first phase or, where the first phase has less than half of
//! the backward pass, one with nothing frozen. A change to another phase is predicted by what it takes to make the phase
//! of that step and one in which everything is frozen ready, in proportion to the backward flops that remain, less what of
//! it is made while the phase before trains. `forward`
//! is the train graph in which everything is frozen, not the eval graph: it is what remains of a step when the last gradient is gone, with `BatchNormalization`
//! and Dropout as they train and with weights that are constants.
//!
//! This file is the arithmetic and the sentences; `timing` measures, `pace` compares with the run.

use crate::plan::StepSeconds;
use serde::{Deserialize, Serialize};

/// A schedule that saves less than this fraction of the time is not worth it.
pub const WORTH: f64 = 0.02;

impl StepSeconds {
    /// Returns the part of a step that is gone when everything is frozen, in [0, 1].
    pub fn share(&self) -> f64 {
        ratio(self.backward + self.update, self.total())
    }

    /// Returns the seconds of a step that costs something else than the measured one.
    pub fn of(&self, cost: Relative) -> f64 {
        let forward = self.forward * cost.forward;
        self.data + forward + self.rest + self.backward * cost.backward + self.update * cost.trained
    }
}

/// What a step costs, relative to the measured one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Relative {
    /// Flops of the backward pass.
    pub backward: f64,
    /// Elements that train.
    pub trained: f64,
    /// Flops of the forward pass: less where what is frozen is read back.
    #[serde(default = "all")]
    pub forward: f64,
}

fn all() -> f64 {
    1.0
}

impl Relative {
    /// The measured step.
    pub const FIRST: Relative = Relative { backward: 1.0, trained: 1.0, forward: 1.0 };
}

/// Steps with one frozen set.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Stretch {
    /// Steps.
    pub steps: usize,
    /// What one of them costs.
    pub cost: Relative,
    /// Whether its graphs must be built; false for the first, and where they were kept.
    pub builds: bool,
}

/// What was measured before the first step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Measured {
    /// A step of the first phase, or one with nothing frozen.
    pub step: StepSeconds,
    /// Seconds to make the phase of that step ready, with what its first step takes beyond the others.
    pub first_phase: f64,
    /// As `first_phase`, for a phase in which everything is frozen.
    pub frozen_phase: f64,
    /// Seconds of `first_phase` and `frozen_phase` that pass while the phase before trains; 0 where nothing is made ahead.
    #[serde(default)]
    pub ahead: (f64, f64),
}

/// What a run is predicted to take.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prediction {
    /// Seconds of the steps with nothing frozen.
    pub without: f64,
    /// Seconds of the steps with the schedule.
    pub steps: f64,
    /// Phase changes that build graphs.
    pub changes: usize,
    /// Seconds of these.
    pub change_seconds: f64,
}

impl Prediction {
    /// Returns the fraction of the time that the steps save.
    pub fn steps_gain(&self) -> f64 {
        ratio(self.without - self.steps, self.without)
    }

    /// Returns the fraction of the time that is saved, less the phase changes.
    pub fn gain(&self) -> f64 {
        ratio(self.without - self.steps - self.change_seconds, self.without)
    }
}

impl Measured {
    /// Returns the seconds of a change to a phase, after steps that take so many `before` it.
    pub fn change(&self, cost: Relative, before: f64) -> f64 {
        let of = |first: f64, frozen: f64| frozen + (first - frozen) * cost.backward.clamp(0.0, 1.0);
        of(self.first_phase, self.frozen_phase) - of(self.ahead.0, self.ahead.1).min(before)
    }

    /// Predicts a run of these stretches; `nothing` is what a step with nothing frozen costs.
    pub fn predict(&self, nothing: Relative, stretches: &[Stretch]) -> Prediction {
        let mut result = Prediction::default();
        let mut before = 0.0;
        for Stretch { steps, cost, builds } in stretches {
            let steps = *steps as f64;
            result.without += steps * self.step.of(nothing);
            result.steps += steps * self.step.of(*cost);
            if *builds {
                result.changes += 1;
                result.change_seconds += self.change(*cost, before);
            }
            before = steps * self.step.of(*cost);
        }
        result
    }
}

/// What the check found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ceiling {
    /// Steps that were measured.
    pub measured_steps: usize,
    /// Seconds that the check took, without making the first phase ready, which the run needs anyway.
    pub check_seconds: f64,
    /// Seconds of the step that was measured: one of the first phase or, where that has less than half of the backward
    /// pass, one with nothing frozen.
    pub step_seconds: f64,
    /// Where they go, in seconds.
    pub parts: StepSeconds,
    /// The part of such a step that is gone when everything is frozen, in [0, 1]: no schedule is faster than
    /// `1 / (1 - share)`.
    pub share: f64,
    /// Seconds of all steps with nothing frozen; evaluation and checkpoints are not in it.
    pub seconds_without: f64,
    /// Seconds of all steps and phase changes with the schedule.
    pub seconds_with: f64,
    /// Phase changes that build graphs.
    pub changes: usize,
    /// Seconds of these.
    pub change_seconds: f64,
    /// Fraction of `seconds_without` that is saved; below 0 where phase changes cost more than the steps save.
    pub gain: f64,
    /// As `gain`, without the phase changes.
    pub steps_gain: f64,
    /// Fraction of the flops that is saved: what `gain` would be if all of a step were counted work.
    pub flops_gain: f64,
    /// Nodes of which the flops are not known: with any, this is a partial estimate.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uncounted_nodes: usize,
    /// True where the policy decides by what the run measures: then the gain is an upper bound, that of all units but
    /// the last frozen from the first decision on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub upper_bound: bool,
    /// Why the schedule is not worth it, where it saves less than 2 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Trainable parameters because of which the schedule saves much less than it could, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alive: Option<String>,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Ceiling {
    /// Returns what a person should know, in sentences: what a step takes, what the schedule saves, and where it is
    /// so, that it is not worth it.
    pub fn sentences(&self) -> Vec<String> {
        let StepSeconds { data, forward, backward, update, rest } = self.parts;
        let (unit, scale) = if self.step_seconds < 1.0 { ("ms", 1e3) } else { ("s", 1.0) };
        let mut parts = vec![("data", data), ("forward", forward), ("backward", backward), ("update", update)];
        parts.extend((rest >= 0.02 * self.step_seconds).then_some(("rest", rest)));
        let parts: Vec<String> =
            parts.into_iter().map(|(name, seconds)| format!("{name} {}", short(seconds * scale))).collect();
        let step = format!(
            "a step takes {} {unit}: {} (checked in {} s)",
            short(self.step_seconds * scale),
            parts.join(", "),
            short(self.check_seconds)
        );
        let mut sentences = vec![step, self.saving()];
        if let Some(reason) = &self.reason {
            let what = if self.upper_bound { "freezing" } else { "this schedule" };
            sentences.push(format!("{what} is not worth it here: {reason}"));
        }
        sentences
    }

    fn saving(&self) -> String {
        let partial = match self.uncounted_nodes {
            0 => String::new(),
            1 => "a partial estimate, 1 node has no count: ".to_string(),
            nodes => format!("a partial estimate, {nodes} nodes have no count: "),
        };
        if self.upper_bound {
            return format!(
                "{partial}this policy decides by what the run measures: were all units but the last frozen from its \
                 first decision on, that would save {} of the {} s of the steps; it cannot save more",
                percent(self.gain),
                short(self.seconds_without)
            );
        }
        let saved = self.steps_gain * self.seconds_without;
        let less = match self.changes {
            0 => String::new(),
            1 => format!(", less {} s for 1 phase change", short(self.change_seconds)),
            changes => format!(", less {} s for {changes} phase changes", short(self.change_seconds)),
        };
        let net = if self.changes == 0 { String::new() } else { format!(", {} in all", percent(self.gain)) };
        match &self.alive {
            Some(alive) => format!(
                "{partial}this schedule cannot save more than {} of the {} s of the steps here because {alive} the \
                 backward pass alive ({} of the flops){less}{net}",
                percent(self.steps_gain),
                short(self.seconds_without),
                percent(self.flops_gain)
            ),
            None => format!(
                "{partial}this schedule saves at most {} of the {} s of the steps ({} of the flops): {} s{less}{net}",
                percent(self.steps_gain),
                short(self.seconds_without),
                percent(self.flops_gain),
                short(saved)
            ),
        }
    }
}

/// What the reason of a poor gain is found in.
pub(super) struct Why<'a> {
    pub prediction: Prediction,
    pub step: StepSeconds,
    pub flops_gain: f64,
    /// The parameters that keep the backward pass alive, where they are the reason, with their verb.
    pub alive: Option<&'a str>,
    /// First epoch with a freeze, and epochs of the run.
    pub first_freeze: (usize, usize),
    /// The fraction that the cheapest stretch saves of a step.
    pub best: f64,
}

impl Why<'_> {
    /// Returns why the schedule is not worth it; `None` where it is.
    pub(super) fn reason(&self) -> Option<String> {
        let Prediction { without, steps, changes, change_seconds } = self.prediction;
        if self.prediction.gain() >= WORTH {
            return None;
        }
        if self.prediction.steps_gain() >= WORTH {
            let changes =
                if changes == 1 { "1 phase change costs".into() } else { format!("{changes} phase changes cost") };
            let most = if self.prediction.gain() < 0.0 { "more than" } else { "most of" };
            let saved = short(without - steps);
            return Some(format!("{changes} {} s, {most} the {saved} s that its steps save", short(change_seconds)));
        }
        if let Some(alive) = self.alive {
            return Some(format!("{alive} the backward pass alive"));
        }
        let (first, epochs) = self.first_freeze;
        if self.best >= WORTH && first > 1 {
            return Some(format!("the first freeze comes in epoch {first} of {epochs}"));
        }
        if self.flops_gain >= WORTH {
            let StepSeconds { data, forward, backward, update, rest } = self.step;
            let parts =
                [("making the batch", data), ("the forward pass", forward), ("the update", update), ("the rest", rest)];
            let largest = parts.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or(parts[0]);
            return Some(format!(
                "the backward pass is {} of a step, {} {}",
                percent(ratio(backward, self.step.total())),
                largest.0,
                percent(ratio(largest.1, self.step.total()))
            ));
        }
        Some("what it freezes costs little".into())
    }
}

pub(super) fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// Returns the median; 0 of nothing.
pub(super) fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle.wrapping_sub(1)), sorted.get(middle)) {
        (Some(below), Some(above)) if sorted.len().is_multiple_of(2) => (below + above) / 2.0,
        (_, Some(middle)) => *middle,
        _ => 0.0,
    }
}

pub(super) fn percent(fraction: f64) -> String {
    let percent = 100.0 * fraction;
    let percent = if percent.abs() < 0.05 { 0.0 } else { percent };
    if percent.abs() < 10.0 { format!("{percent:.1} %") } else { format!("{percent:.0} %") }
}

/// Returns a number with two or three digits.
fn short(number: f64) -> String {
    match number.abs() {
        size if size >= 100.0 => format!("{number:.0}"),
        size if size >= 10.0 => format!("{number:.1}"),
        size if size >= 0.1 => format!("{number:.2}"),
        _ => format!("{number:.3}"),
    }
}

#[cfg(test)]
#[path = "ceiling_tests.rs"]
mod tests;
