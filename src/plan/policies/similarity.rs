//! Freezes units whose outputs are still those of an earlier model: SimFreeze.
//!
//! *Idea.* A unit whose output on the same samples is as similar to that of an earlier self as it was before has
//! nothing left to learn. With `c_i` the similarity of unit `i` to itself at the reference, in [0, 1],
//!
//! ```text
//! unit i is stable when c_i >= threshold at `patience` consecutive evaluations
//! frozen: with `prefix_only`, the units before the first one that is not stable; without it, all that are stable
//! ```
//!
//! The measures: `cka` is linear CKA on all samples; `minibatch-cka` averages unbiased estimates (HSIC1) over
//! batches; `svcca` is the mean canonical correlation of what holds 99 % of the singular values; `pwcca` weights
//! canonical correlations by how much of the output they explain. Nothing thaws.
//!
//! A unit of which no finite value is known is not stable, and its evaluations are counted anew. One that was frozen by
//! name, or owns no parameter, does not end the prefix. One unit of those that can be measured always trains.
//!
//! *Signals.* The one that `measure` names, with `refresh` as the age of the reference.
//!
//! *Knobs.*
//!
//! | knob | unit | range | default |
//! |---|---|---|---|
//! | `measure` | `svcca`, `pwcca`, `cka` or `minibatch-cka` | | `cka` |
//! | `threshold` | similarity | [0, 1] | 0.99 |
//! | `patience` | consecutive evaluations | from 1 | 3 |
//! | `prefix_only` | whether the first unit that is not stable ends the frozen part | true or false | true |
//! | `every` | steps from one evaluation to the next | from 1 | 50 |
//! | `refresh` | evaluations until the reference is renewed | from 1 | 1 |
//! | `samples` | samples that outputs are taken of | from 4 | 256 |
//!
//! *Does nothing* in the first `patience` evaluations, and with `prefix_only` while the first unit still changes.
//!
//! *Source.* Freezing by the similarity to itself over time: SimFreeze in Li et al., "ETuner" (EdgeOL), arXiv
//! 2401.16694. Measures: Raghu et al. 2017 (arXiv 1706.05806), Morcos et al. 2018 (1806.05759), Kornblith et al.
//! 2019 (1905.00414), Nguyen, Raghu, Kornblith 2021. SimFreeze resumes layers when the scenario changes; a run knows no
//! scenarios, so here nothing thaws. The defaults are chosen here.
//!
//! *Known negative results.* A unit that changes slowly is similar to a young reference at every evaluation; a larger
//! `refresh` asks for more. Biased CKA is too high where features outnumber samples by far; `minibatch-cka` is
//! not. CCA needs more samples than neurons. Without `prefix_only`, a frozen unit behind one that trains saves its weight
//! gradient only.

use super::Entry;
use crate::plan::{Decision, FrozenSet, Knob, Knobs, Moment, Policy, Preset, Range, Reading, Reference, Run, Signal};
use serde_json::{Map, Value};

/// Freezes what resembles its earlier self.
#[derive(Clone, Debug)]
pub struct Similarity {
    measure: Signal,
    threshold: f64,
    patience: usize,
    prefix_only: bool,
    every: usize,
    reference: Reference,
    settings: Map<String, Value>,
}

pub(super) static ENTRY: Entry = Entry {
    name: "similarity",
    knobs: &[
        Knob {
            name: "measure",
            about: "how outputs are compared",
            range: Range::Word(&["svcca", "pwcca", "cka", "minibatch-cka"]),
            default: Preset::Word("cka"),
        },
        Knob {
            name: "threshold",
            about: "similarity from which a unit counts as unchanged",
            range: Range::Fraction,
            default: Preset::Number(0.99),
        },
        Knob {
            name: "patience",
            about: "consecutive evaluations for which it must be unchanged",
            range: Range::Count(1),
            default: Preset::Count(3),
        },
        Knob {
            name: "prefix_only",
            about: "freeze up to the first unit that is not stable; false: any stable unit",
            range: Range::Flag,
            default: Preset::Flag(true),
        },
        Knob {
            name: "every",
            about: "steps from one evaluation to the next",
            range: Range::Count(1),
            default: Preset::Count(50),
        },
        Knob {
            name: "refresh",
            about: "evaluations until the reference is renewed",
            range: Range::Count(1),
            default: Preset::Count(1),
        },
        super::SAMPLES,
    ],
    unit: None,
    card: include_str!("similarity.rs"),
    new: |knobs| Ok(Box::new(Similarity::new(knobs))),
};

impl Similarity {
    fn new(knobs: &Knobs<'_>) -> Similarity {
        let measure = match knobs.word("measure") {
            "svcca" => Signal::Svcca,
            "pwcca" => Signal::Pwcca,
            "minibatch-cka" => Signal::MinibatchCka,
            _ => Signal::Cka,
        };
        Similarity {
            measure,
            threshold: knobs.number("threshold"),
            patience: knobs.count("patience"),
            prefix_only: knobs.flag("prefix_only"),
            every: knobs.count("every"),
            reference: Reference { refresh: knobs.count("refresh"), samples: knobs.count("samples") },
            settings: knobs.settings(),
        }
    }

    /// Freezes what is stable; `counts` are consecutive evaluations.
    fn freeze(&self, frozen: &mut [bool], counts: &[usize], readings: &[Reading]) {
        let measured = |(index, reading): &(usize, &Reading)| reading.value().is_some() && !frozen[*index];
        let Some(last) = readings.iter().enumerate().filter(measured).map(|(index, _)| index).next_back() else {
            return;
        };
        let stable = |index: usize| counts.get(index).is_some_and(|count| *count >= self.patience);
        if !self.prefix_only {
            (0..frozen.len()).filter(|index| *index != last && stable(*index)).for_each(|index| frozen[index] = true);
            return;
        }
        let mut depth = 0;
        for (index, reading) in readings.iter().enumerate().take(last) {
            if frozen[index] || stable(index) {
                depth = index + 1;
            } else if *reading != Reading::Absent {
                break;
            }
        }
        frozen.iter_mut().take(depth).for_each(|frozen| *frozen = true);
    }
}

impl Policy for Similarity {
    fn name(&self) -> &str {
        ENTRY.name
    }

    fn decide(&self, at: &Moment<'_>) -> Decision {
        let mut frozen = vec![false; at.units.len()];
        let mut counts = vec![0; at.units.len()];
        for seen in &at.history.observations {
            let readings = seen.readings(self.measure, at.units);
            for (count, reading) in counts.iter_mut().zip(&readings) {
                match reading {
                    Reading::Value(value) if *value >= self.threshold => *count += 1,
                    Reading::Value(_) | Reading::Unknown => *count = 0,
                    Reading::Absent => {}
                }
            }
            self.freeze(&mut frozen, &counts, &readings);
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
        vec![self.measure]
    }

    fn reference(&self) -> Reference {
        self.reference
    }
}

#[cfg(test)]
mod tests {
    use super::super::find;
    use super::*;
    use crate::plan::testing::{chain, observed, rough, simulated};
    use crate::plan::{History, PlanOptions};

    fn policy(prefix_only: bool) -> Box<dyn Policy> {
        let options = PlanOptions::of("similarity").with("patience", 2).with("threshold", 0.9);
        find(&options.with("prefix_only", prefix_only)).unwrap()
    }

    /// Returns what is frozen after each row.
    fn frozen(prefix_only: bool, rows: &[&[Option<f64>]]) -> Vec<Vec<usize>> {
        let model = chain(rows[0].len());
        let policy = policy(prefix_only);
        (1..=rows.len()).map(|count| model.frozen(policy.as_ref(), &observed(Signal::Cka, &rows[..count]))).collect()
    }

    #[test]
    fn stable_units_freeze_up_to_the_first_that_is_not() {
        let rows: [&[Option<f64>]; 5] = [
            &[Some(0.95), Some(0.2), Some(0.95), Some(0.95)],
            &[Some(0.9), Some(0.95), Some(0.95), Some(0.95)],
            &[None, Some(0.95), Some(0.95), Some(0.95)],
            &[None, None, None, Some(0.95)],
            &[None, None, None, Some(0.95)],
        ];
        assert_eq!(frozen(true, &rows), [vec![], vec![0], vec![0, 1, 2], vec![0, 1, 2], vec![0, 1, 2]]);
        let rows = [rows[0], rows[1], &[None, Some(0.95), None, Some(0.95)], &[None, None, None, Some(0.5)]];
        assert_eq!(frozen(false, &rows), [vec![], vec![0, 2], vec![0, 1, 2], vec![0, 1, 2]]);
    }

    #[test]
    fn evaluations_must_follow_each_other() {
        let rows: [&[Option<f64>]; 4] =
            [&[Some(0.95), Some(0.1)], &[Some(0.89), Some(0.1)], &[Some(0.95), Some(0.1)], &[Some(0.95), Some(0.1)]];
        assert_eq!(frozen(true, &rows), [vec![], vec![], vec![], vec![0]]);
        let rows: [&[Option<f64>]; 3] =
            [&[Some(0.95), Some(0.1)], &[Some(f64::NAN), Some(0.1)], &[Some(0.95), Some(0.1)]];
        assert_eq!(frozen(true, &rows)[2], [0usize; 0]);
    }

    #[test]
    fn units_without_a_value() {
        let row = [Some(0.95), None, Some(0.95), Some(0.95)];
        assert_eq!(frozen(true, &[&row, &row])[1], [0, 1, 2], "the unit frozen by name goes with the prefix");
        assert_eq!(frozen(false, &[&row, &row])[1], [0, 2]);
        let row = [Some(0.95), None, Some(0.1), Some(0.95)];
        assert_eq!(frozen(true, &[&row, &row])[1], [0]);
        let row = [Some(0.95), None, Some(0.95), Some(0.95)];
        let mut history = observed(Signal::Cka, &[&row, &row]);
        history.observations[1].frozen[1] = false;
        assert_eq!(chain(4).frozen(policy(true).as_ref(), &history), [0], "unit 1 trained, and nothing is known of it");
    }

    #[test]
    fn every_measure_is_asked_for() {
        for (word, signal) in [
            ("svcca", Signal::Svcca),
            ("pwcca", Signal::Pwcca),
            ("cka", Signal::Cka),
            ("minibatch-cka", Signal::MinibatchCka),
        ] {
            let options = PlanOptions::of("similarity").with("measure", word).with("refresh", 4).with("samples", 32);
            let policy = find(&options.with("patience", 1)).unwrap();
            assert_eq!(policy.signals(), [signal]);
            assert_eq!(policy.reference(), Reference { refresh: 4, samples: 32 });
            let history = observed(signal, &[&[Some(1.0), Some(1.0)]]);
            assert_eq!(chain(2).frozen(policy.as_ref(), &history), [0], "{word}");
        }
    }

    #[test]
    fn rough_histories() {
        for (seed, prefix_only) in (0..40).flat_map(|seed| [(seed, true), (seed, false)]) {
            simulated(&|| policy(prefix_only), Signal::Cka, &[], rough(seed));
            simulated(&|| policy(prefix_only), Signal::Cka, &[0, 5], rough(seed));
        }
        for prefix_only in [true, false] {
            let count = |by_name: &[usize]| {
                let decisions = simulated(&|| policy(prefix_only), Signal::Cka, by_name, |_, _| Some(1.0));
                decisions.last().map(FrozenSet::count)
            };
            assert_eq!((count(&[]), count(&[5])), (Some(5), Some(4)));
            assert_eq!(chain(3).frozen(policy(prefix_only).as_ref(), &History::default()), [0usize; 0]);
        }
    }
}
