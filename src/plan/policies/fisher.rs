//! Freezes the prefix that leaves the most Fisher information for each flop: L-SAR.
//!
//! *Idea.* The trace of a unit's Fisher information says how much its training still changes the model. With `tr F_i`
//! the moving average of the squared gradients of unit `i`, the prefix of `n` units is frozen for which
//!
//! ```text
//! (I/C)_n = sum_{i > n} tr F_i * UC / (UC - sum_{i <= n} BF_i)
//! ```
//!
//! is largest; `UC` is the cost of a step with nothing frozen, and `UC - sum BF_i` the cost of a step with that prefix
//! frozen, both in flops from the costs of whole steps, so that what keeps the backward pass alive is counted. Of
//! equal values the shorter prefix is taken. It is decided every `every` steps; every `refresh`-th interval trains
//! everything, which renews the traces of frozen units, and so units thaw.
//!
//! A unit that trained without a finite value ends the prefix. One that was frozen by name, or owns no parameter,
//! has trace 0. The costs are those without what is frozen or kept by name.
//!
//! *Signals.* `gradient-square`.
//!
//! *Knobs.*
//!
//! | knob | unit | range | default |
//! |---|---|---|---|
//! | `every` | steps of an interval | from 1 | 50 |
//! | `refresh` | intervals, of which one trains everything | from 2 | 4 |
//! | `decay` | weight of the average before, for each interval | [0, 0.999999] | 0.9 |
//!
//! *Does nothing* in the first interval and in every `refresh`-th one, and where the first unit holds more of the
//! information than its freezing saves of the cost.
//!
//! *Source.* L-SAR, "Budgeted Online Continual Learning by Adaptive Layer Freezing and Frequency-based Sampling" (ICLR
//! 2025 submission). L-SAR decides for each batch after its forward pass, by `(I_b/C)_n`, which scales the information
//! by the size of the batch's feature gradient. That variant is left out: a frozen set for each batch is a training
//! graph for each batch. The defaults are chosen here.
//!
//! *Known negative results.* The authors report fewer flops at slightly lower accuracy: CIFAR-10 163.74 to 142.23
//! TFLOPs and 60.76 to 60.38, CIFAR-100 245.91 to 217.40 and 31.97 to 31.77. With a first unit that is cheap and
//! holds much information, nothing freezes. Squared gradients of large units are large because they are sums.

use super::Entry;
use crate::cost::StepCost;
use crate::modules::Unit;
use crate::plan::memo::Memo;
use crate::plan::{Decision, FrozenSet, Knob, Knobs, Moment, Policy, Preset, Range, Reading, Run, Signal};
use crate::signals;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Freezes the prefix with the most information per flop.
#[derive(Debug)]
pub struct Fisher {
    every: usize,
    refresh: usize,
    decay: f64,
    settings: Map<String, Value>,
    /// Flops of a step by the length of the frozen prefix.
    flops: Memo<(Vec<Unit>, StepCost), Arc<Vec<u64>>>,
}

pub(super) static ENTRY: Entry = Entry {
    name: "fisher",
    knobs: &[
        Knob {
            name: "every",
            about: "steps from one decision to the next",
            range: Range::Count(1),
            default: Preset::Count(50),
        },
        Knob {
            name: "refresh",
            about: "of so many intervals one trains everything",
            range: Range::Count(2),
            default: Preset::Count(4),
        },
        Knob {
            name: "decay",
            about: "weight of the average before, for each interval",
            range: Range::Between(0.0, 0.999999),
            default: Preset::Number(0.9),
        },
    ],
    unit: None,
    card: include_str!("fisher.rs"),
    new: |knobs| Ok(Box::new(Fisher::new(knobs))),
};

impl Fisher {
    fn new(knobs: &Knobs<'_>) -> Fisher {
        Fisher {
            every: knobs.count("every").max(1),
            refresh: knobs.count("refresh").max(1),
            decay: knobs.number("decay"),
            settings: knobs.settings(),
            flops: Memo::default(),
        }
    }

    /// Returns the trace of each unit, and the longest prefix of which all that trained is known.
    fn traces(&self, at: &Moment<'_>) -> (Vec<f64>, usize) {
        let mut traces: Vec<Option<f64>> = vec![None; at.units.len()];
        let mut known = vec![true; at.units.len()];
        for seen in &at.history.observations {
            let readings = seen.readings(Signal::GradientSquare, at.units);
            for (index, reading) in readings.into_iter().enumerate() {
                let average = |value| signals::exponential_average(traces[index], value, self.decay);
                match reading {
                    Reading::Absent => {}
                    Reading::Unknown => known[index] = false,
                    Reading::Value(value) => match average(value) {
                        Ok(average) => (traces[index], known[index]) = (Some(average), true),
                        Err(_) => known[index] = false,
                    },
                }
            }
        }
        let most = known.iter().position(|known| !known).unwrap_or(known.len());
        (traces.into_iter().map(Option::unwrap_or_default).collect(), most)
    }

    fn flops(&self, at: &Moment<'_>) -> Arc<Vec<u64>> {
        let count = at.units.len();
        let of = |depth| at.step_costs.cost(&FrozenSet::prefix(count, depth).parameters(at.units));
        let question = (at.units.to_vec(), of(0));
        self.flops.get(question, || Arc::new((0..count).map(|depth| of(depth).total()).collect()))
    }

    fn depth(&self, at: &Moment<'_>) -> usize {
        let interval = at.steps() / self.every;
        if at.history.observations.is_empty() || interval.is_multiple_of(self.refresh) {
            return 0;
        }
        let (traces, most) = self.traces(at);
        let flops = self.flops(at);
        let whole = flops.first().copied().unwrap_or(0) as f64;
        let (mut best, mut depth) = (f64::NEG_INFINITY, 0);
        for (prefix, flops) in flops.iter().enumerate().take(most.saturating_add(1)) {
            let left: f64 = traces.iter().skip(prefix).sum();
            let ratio = if *flops == 0 { 1.0 } else { whole / *flops as f64 };
            if left * ratio > best {
                (best, depth) = (left * ratio, prefix);
            }
        }
        depth
    }
}

impl Policy for Fisher {
    fn name(&self) -> &str {
        ENTRY.name
    }

    fn decide(&self, at: &Moment<'_>) -> Decision {
        Decision::of(FrozenSet::prefix(at.units.len(), self.depth(at)))
    }

    fn settings(&self) -> Map<String, Value> {
        self.settings.clone()
    }

    fn points(&self, run: Run, _units: usize) -> Vec<usize> {
        super::every(run, self.every)
    }

    fn signals(&self) -> Vec<Signal> {
        vec![Signal::GradientSquare]
    }
}

#[cfg(test)]
mod tests {
    use super::super::find;
    use super::*;
    use crate::plan::testing::{chain, observed, rough, simulated};
    use crate::plan::{History, PlanOptions};

    fn each(every: u64) -> Box<dyn Policy> {
        find(&PlanOptions::of("fisher").with("every", every).with("refresh", 4).with("decay", 0.5)).unwrap()
    }

    fn policy() -> Box<dyn Policy> {
        each(10)
    }

    fn depth(rows: &[&[Option<f64>]]) -> usize {
        let model = chain(rows[0].len());
        model.frozen(policy().as_ref(), &observed(Signal::GradientSquare, rows)).len()
    }

    #[test]
    fn the_prefix_has_the_most_information_per_flop() {
        struct Case {
            traces: [f64; 4],
            depth: usize,
        }
        // Four equal units of 1 flop in each pass cost 11, and with a prefix of 1, 2 and 3 frozen 9, 7 and 5:
        // the ratios are 1, 1.2222, 1.5714 and 2.2.
        let cases = [
            Case { traces: [4.0, 3.0, 2.0, 1.0], depth: 0 }, // 10, 7.33, 4.71, 2.2
            Case { traces: [1.0, 2.0, 3.0, 5.0], depth: 2 }, // 11, 12.2, 12.6, 11
            Case { traces: [1.0, 1.0, 3.0, 5.0], depth: 2 }, // 10, 11, 12.57, 11
            Case { traces: [0.1, 0.1, 0.1, 5.0], depth: 3 },
            Case { traces: [2.0, 0.0, 0.0, 9.0], depth: 3 },
            Case { traces: [0.0, 5.0, 5.0, 5.0], depth: 1 }, // 15, 18.3, 15.7, 11
            Case { traces: [0.0; 4], depth: 0 },
        ];
        for Case { traces, depth: expected } in cases {
            assert_eq!(depth(&[&traces.map(Some)]), expected, "{traces:?}");
        }
    }

    #[test]
    fn traces_are_averages_and_every_fourth_interval_trains_all() {
        let (high, low) = ([Some(9.0), Some(1.0), Some(1.0)], [Some(0.0), Some(1.0), Some(1.0)]);
        // Equal units cost 8, 6 and 4: the prefix of 1 is worth 2 * 8 / 6 and the whole `t + 2`; freezing 2 is
        // worth 1 * 8 / 4.
        assert_eq!(depth(&[&high]), 0);
        assert_eq!(depth(&[&low]), 1);
        assert_eq!(depth(&[&high, &low]), 0, "the trace is 4.5");
        assert_eq!(depth(&[&high, &low, &low]), 0, "the trace is 2.25");
        let depths: Vec<usize> = (1..=9).map(|count| depth(&vec![&low[..]; count])).collect();
        assert_eq!(depths, [1, 1, 1, 0, 1, 1, 1, 0, 1], "the fourth interval after the first trains everything");
        assert_eq!(depth(&[&high, &low, &low, &low, &low]), 1, "the trace is 0.5625");
        let none = [None, Some(1.0), Some(1.0)];
        assert_eq!(depth(&[&low, &none, &none]), 1, "the trace of the frozen unit stays");
    }

    #[test]
    fn units_without_a_value() {
        let low = [Some(0.0), Some(0.0), Some(0.0), Some(1.0)];
        assert_eq!(depth(&[&low]), 3);
        assert_eq!(depth(&[&[Some(0.0), Some(f64::NAN), Some(0.0), Some(1.0)]]), 1);
        assert_eq!(depth(&[&low, &[Some(0.0), Some(f64::INFINITY), Some(0.0), Some(1.0)]]), 1);
        assert_eq!(depth(&[&[Some(0.0), None, Some(0.0), Some(1.0)]]), 3);
        assert_eq!(depth(&[&[Some(0.0), Some(1.0), Some(0.0), None]]), 1, "the last is frozen by name");
    }

    #[test]
    fn what_keeps_the_backward_pass_alive_counts() {
        let mut model = chain(4);
        model.units[3].shared = vec!["u0.weight".into()];
        let history = observed(Signal::GradientSquare, &[&[Some(1.0), Some(1.0), Some(3.0), Some(5.0)]]);
        assert_eq!(chain(4).frozen(policy().as_ref(), &history).len(), 2);
        assert_eq!(model.frozen(policy().as_ref(), &history).len(), 0, "u0 trains with the last unit");
    }

    #[test]
    fn rough_histories() {
        for seed in 0..40 {
            simulated(&|| each(40), Signal::GradientSquare, &[], rough(seed));
            simulated(&|| each(40), Signal::GradientSquare, &[0, 5], rough(seed));
        }
        assert_eq!(chain(3).frozen(policy().as_ref(), &History::default()), [0usize; 0]);
        assert_eq!(chain(0).frozen(policy().as_ref(), &observed(Signal::GradientSquare, &[&[]])), [0usize; 0]);
    }
}
