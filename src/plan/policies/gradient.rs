//! Freezes the units whose gradients have changed less than the middle of the others: AutoFreeze.
//!
//! *Idea.* A unit whose summed gradient hardly changes from one interval to the next has settled. With `S_i` the L1
//! norm of the sum of unit `i`'s gradients over an interval,
//!
//! ```text
//! eta_i = |S_i before - S_i| / S_i before          for i = start .. n - 1
//! P     = the percentile of these, interpolated linearly as numpy does
//! start = the first i with eta_i >= P
//! ```
//!
//! and the units before `start` are frozen. It is decided after every `trunc(steps of the run / intervals)` steps. The
//! first interval only measures, so nothing freezes before the end of the second one. Nothing thaws.
//!
//! A unit that trained and has no finite gradient ends the prefix. One that was frozen by name, or owns no
//! parameter, neither counts nor ends it.
//!
//! *Signals.* `gradient-sum`.
//!
//! *Knobs.*
//!
//! | knob | unit | range | default |
//! |---|---|---|---|
//! | `intervals` | intervals of the run | from 2 | 10 |
//! | `percentile` | percentage of the units | [0, 100] | 50 |
//!
//! *Does nothing* in the first two intervals, with `percentile` 0, and while the change of the first unit reaches
//! the percentile.
//!
//! *Source.* Liu, Agarwal, Venkataraman, "AutoFreeze", arXiv 2102.01386, and YuhanLiu11/AutoFreeze, which has 12
//! blocks written into it; here the number of units is free. At every decision it makes a new Adam, which sets the
//! moments to zero. Here they stay.
//!
//! *Known negative results.* A percentile freezes something in almost every interval, however much all units still
//! change. The norm of a sum is small where gradients cancel. In the authors' own comparison, training only the last
//! 3 blocks throughout took MRPC from 87 to 76.5 %.

use super::Entry;
use crate::modules::UnitKind;
use crate::plan::{Decision, FrozenSet, Knob, Knobs, Moment, Policy, Preset, Range, Reading, Run, Signal};
use crate::signals;
use serde_json::{Map, Value};

/// Freezes the prefix whose gradients change less than a percentile.
#[derive(Clone, Debug)]
pub struct Gradient {
    intervals: usize,
    percentile: f64,
    settings: Map<String, Value>,
}

pub(super) static ENTRY: Entry = Entry {
    name: "gradient",
    knobs: &[
        Knob {
            name: "intervals",
            about: "intervals of the run; it decides after each",
            range: Range::Count(2),
            default: Preset::Count(10),
        },
        Knob {
            name: "percentile",
            about: "units before the first one whose change reaches this percentile freeze",
            range: Range::Between(0.0, 100.0),
            default: Preset::Number(50.0),
        },
    ],
    unit: Some(UnitKind::Block),
    card: include_str!("gradient.rs"),
    new: |knobs| Ok(Box::new(Gradient::new(knobs))),
};

impl Gradient {
    fn new(knobs: &Knobs<'_>) -> Gradient {
        Gradient {
            intervals: knobs.count("intervals"),
            percentile: knobs.number("percentile"),
            settings: knobs.settings(),
        }
    }

    /// Returns the first unit that trains after another interval.
    fn moved(&self, start: usize, before: &[Reading], now: &[Reading]) -> usize {
        let change = |(before, now): (&Reading, &Reading)| match (before, now) {
            (Reading::Absent, _) | (_, Reading::Absent) => None,
            (Reading::Value(before), Reading::Value(now)) => {
                Some(signals::relative_change(*before, *now).unwrap_or(f64::NAN))
            }
            _ => Some(f64::NAN),
        };
        let changes: Vec<Option<f64>> = before.iter().zip(now).map(change).collect();
        let active = || changes.iter().enumerate().skip(start).filter_map(|(index, change)| Some((index, (*change)?)));
        let known: Vec<f64> = active().map(|(_, change)| change).filter(|change| !change.is_nan()).collect();
        match signals::percentile(&known, self.percentile) {
            Ok(limit) => active().find(|(_, change)| change.is_nan() || *change >= limit).map_or(start, |(i, _)| i),
            Err(_) => start,
        }
    }
}

impl Policy for Gradient {
    fn name(&self) -> &str {
        ENTRY.name
    }

    fn decide(&self, at: &Moment<'_>) -> Decision {
        let observations = at.history.observations.iter();
        let readings: Vec<_> = observations.map(|seen| seen.readings(Signal::GradientSum, at.units)).collect();
        let mut start = 0;
        for (before, now) in readings.iter().zip(readings.iter().skip(1)) {
            start = self.moved(start, before, now);
        }
        Decision::of(FrozenSet::prefix(at.units.len(), start))
    }

    fn settings(&self) -> Map<String, Value> {
        self.settings.clone()
    }

    fn points(&self, run: Run, _units: usize) -> Vec<usize> {
        super::every(run, run.steps() / self.intervals.max(1))
    }

    fn signals(&self) -> Vec<Signal> {
        vec![Signal::GradientSum]
    }
}

#[cfg(test)]
mod tests {
    use super::super::find;
    use super::*;
    use crate::plan::testing::{RUN, chain, observed, rough, simulated};
    use crate::plan::{History, PlanOptions};

    fn policy(percentile: f64) -> Box<dyn Policy> {
        find(&PlanOptions::of("gradient").with("percentile", percentile)).unwrap()
    }

    /// Returns the depth after each row.
    fn depths(policy: &dyn Policy, rows: &[&[Option<f64>]]) -> Vec<usize> {
        let model = chain(rows[0].len());
        let depth = |count: usize| model.frozen(policy, &observed(Signal::GradientSum, &rows[..count])).len();
        (0..=rows.len()).map(depth).collect()
    }

    #[test]
    fn the_trace_is_that_of_the_paper() {
        let some = |values: [f64; 4]| values.map(Some);
        let (first, second) = (some([10.0, 20.0, 30.0, 40.0]), some([9.0, 15.0, 29.0, 20.0]));
        let third = [None, Some(14.0), Some(28.0), Some(10.0)];
        assert_eq!(depths(policy(50.0).as_ref(), &[&first, &second, &third]), [0, 0, 1, 1]);
        assert_eq!(depths(policy(100.0).as_ref(), &[&first, &second]), [0, 0, 3], "the largest change is the last");
        assert_eq!(depths(policy(0.0).as_ref(), &[&first, &second]), [0, 0, 0]);
    }

    #[test]
    fn units_without_a_value() {
        let policy = policy(50.0);
        let (first, second) = ([None, Some(10.0), Some(10.0)], [None, Some(9.0), Some(5.0)]);
        assert_eq!(depths(policy.as_ref(), &[&first, &second])[2], 2, "the unit frozen by name goes with the prefix");
        let mut history = observed(Signal::GradientSum, &[&first, &second]);
        history.observations[1].frozen[0] = false;
        assert_eq!(chain(3).frozen(policy.as_ref(), &history), [0, 1], "in the first interval it was frozen");
        history.observations[0].frozen[0] = false;
        assert_eq!(chain(3).frozen(policy.as_ref(), &history), [0usize; 0], "nothing is known of the first");
        let zero = [Some(0.0), Some(1.0), Some(1.0)];
        assert_eq!(depths(policy.as_ref(), &[&zero, &zero])[2], 0, "all change alike");
        let nothing: [Option<f64>; 3] = [None; 3];
        assert_eq!(depths(policy.as_ref(), &[&nothing, &nothing])[2], 0);
    }

    #[test]
    fn it_decides_after_every_interval() {
        let policy = policy(50.0);
        assert_eq!(
            policy.points(Run { epochs: 7, steps_per_epoch: 15 }, 3),
            (1..=10).map(|k| 10 * k).collect::<Vec<_>>()
        );
        assert_eq!(policy.points(Run { epochs: 4, steps_per_epoch: 1 }, 3), [1, 2, 3]);
        assert_eq!(policy.points(RUN, 3).len(), 9);
    }

    #[test]
    fn rough_histories() {
        for seed in 0..40 {
            let decisions = simulated(&|| policy(50.0), Signal::GradientSum, &[], rough(seed));
            assert!(decisions.windows(2).all(|pair| pair[0].count() <= pair[1].count()), "{decisions:?}");
            simulated(&|| policy(90.0), Signal::GradientSum, &[0, 5], rough(seed));
        }
        let mut value = rough(7);
        let finite = |index, unit| value(index, unit).filter(|value| value.is_finite() && *value > 0.0).or(Some(0.5));
        let decisions = simulated(&|| policy(50.0), Signal::GradientSum, &[], finite);
        assert!(decisions.last().unwrap().count() > 0, "{decisions:?}");
        assert_eq!(chain(3).frozen(policy(50.0).as_ref(), &History::default()), [0usize; 0]);
    }
}
