//! Freezes the front-most unit when its outputs drift evenly from those of an earlier model: Egeria.
//!
//! *Idea.* The plasticity of a unit is how far its outputs are from those of a reference, a snapshot of the same
//! model. Where the plasticity no longer falls or rises, the unit has converged. Only the front-most unit that trains
//! is tested. With `p_t` its similarity-preserving loss at evaluation `t` and `W` the window,
//!
//! ```text
//! m_t = mean(p_{t-W+1} .. p_t)
//! s_t = slope of the least-squares line through m_{t-W+1} .. m_t, per evaluation
//! it freezes when |s| < tolerance in W consecutive evaluations, and the next unit is tested from then on
//! ```
//!
//! so a unit is evaluated `3 W - 2` times at least. Before the first test, the loss must have settled: the change
//! `|loss before - loss| / |loss before|` of one evaluation to the next falls under `bootstrap`. When the learning rate
//! has fallen by `unfreeze_drop` since the first of the frozen units froze, all thaw, and from then on `W` is half.
//!
//! A unit of which no finite value is known starts over. One that was frozen by name, or owns no parameter, is
//! passed, and counts as frozen when the next one is. The last unit that can be measured never freezes.
//!
//! *Signals.* `similarity-preserving`, from 0 to `4 / samples`; loss and learning rate.
//!
//! *Knobs.*
//!
//! | knob | unit | range | default |
//! |---|---|---|---|
//! | `every` | steps from one evaluation to the next | from 1 | 50 |
//! | `window` | evaluations | from 2 | 5 |
//! | `tolerance` | similarity-preserving loss per evaluation | above 0 | 0.00001 |
//! | `bootstrap` | relative change of the loss | above 0 | 0.1 |
//! | `unfreeze_drop` | ratio of learning rates | [1.5, 1e12] | 10 |
//! | `refresh` | evaluations until the reference is renewed | from 1 | 1 |
//! | `samples` | samples that outputs are taken of | from 4 | 256 |
//!
//! With `refresh` above 1 the plasticity falls to 0 at every renewal and grows from there: then `window` should be a
//! multiple of it.
//!
//! *Does nothing* until the loss settles, in the `3 W - 3` evaluations after that, and in runs with fewer.
//!
//! *Source.* Wang, Sun, Chen, Lai, Chowdhury, "Egeria", EuroSys 2023, arXiv 2201.06227. There is no public code, and
//! the exact thresholds are not public: the procedure is as described there, all defaults except that of
//! `unfreeze_drop` are chosen here. Egeria's reference is quantised to int8 and evaluated on the CPU beside the
//! training; here it has the model's own precision and is evaluated in turn.
//!
//! *Known negative results.* The tolerance has the scale of the loss that it is compared with, which differs from
//! model to model. With a learning rate that falls throughout (cosine) the drop comes near the end, when thawing
//! gains little. The evaluations cost forward passes of their own.

use super::Entry;
use crate::modules::{Unit, UnitKind};
use crate::plan::{
    Decision, FrozenSet, Knob, Knobs, Moment, Observation, Policy, Preset, Range, Reading, Reference, Run, Signal,
};
use crate::signals;
use serde_json::{Map, Value};

/// Freezes a unit when its plasticity is stationary.
#[derive(Clone, Debug)]
pub struct Plasticity {
    every: usize,
    window: usize,
    tolerance: f64,
    bootstrap: f64,
    drop: f64,
    reference: Reference,
    settings: Map<String, Value>,
}

pub(super) static ENTRY: Entry = Entry {
    name: "plasticity",
    knobs: &[
        Knob {
            name: "every",
            about: "steps from one evaluation to the next",
            range: Range::Count(1),
            default: Preset::Count(50),
        },
        Knob {
            name: "window",
            about: "evaluations of the moving average, of the line and of the patience",
            range: Range::Count(2),
            default: Preset::Count(5),
        },
        Knob {
            name: "tolerance",
            about: "a slope below it is level, in similarity-preserving loss per evaluation",
            range: Range::Positive,
            default: Preset::Number(1e-5),
        },
        Knob {
            name: "bootstrap",
            about: "relative change of the loss under which testing starts",
            range: Range::Positive,
            default: Preset::Number(0.1),
        },
        Knob {
            name: "unfreeze_drop",
            about: "ratio by which the learning rate falls until all units thaw",
            range: Range::Between(1.5, 1e12),
            default: Preset::Number(10.0),
        },
        Knob {
            name: "refresh",
            about: "evaluations until the reference is renewed",
            range: Range::Count(1),
            default: Preset::Count(1),
        },
        super::SAMPLES,
    ],
    unit: Some(UnitKind::Block),
    card: include_str!("plasticity.rs"),
    new: |knobs| Ok(Box::new(Plasticity::new(knobs))),
};

/// What is known after some evaluations.
#[derive(Clone, Debug, Default)]
struct State {
    loss: Option<f64>,
    settled: bool,
    halved: bool,
    depth: usize,
    /// Learning rate when the first of the frozen units froze.
    rate: f64,
    front: usize,
    values: Vec<f64>,
    level: usize,
}

impl State {
    fn start(&mut self, front: usize) {
        self.front = front;
        self.values.clear();
        self.level = 0;
    }
}

/// What the drop of the learning rate may miss by rounding.
const ROUNDING: f64 = 1e-6;

impl Plasticity {
    fn new(knobs: &Knobs<'_>) -> Plasticity {
        Plasticity {
            every: knobs.count("every"),
            window: knobs.count("window"),
            tolerance: knobs.number("tolerance"),
            bootstrap: knobs.number("bootstrap"),
            drop: knobs.number("unfreeze_drop"),
            reference: Reference { refresh: knobs.count("refresh"), samples: knobs.count("samples") },
            settings: knobs.settings(),
        }
    }

    fn evaluate(&self, state: &mut State, seen: &Observation, units: &[Unit]) {
        let change = state.loss.map(|before| ((before - seen.loss) / before).abs());
        state.loss = Some(seen.loss);
        state.settled |= change.is_some_and(|change| change < self.bootstrap);
        if !state.settled {
            return;
        }
        if state.depth > 0 && state.rate > 0.0 && seen.lr * self.drop <= state.rate * (1.0 + ROUNDING) {
            state.depth = 0;
            state.halved = true;
            return state.start(0);
        }
        let readings = seen.readings(Signal::SimilarityPreserving, units);
        let mut active = readings.iter().enumerate().skip(state.depth);
        let Some((front, reading)) = active.find(|(_, reading)| **reading != Reading::Absent) else { return };
        let last = !active.any(|(_, reading)| reading.value().is_some());
        let value = reading.value();
        if front != state.front || value.is_none() {
            state.start(front);
        }
        let Some(value) = value else { return };
        state.values.push(value);
        state.level = if self.level(state) { state.level + 1 } else { 0 };
        if state.level >= self.window(state) && !last {
            if state.depth == 0 {
                state.rate = seen.lr;
            }
            state.depth = front + 1;
            state.start(state.depth);
        }
    }

    fn window(&self, state: &State) -> usize {
        if state.halved { (self.window / 2).max(2) } else { self.window }
    }

    /// Returns whether the line through the last means is level.
    fn level(&self, state: &State) -> bool {
        let window = self.window(state);
        let first = state.values.len().checked_sub(window.saturating_mul(2).saturating_sub(1));
        let Some(recent) = first.and_then(|first| state.values.get(first..)) else { return false };
        let means = signals::moving_average(recent, window);
        means.and_then(|means| signals::slope(&means)).is_ok_and(|slope| slope.abs() < self.tolerance)
    }
}

impl Policy for Plasticity {
    fn name(&self) -> &str {
        ENTRY.name
    }

    fn decide(&self, at: &Moment<'_>) -> Decision {
        let mut state = State::default();
        at.history.observations.iter().for_each(|seen| self.evaluate(&mut state, seen, at.units));
        Decision::of(FrozenSet::prefix(at.units.len(), state.depth))
    }

    fn settings(&self) -> Map<String, Value> {
        self.settings.clone()
    }

    fn points(&self, run: Run, _units: usize) -> Vec<usize> {
        super::every(run, self.every)
    }

    fn signals(&self) -> Vec<Signal> {
        vec![Signal::SimilarityPreserving]
    }

    fn reference(&self) -> Reference {
        self.reference
    }
}

#[cfg(test)]
mod tests {
    use super::super::find;
    use super::*;
    use crate::plan::testing::{RUN, chain, rough, simulated};
    use crate::plan::{History, PlanOptions};

    const SIGNAL: Signal = Signal::SimilarityPreserving;

    fn policy(window: u64) -> Box<dyn Policy> {
        let options = PlanOptions::of("plasticity").with("every", 10).with("window", window);
        find(&options.with("tolerance", 0.01)).unwrap()
    }

    /// Runs on three units, of which `value` gives what is measured at each evaluation while they train, and
    /// returns the depth after each evaluation.
    fn depths(
        policy: &dyn Policy,
        count: usize,
        lr: impl Fn(usize) -> f64,
        value: impl Fn(usize, usize) -> f64,
    ) -> Vec<usize> {
        let (model, mut history, mut depth) = (chain(3), History::default(), 0);
        let mut depths = Vec::new();
        for index in 0..count {
            let mut seen =
                Observation::new(10 * (index + 1), lr(index), 1.0, (0..3).map(|unit| unit < depth).collect());
            let values = (0..3).map(|unit| (unit >= depth).then(|| value(index, unit)));
            seen.signals.insert(SIGNAL, values.collect());
            history.observations.push(seen);
            let frozen = model.asked(policy, &history).frozen;
            depth = frozen.count();
            assert_eq!(frozen, FrozenSet::prefix(3, depth));
            depths.push(depth);
        }
        depths
    }

    /// Returns the evaluations at which the depth changes, with the new depth.
    fn changes(depths: &[usize]) -> Vec<(usize, usize)> {
        let before = [0].iter().chain(depths);
        depths
            .iter()
            .zip(before)
            .enumerate()
            .filter(|(_, (now, before))| now != before)
            .map(|(i, (d, _))| (i, *d))
            .collect()
    }

    #[test]
    fn a_level_front_freezes_after_three_windows() {
        // The loss settles at evaluation 1; with W = 3 each unit then takes 3 * 3 - 2 evaluations.
        let flat = depths(policy(3).as_ref(), 40, |_| 0.1, |_, _| 0.5);
        assert_eq!(changes(&flat), [(7, 1), (14, 2)], "the last one trains on");
        let flat = depths(policy(2).as_ref(), 40, |_| 0.1, |_, _| 0.5);
        assert_eq!(changes(&flat), [(4, 1), (8, 2)]);
    }

    #[test]
    fn a_slope_over_the_tolerance_does_not_freeze() {
        let steep = |index: usize, unit: usize| if unit == 0 { 0.02 * index as f64 } else { 0.5 };
        assert_eq!(changes(&depths(policy(3).as_ref(), 40, |_| 0.1, steep)), []);
        let slow = |index: usize, unit: usize| if unit == 0 { -0.009 * index as f64 } else { 0.5 };
        assert_eq!(changes(&depths(policy(3).as_ref(), 40, |_| 0.1, slow)), [(7, 1), (14, 2)]);
        // Falls by 0.02 for 20 evaluations: the first level line is through the means of evaluations 19 and later,
        // or a little before as the line is through parts of both.
        let settles = |index: usize, _| 0.5 - 0.02 * index.min(20) as f64;
        let found = changes(&depths(policy(3).as_ref(), 28, |_| 0.1, settles));
        assert_eq!(found, [(25, 1)], "levels at 23, 24 and 25");
    }

    #[test]
    fn the_loss_must_settle_first() {
        let (model, policy) = (chain(3), policy(2));
        let mut history = History::default();
        let mut first = None;
        for index in 0..20 {
            let loss = if index < 10 { 0.8f64.powi(index) } else { 0.8f64.powi(10) };
            let mut seen = Observation::new(10 * (index as usize + 1), 0.1, loss, vec![false; 3]);
            seen.signals.insert(SIGNAL, vec![Some(0.5); 3]);
            history.observations.push(seen);
            if !model.frozen(policy.as_ref(), &history).is_empty() {
                first = first.or(Some(index));
            }
        }
        assert_eq!(first, Some(14), "evaluation 11 is the first with a loss like the one before");
    }

    #[test]
    fn all_thaw_when_the_rate_has_dropped_and_freeze_faster_again() {
        let rate = |index: usize| if index < 20 { 0.1 } else { 0.01 };
        let found = changes(&depths(policy(4).as_ref(), 40, rate, |_, _| 0.5));
        // With W = 4, ten evaluations for a unit; after the drop W = 2, four.
        assert_eq!(found, [(10, 1), (20, 0), (24, 1), (28, 2)]);
        let less = |index: usize| if index < 20 { 0.1 } else { 0.011 };
        assert_eq!(changes(&depths(policy(4).as_ref(), 40, less, |_, _| 0.5)), [(10, 1), (20, 2)]);
    }

    #[test]
    fn units_without_a_value() {
        let lost = |index: usize, unit: usize| if unit == 0 && index == 5 { f64::NAN } else { 0.5 };
        assert_eq!(changes(&depths(policy(3).as_ref(), 14, |_| 0.1, lost)), [(12, 1)], "it starts over after 5");
        let never = |_: usize, unit: usize| if unit == 0 { f64::INFINITY } else { 0.5 };
        assert_eq!(changes(&depths(policy(3).as_ref(), 40, |_| 0.1, never)), []);
    }

    #[test]
    fn rough_histories() {
        let options = PlanOptions::of("plasticity").with("every", 40).with("window", 2).with("tolerance", 0.5);
        for seed in 0..40 {
            simulated(&|| find(&options).unwrap(), SIGNAL, &[], rough(seed));
            simulated(&|| find(&options).unwrap(), SIGNAL, &[0, 5], rough(seed));
        }
        let decisions = simulated(&|| find(&options).unwrap(), SIGNAL, &[0, 5], |_, _| Some(0.5));
        assert_eq!(decisions.last(), Some(&FrozenSet::prefix(6, 4)), "unit 4 is the last that trains");
        assert_eq!(policy(2).points(RUN, 6).len(), 99);
        assert_eq!(chain(3).frozen(policy(2).as_ref(), &History::default()), [0usize; 0]);
    }
}
