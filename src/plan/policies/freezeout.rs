//! Anneals the learning rate of each unit to zero and freezes it there, from the input side: FreezeOut.
//!
//! *Idea.* Units near the input get a shorter cosine schedule of their own. Unit `i` of `0..=I` reaches rate zero
//! at the fraction `t_i` of the run and is frozen from the next step on, so freezing makes no jump in the rate:
//!
//! ```text
//! t_i      = s(t_0 + (1 - t_0) i / I)        s(x) = x, x^2 or x^3; t_I = 1
//! peak_i   = 1 / t_i  if scaled, else 1
//! rate_i   = lr * peak_i * (1 + cos(pi t / t_i)) / 2      for t <= t_i
//! frozen   for t > t_i
//! ```
//!
//! `t` is the step over the steps of the run and `lr` the job's `optimizer.lr`. Scaled, the area under the rate is
//! the same for all units. The last unit trains to the end, and nothing thaws. `t_i` is computed in f64 as in the
//! authors' code: 0.3^3 is a little less than 0.027, and a unit then freezes after 27 of 1000 steps and not after 28.
//!
//! *Signals.* None: steps only. A unit freezes before the first step `j` with `j > steps * t_i`; with unknown steps
//! that is shown at the start of the next epoch.
//!
//! *Knobs.*
//!
//! | knob | unit | range | default |
//! |---|---|---|---|
//! | `t_0` | fraction of the run at which the first unit freezes, before `how` | [0.01, 1] | 0.8 |
//! | `how` | `linear`, `square` or `cubic`: the function `s` | | `cubic` |
//! | `scaled` | whether early units get the higher peak `1 / t_i` | | true |
//! | `anneal` | whether the cosines replace the job's `[schedule]`; if not, it stays, times `peak_i` | | true |
//!
//! With `cubic` and `t_0` 0.8 the first unit freezes at 0.512 of the run.
//!
//! *Does nothing* to what trains with `t_0` 1 (every unit then follows one cosine to the end) and with one unit.
//!
//! *Source.* Brock, Lim, Ritchie, Weston, arXiv 1706.04983; ajbrock/FreezeOut. The paper omits the factor 1/2 of
//! the rate. The code puts frozen blocks into inference form: `batch_norm = "frozen"` does that here. It counts 1000
//! steps an epoch whatever the data are; here the steps are the run's.
//!
//! *Known negative results.* By its authors' account a 3 % larger error (relative) on DenseNet for 20 % of the time,
//! and no benefit on VGG. An independent benchmark of fixed time (ResNet-20 of 4 times the width, frozen to stage 1
//! at 70 % of the run) got the whole saving of the backward pass and lost 0.3 points. Scaled with a small `t_0`
//! the first rates are very large: 8 times `lr` with `cubic` and `t_0` 0.5.

use super::Entry;
use crate::modules::UnitKind;
use crate::plan::{Decision, FrozenSet, Knob, Knobs, Moment, Policy, Preset, Range, Run};
use serde_json::{Map, Value};
use std::f64::consts::PI;

/// Freezes each unit where its own cosine schedule ends.
#[derive(Clone, Debug)]
pub struct FreezeOut {
    start: f64,
    shape: Shape,
    scaled: bool,
    anneal: bool,
    settings: Map<String, Value>,
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    Linear,
    Square,
    Cubic,
}

pub(super) static ENTRY: Entry = Entry {
    name: "freezeout",
    knobs: &[
        Knob {
            name: "t_0",
            about: "fraction of the run at which the first unit freezes, before it is squared or cubed",
            range: Range::Between(0.01, 1.0),
            default: Preset::Number(0.8),
        },
        Knob {
            name: "how",
            about: "how the ends of the units are spread over the run",
            range: Range::Word(&["linear", "square", "cubic"]),
            default: Preset::Word("cubic"),
        },
        Knob {
            name: "scaled",
            about: "whether a unit that freezes early starts at a higher rate, 1 / t_i",
            range: Range::Flag,
            default: Preset::Flag(true),
        },
        Knob {
            name: "anneal",
            about: "whether each unit's cosine replaces the job's schedule",
            range: Range::Flag,
            default: Preset::Flag(true),
        },
    ],
    unit: Some(UnitKind::Block),
    card: include_str!("freezeout.rs"),
    new: |knobs| Ok(Box::new(FreezeOut::new(knobs))),
};

impl FreezeOut {
    /// Returns the policy of some settings.
    fn new(knobs: &Knobs<'_>) -> FreezeOut {
        let shape = match knobs.word("how") {
            "linear" => Shape::Linear,
            "square" => Shape::Square,
            _ => Shape::Cubic,
        };
        let (start, scaled, anneal) = (knobs.number("t_0"), knobs.flag("scaled"), knobs.flag("anneal"));
        FreezeOut { start, shape, scaled, anneal, settings: knobs.settings() }
    }

    /// Returns where the schedule of unit `index` of `0..=last` ends: a fraction of the run, in f64 and in the order of
    /// operations of the authors' code.
    fn end(&self, index: usize, last: usize) -> f64 {
        let x = self.start + (1.0 - self.start) * index as f64 / last as f64;
        match self.shape {
            Shape::Linear => x,
            Shape::Square => x.powf(2.0),
            Shape::Cubic => x.powf(3.0),
        }
    }

    /// Returns `t_i` of each of `units` units.
    fn ends(&self, units: usize) -> impl Iterator<Item = f64> {
        let last = units.saturating_sub(1);
        (0..units).map(move |index| if index == last { 1.0 } else { self.end(index, last) })
    }
}

impl Policy for FreezeOut {
    fn name(&self) -> &str {
        ENTRY.name
    }

    fn decide(&self, at: &Moment<'_>) -> Decision {
        let (done, steps) = (at.steps() as f64, at.run().steps() as f64);
        let frozen: Vec<bool> = self.ends(at.units.len()).map(|end| done > steps * end).collect();
        Decision::of(FrozenSet::from(frozen))
    }

    fn settings(&self) -> Map<String, Value> {
        self.settings.clone()
    }

    fn points(&self, run: Run, units: usize) -> Vec<usize> {
        let first_frozen = |end: f64| (run.steps() as f64 * end).floor() as usize + 1;
        self.ends(units).map(first_frozen).collect()
    }

    fn lr_scale(&self, at: &Moment<'_>) -> Option<Vec<f64>> {
        if !self.anneal && !self.scaled {
            return None;
        }
        let (done, steps) = (at.steps() as f64, at.run().steps() as f64);
        let factor = |end: f64| {
            let peak = if self.scaled { 1.0 / end } else { 1.0 };
            match (self.anneal, done / (steps * end)) {
                (false, _) => peak,
                (true, part) if part > 1.0 => 0.0,
                (true, part) => 0.5 * peak * (1.0 + (PI * part).cos()),
            }
        };
        Some(self.ends(at.units.len()).map(factor).collect())
    }

    fn anneals(&self) -> bool {
        self.anneal
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, frozen, policy};
    use super::*;
    use crate::cost::Flops;
    use crate::plan::testing::chain;
    use crate::plan::{PlanOptions, build, build_with};

    fn options(how: &str, start: f64, scaled: bool) -> PlanOptions {
        PlanOptions::of("freezeout").with("how", how).with("t_0", start).with("scaled", scaled)
    }

    fn of(how: &str, start: f64) -> FreezeOut {
        FreezeOut::new(&Knobs::new("freezeout", ENTRY.knobs, &options(how, start, true).knobs).unwrap())
    }

    #[test]
    fn ends_and_peaks_are_those_of_the_paper() {
        struct Case {
            how: &'static str,
            start: f64,
            ends: [f64; 6],
            peaks: [f64; 6],
        }
        let cases = [
            Case {
                how: "linear",
                start: 0.5,
                ends: [0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
                peaks: [0.2, 0.1667, 0.1429, 0.125, 0.1111, 0.1],
            },
            Case {
                how: "linear",
                start: 0.8,
                ends: [0.8, 0.84, 0.88, 0.92, 0.96, 1.0],
                peaks: [0.125, 0.119, 0.1136, 0.1087, 0.1042, 0.1],
            },
            Case {
                how: "cubic",
                start: 0.5,
                ends: [0.125, 0.216, 0.343, 0.512, 0.729, 1.0],
                peaks: [0.8, 0.463, 0.2915, 0.1953, 0.1372, 0.1],
            },
            Case {
                how: "cubic",
                start: 0.8,
                ends: [0.512, 0.5927, 0.6815, 0.7787, 0.8847, 1.0],
                peaks: [0.1953, 0.1687, 0.1467, 0.1284, 0.113, 0.1],
            },
            Case {
                how: "square",
                start: 0.5,
                ends: [0.25, 0.36, 0.49, 0.64, 0.81, 1.0],
                peaks: [0.4, 0.2778, 0.2041, 0.1563, 0.1235, 0.1],
            },
        ];
        let chain = chain(6);
        let run = Run { epochs: 10, steps_per_epoch: 100 };
        let mut failures = Vec::new();
        for Case { how, start, ends, peaks } in cases {
            let found: Vec<f64> = of(how, start).ends(6).collect();
            let rates = of(how, start).lr_scale(&at(&chain, run, 0)).unwrap();
            for (index, (end, peak)) in ends.into_iter().zip(peaks).enumerate() {
                if (found[index] - end).abs() > 5.1e-5 || (0.1 * rates[index] - peak).abs() > 5.1e-5 {
                    failures.push(format!("{how} {start} unit {index}: {} {}", found[index], 0.1 * rates[index]));
                }
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }

    #[test]
    fn the_rate_falls_to_zero_where_the_unit_freezes() {
        let chain = chain(6);
        let run = Run { epochs: 10, steps_per_epoch: 100 };
        let rates = |scaled: bool, step| {
            let policy = policy(&options("cubic", 0.8, scaled));
            policy.lr_scale(&at(&chain, run, step)).unwrap()
        };
        let scaled = [(0, 0.19531), (250, 0.10125), (500, 0.00026), (512, 0.0), (513, 0.0)];
        let plain = [(0, 0.1), (250, 0.05184), (500, 0.00014), (512, 0.0), (513, 0.0)];
        for (expected, is_scaled) in [(scaled, true), (plain, false)] {
            for (step, rate) in expected {
                let found = 0.1 * rates(is_scaled, step)[0];
                assert!((found - rate).abs() < 5.1e-6, "scaled {is_scaled}, step {step}: {found}, expected {rate}");
            }
        }
        assert!((rates(true, 500)[5] - 0.5).abs() < 1e-12, "the last unit is half way down");
    }

    #[test]
    fn the_jobs_schedule_stays_where_nothing_is_annealed() {
        let chain = chain(6);
        let run = Run { epochs: 10, steps_per_epoch: 100 };
        let kept = |scaled| policy(&options("linear", 0.5, scaled).with("anneal", false));
        assert!(!kept(true).anneals() && policy(&options("linear", 0.5, true)).anneals());
        let factors = kept(true).lr_scale(&at(&chain, run, 321)).unwrap();
        assert_eq!((factors[0], factors[5]), (2.0, 1.0));
        assert_eq!(kept(false).lr_scale(&at(&chain, run, 321)), None);
    }

    #[test]
    fn units_freeze_in_the_first_step_past_their_end() {
        struct Case {
            how: &'static str,
            start: f64,
            steps: [usize; 5],
        }
        let cases = [
            Case { how: "cubic", start: 0.8, steps: [513, 593, 682, 779, 885] },
            Case { how: "cubic", start: 0.5, steps: [126, 216, 343, 513, 730] },
            Case { how: "linear", start: 0.5, steps: [501, 601, 701, 801, 901] },
            Case { how: "square", start: 0.5, steps: [251, 361, 490, 641, 811] },
        ];
        let chain = chain(6);
        let run = Run { epochs: 10, steps_per_epoch: 100 };
        for Case { how, start, steps } in cases {
            let policy = of(how, start);
            assert_eq!(policy.points(run, 6)[..5], steps, "{how} {start}");
            for (depth, step) in steps.into_iter().enumerate() {
                let count = |step| policy.decide(&at(&chain, run, step)).frozen;
                assert_eq!(count(step - 1), FrozenSet::prefix(6, depth), "{how} {start} before {step}");
                assert_eq!(count(step), FrozenSet::prefix(6, depth + 1), "{how} {start} at {step}");
            }
        }
    }

    /// Ends that are whole numbers of steps in decimals: in f64 some fall just short, and the unit freezes one step
    /// earlier, as in the authors' code.
    #[test]
    fn ends_round_as_in_the_authors_code() {
        let first = |how, start, epochs| of(how, start).points(Run { epochs, steps_per_epoch: 1000 }, 2)[0];
        assert_eq!(first("cubic", 0.3, 1), 27);
        assert_eq!(first("cubic", 0.15, 40), 135);
        assert_eq!(first("cubic", 0.8, 1), 513);
        assert_eq!(of("cubic", 0.5).points(Run { epochs: 1, steps_per_epoch: 1000 }, 6)[2], 343);
    }

    #[test]
    fn without_steps_a_freeze_is_shown_at_the_start_of_the_next_epoch() {
        let chain = chain(6);
        let policy = of("cubic", 0.8);
        let run = Run { epochs: 10, steps_per_epoch: 1 };
        let counts: Vec<usize> = (0..=10).map(|epoch| policy.decide(&at(&chain, run, epoch)).frozen.count()).collect();
        assert_eq!(counts, [0, 0, 0, 0, 0, 0, 2, 3, 4, 5, 5]);
        let fine = Run { epochs: 10, steps_per_epoch: 100 };
        for (epoch, count) in counts.into_iter().enumerate() {
            assert_eq!(policy.decide(&at(&chain, fine, 100 * epoch)).frozen.count(), count, "epoch {epoch}");
        }
    }

    #[test]
    fn the_depth_never_falls_and_the_last_unit_trains() {
        for units in [0, 1, 2, 7] {
            let chain = chain(units);
            for (epochs, steps_per_epoch) in [(1, 1), (1, 100), (9, 1), (3, 100)] {
                let run = Run { epochs, steps_per_epoch };
                for (how, start) in [("linear", 0.01), ("square", 0.3), ("cubic", 0.01), ("cubic", 1.0)] {
                    let policy = of(how, start);
                    let mut before = 0;
                    for step in 0..=run.steps() {
                        let Decision { frozen, fraction } = policy.decide(&at(&chain, run, step));
                        assert!(frozen.count() >= before && frozen.count() <= units.saturating_sub(1));
                        assert_eq!(frozen, FrozenSet::prefix(units, frozen.count()));
                        assert!((0.0..=1.0).contains(&fraction));
                        before = frozen.count();
                    }
                    assert_eq!(before, if start == 1.0 { 0 } else { units.saturating_sub(1) });
                }
            }
        }
        assert_eq!(
            frozen(&of("cubic", 0.8), &chain(3), Run { epochs: 4, steps_per_epoch: 1 }),
            ["...", "...", "...", "##.", "##."]
        );
    }

    /// The savings of `calc_speedup` for the default DenseNet, whose code divides by the number of layers.
    #[test]
    fn the_authors_prediction_for_densenet_comes_out() {
        let mut costs = vec![3.0 * 24.0 * 1024.0 * 9.0];
        let mut channels = 2.0;
        for pixels in [1024.0, 256.0, 64.0] {
            for _ in 0..12 {
                costs.push(channels * 576.0 * pixels + 4.0 * 9.0 * 144.0 * pixels);
                channels += 1.0;
            }
            channels = f64::floor(channels * 0.5);
        }
        for (how, start, expected) in
            [("linear", 0.5, 0.173), ("linear", 0.8, 0.069), ("cubic", 0.5, 0.348), ("cubic", 0.7, 0.246)]
                .into_iter()
                .chain([("cubic", 0.8, 0.178), ("cubic", 0.9, 0.096)])
        {
            let policy = of(how, start);
            let end = |index: usize| policy.end(index, costs.len());
            let total: f64 = costs.iter().sum();
            let trained: f64 = costs.iter().enumerate().map(|(index, cost)| cost * end(index)).sum();
            let saving = 1.0 - (total + trained) / (2.0 * total);
            assert!((saving - expected).abs() < 5.1e-4, "{how} {start}: {saving}, expected {expected}");
        }
    }

    #[test]
    fn the_plan_of_equal_units_saves_what_the_formula_says() {
        let mut chain = chain(6);
        for cost in &mut chain.costs {
            cost.flops = Flops { forward: 1, input_grad: 0, weight_grad: 1 };
        }
        for (how, start) in [("linear", 0.5), ("square", 0.5), ("cubic", 0.5), ("cubic", 0.8)] {
            let mut inputs = chain.inputs(10);
            inputs.steps_per_epoch = 1000;
            let plan = build(&inputs, &options(how, start, true)).unwrap();
            let mean = of(how, start).ends(6).sum::<f64>() / 6.0;
            let saving = 1.0 - plan.summary.cost_ratio;
            assert!((saving - (1.0 - mean) / 2.0).abs() < 1e-4, "{how} {start}: {saving}, {}", (1.0 - mean) / 2.0);
        }
    }

    #[test]
    fn what_the_user_keeps_follows_the_schedule_of_the_last_unit() {
        let chain = chain(3);
        let mut inputs = chain.inputs(4);
        inputs.steps_per_epoch = 10;
        let policy = of("linear", 0.5);
        let plan = build_with(&inputs, &policy, &[], &["u0".to_string()]).unwrap();
        assert!(plan.epochs.iter().all(|epoch| !epoch.frozen.contains(&"u0.weight".to_string())));
        let first = &plan.epochs[0].lr_scale;
        assert_eq!((first.get("u0.weight"), first.get("u1.weight").copied()), (None, Some(1.0 / 0.75)));
        assert_eq!(plan.epochs[2].changes.len(), 0, "u0 would freeze in step 21 of the run");
        assert_eq!(plan.epochs[3].changes[0].after, 1);
    }
}
