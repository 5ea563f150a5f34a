//! Freezes the units whose weights change least in relation to their size: SlimFit.
//!
//! *Idea.* A unit whose weights move little loses little when it pauses. With
//!
//! ```text
//! d_i = mean |(w_before - w) / w_before|     over the weights of unit i, in the last step before the decision
//! ```
//!
//! the `trunc(rate * n)` units with the smallest `d` are frozen until the next decision, of `n` units. The `d` of a
//! frozen unit stays what it was, so it trains again as soon as those of the others have fallen below it. A unit that
//! trained without a finite value counts as larger than all others. One that was frozen by name throughout, or owns
//! no parameter, is not among the `n`. Of equal values, those nearer to the input freeze first.
//!
//! *Signals.* `weight-change`.
//!
//! *Knobs.*
//!
//! | knob | unit | range | default |
//! |---|---|---|---|
//! | `rate` | fraction of the units that are frozen | [0, 1] | 0.9 |
//! | `every` | steps from one decision to the next | from 1 | 100 |
//!
//! *Does nothing* before the first decision, which needs one measurement of all units, and with `rate` below `1 / n`.
//! One unit always trains.
//!
//! *Source.* Ardakani et al., "SlimFit", NAACL 2024, arXiv 2305.18513, and arashardakani/SlimFit, whose script for
//! CoLA freezes 0.90. There, every step decides anew, and `d` starts as random numbers times `1e10`, so that every
//! layer is visited in random order. Here the first interval trains all, which visits them all at once and in the same
//! order in every run; and a decision holds for `every` steps, since each frozen set needs a training graph of its own.
//!
//! *Known negative results.* The frozen units are no prefix, so freezing saves weight gradients, and the input
//! gradients only of what lies before the first unit that trains. Memory falls less than the share of frozen units: what
//! GELU, softmax, normalizations and products of two activations keep is needed whatever is frozen. A weight near
//! zero makes `d` large whatever it means to the model.

use super::Entry;
use crate::plan::{Decision, FrozenSet, Knob, Knobs, Moment, Policy, Preset, Range, Reading, Run, Signal};
use serde_json::{Map, Value};

/// Freezes the share of the units that changes least.
#[derive(Clone, Debug)]
pub struct RelativeChange {
    rate: f64,
    every: usize,
    settings: Map<String, Value>,
}

pub(super) static ENTRY: Entry = Entry {
    name: "relative-change",
    knobs: &[
        Knob {
            name: "rate",
            about: "fraction of the units that are frozen",
            range: Range::Fraction,
            default: Preset::Number(0.9),
        },
        Knob {
            name: "every",
            about: "steps from one decision to the next",
            range: Range::Count(1),
            default: Preset::Count(100),
        },
    ],
    unit: None,
    card: include_str!("relative_change.rs"),
    new: |knobs| Ok(Box::new(RelativeChange::new(knobs))),
};

impl RelativeChange {
    fn new(knobs: &Knobs<'_>) -> RelativeChange {
        RelativeChange { rate: knobs.number("rate"), every: knobs.count("every"), settings: knobs.settings() }
    }
}

impl Policy for RelativeChange {
    fn name(&self) -> &str {
        ENTRY.name
    }

    fn decide(&self, at: &Moment<'_>) -> Decision {
        let mut changes = vec![Reading::Absent; at.units.len()];
        for seen in &at.history.observations {
            let readings = seen.readings(Signal::WeightChange, at.units);
            for (change, reading) in changes.iter_mut().zip(readings) {
                if reading != Reading::Absent {
                    *change = reading;
                }
            }
        }
        let units = changes.iter().filter(|change| **change != Reading::Absent).count();
        let known = changes.iter().enumerate().filter_map(|(index, change)| Some((change.value()?, index)));
        let mut known: Vec<(f64, usize)> = known.collect();
        known.sort_by(|(change, index), (other, after)| change.total_cmp(other).then(index.cmp(after)));
        let count = ((self.rate * units as f64) as usize).min(units.saturating_sub(1));
        let mut frozen = vec![false; at.units.len()];
        for (_, index) in known.into_iter().take(count) {
            frozen[index] = true;
        }
        Decision::of(FrozenSet::from(frozen))
    }

    fn settings(&self) -> Map<String, Value> {
        self.settings.clone()
    }

    fn points(&self, run: Run, _units: usize) -> Vec<usize> {
        super::every(run, self.every)
    }

    fn signals(&self) -> Vec<Signal> {
        vec![Signal::WeightChange]
    }
}

#[cfg(test)]
mod tests {
    use super::super::find;
    use super::*;
    use crate::plan::testing::{chain, observed, rough, simulated};
    use crate::plan::{History, PlanOptions};

    fn policy(rate: f64) -> Box<dyn Policy> {
        find(&PlanOptions::of("relative-change").with("rate", rate)).unwrap()
    }

    fn frozen(rate: f64, rows: &[&[Option<f64>]]) -> Vec<usize> {
        chain(rows[0].len()).frozen(policy(rate).as_ref(), &observed(Signal::WeightChange, rows))
    }

    #[test]
    fn the_smallest_changes_freeze_and_keep_their_value() {
        let first = [Some(0.4), Some(0.1), Some(0.3), Some(0.2)];
        assert_eq!(frozen(0.5, &[&first]), [1, 3]);
        assert_eq!(frozen(0.49, &[&first]), [1], "1.96 of 4 units");
        assert_eq!(frozen(1.0, &[&first]), [1, 2, 3]);
        assert_eq!(frozen(0.0, &[&first]), [0usize; 0]);
        let second = [Some(0.15), None, Some(0.05), None];
        assert_eq!(frozen(0.5, &[&first, &second]), [1, 2], "unit 3 is at 0.2 as before, and trains again");
        assert_eq!(frozen(0.5, &[&[Some(0.1), Some(0.1), Some(0.1), Some(0.1)]]), [0, 1]);
    }

    #[test]
    fn units_without_a_value() {
        let infinite = [Some(f64::INFINITY), Some(0.2), Some(f64::NAN), Some(0.1)];
        assert_eq!(frozen(0.5, &[&infinite]), [1, 3]);
        assert_eq!(frozen(0.25, &[&infinite]), [3], "those that are not known count among the four");
        let named = [None, Some(0.2), Some(0.3), Some(0.1), Some(0.4)];
        assert_eq!(frozen(0.5, &[&named]), [1, 3], "of four units");
        assert_eq!(frozen(1.0, &[&named]), [1, 2, 3]);
        let returned = [Some(0.3), None, Some(0.3), None, Some(0.4)];
        assert_eq!(frozen(0.6, &[&named, &returned]), [0, 1, 3], "of five units now");
    }

    #[test]
    fn rough_histories() {
        for (seed, rate) in (0..40).flat_map(|seed| [0.3, 0.9, 1.0].map(|rate| (seed, rate))) {
            simulated(&|| policy(rate), Signal::WeightChange, &[], rough(seed));
            simulated(&|| policy(rate), Signal::WeightChange, &[0, 5], rough(seed));
        }
        assert_eq!(chain(3).frozen(policy(0.9).as_ref(), &History::default()), [0usize; 0]);
    }
}
