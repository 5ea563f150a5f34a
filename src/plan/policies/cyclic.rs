//! Trains a few units at a time, in turn or drawn at random: HiFT and LISA.
//!
//! *Idea.* Gradients and optimizer state are needed only for what trains now, so training all units one group after
//! the other needs the memory of one group. With `p = trunc(step / every)`, the period:
//!
//! ```text
//! bottom-up   group p mod k trains, of k = ceil(m / group) groups of the m units, from the input side
//! top-down    the same from the output side
//! random      the same in one order that is drawn before the run and stays
//! lisa        active of the m units train, drawn anew in each period without replacement
//! ```
//!
//! With `always`, the first and the last unit train throughout (LISA's embedding and head) and `m` is the number of
//! the others; without it `m` is the number of all. Everything that does not train is frozen, and thaws again.
//!
//! The draws are those of SplitMix64 (Steele, Lea, Flood, 2014): 64 bits of state, which grow by 0x9e3779b97f4a7c15 a
//! draw and are mixed by two xor-shift-multiplications. A number below `n` is the high half of the product of a draw
//! and `n`; an order is Fisher and Yates's. `random` starts from the state `seed`, and each period of `lisa` from the
//! first draw of `seed`, xor the period. So a run that resumes draws as one that did not stop.
//!
//! *Signals.* None: steps only. With unknown steps a step is an epoch and `every` counts epochs.
//!
//! *Knobs.*
//!
//! | knob | unit | range | default |
//! |---|---|---|---|
//! | `order` | `bottom-up`, `top-down`, `random` or `lisa` | | `bottom-up` |
//! | `group` | units that train together, except with `lisa` | 1 or more | 1 |
//! | `active` | units that `lisa` draws | 1 or more | 2 |
//! | `every` | steps of a period | 1 or more | 20 |
//! | `always` | whether the first and the last unit train throughout | | true with `lisa`, else false |
//! | `seed` | start of the draws | 0 or more | 0 |
//!
//! HiFT changes in every step (`every = 1`); LMFlow's LISA has 20 steps and 2 units.
//!
//! *Does nothing* where all units train in one period: with one unit, with `group` or `active` at least `m`, and with
//! `always` and two units.
//!
//! *Source.* HiFT, EMNLP 2024; Pan et al., LISA, NeurIPS 2024, arXiv 2403.17919, and OptimalScale/LMFlow; BAdam,
//! NeurIPS 2024, is `random` with `every` as its inner steps.
//!
//! *Known negative results.* A unit gets one of `k` updates, so a saving per step is none per update. Of many equal
//! units a step costs 1/2 of one with nothing frozen, with `always` 2/3, because gradients pass from the loss down to
//! the lowest unit that trains. No prefix stays frozen for a cache. Units freeze and thaw all the time, so what
//! `on_return` does to their slots matters: `keep` is HiFT's. HiFT's learning rate that stays for a whole cycle is
//! not here: the job's schedule goes on with every step.

use super::Entry;
use crate::modules::UnitKind;
use crate::plan::{Decision, FrozenSet, Knob, Knobs, Moment, Policy, Preset, Range, Run};
use serde_json::{Map, Value};
use std::ops::Range as Span;

/// Trains a few units at a time.
#[derive(Clone, Debug)]
pub struct Cyclic {
    order: Order,
    group: usize,
    active: usize,
    every: usize,
    always: bool,
    seed: u64,
    settings: Map<String, Value>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    BottomUp,
    TopDown,
    Random,
    Lisa,
}

/// More points than a plan could name changes for.
const MOST_POINTS: usize = 10_000_000;

pub(super) static ENTRY: Entry = Entry {
    name: "cyclic",
    knobs: &[
        Knob {
            name: "order",
            about: "which units train next",
            range: Range::Word(&["bottom-up", "top-down", "random", "lisa"]),
            default: Preset::Word("bottom-up"),
        },
        Knob {
            name: "group",
            about: "units that train together, except with lisa",
            range: Range::Count(1),
            default: Preset::Count(1),
        },
        Knob { name: "active", about: "units that lisa draws", range: Range::Count(1), default: Preset::Count(2) },
        Knob { name: "every", about: "steps of a period", range: Range::Count(1), default: Preset::Count(20) },
        Knob {
            name: "always",
            about: "whether the first and the last unit train throughout",
            range: Range::Flag,
            default: Preset::Unset("for lisa"),
        },
        Knob { name: "seed", about: "start of the draws", range: Range::Count(0), default: Preset::Count(0) },
    ],
    unit: Some(UnitKind::Block),
    card: include_str!("cyclic.rs"),
    new: |knobs| Ok(Box::new(Cyclic::new(knobs))),
};

impl Cyclic {
    fn new(knobs: &Knobs<'_>) -> Cyclic {
        let order = match knobs.word("order") {
            "top-down" => Order::TopDown,
            "random" => Order::Random,
            "lisa" => Order::Lisa,
            _ => Order::BottomUp,
        };
        Cyclic {
            order,
            group: knobs.count("group"),
            active: knobs.count("active"),
            every: knobs.count("every"),
            always: knobs.given("always").and_then(Value::as_bool).unwrap_or(order == Order::Lisa),
            seed: knobs.given("seed").and_then(Value::as_u64).unwrap_or_default(),
            settings: knobs.settings(),
        }
    }

    /// Returns the units that take turns.
    fn turning(&self, units: usize) -> Span<usize> {
        let ends = usize::from(self.always);
        ends..units.saturating_sub(ends).max(ends)
    }

    /// Returns how many of `turning` units train in a period.
    fn together(&self) -> usize {
        if self.order == Order::Lisa { self.active } else { self.group }
    }

    /// Returns which of `count` units train in a period.
    fn training(&self, count: usize, period: usize) -> Vec<usize> {
        if self.order == Order::Lisa {
            let state = SplitMix64(self.seed).draw() ^ period as u64;
            return SplitMix64(state).order(count, self.active);
        }
        let groups = count.div_ceil(self.group);
        let turn = period % groups.max(1);
        let turn = match self.order {
            Order::TopDown => groups.saturating_sub(turn + 1),
            Order::Random => SplitMix64(self.seed).order(groups, groups).get(turn).copied().unwrap_or_default(),
            Order::BottomUp | Order::Lisa => turn,
        };
        let first = turn.saturating_mul(self.group);
        (first..first.saturating_add(self.group).min(count)).collect()
    }
}

impl Policy for Cyclic {
    fn name(&self) -> &str {
        ENTRY.name
    }

    fn decide(&self, at: &Moment<'_>) -> Decision {
        let turning = self.turning(at.units.len());
        let training = self.training(turning.len(), at.steps() / self.every);
        let frozen = |unit: usize| turning.contains(&unit) && !training.contains(&(unit - turning.start));
        Decision::of(FrozenSet::from((0..at.units.len()).map(frozen).collect::<Vec<bool>>()))
    }

    fn settings(&self) -> Map<String, Value> {
        self.settings.clone()
    }

    fn points(&self, run: Run, units: usize) -> Vec<usize> {
        if self.turning(units).len() <= self.together() {
            return Vec::new();
        }
        (self.every..run.steps()).step_by(self.every).take(MOST_POINTS).collect()
    }
}

/// A generator of pseudo-random numbers; its state.
struct SplitMix64(u64);

impl SplitMix64 {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `bound`, which is at least 1.
    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.draw()) * bound as u128) >> 64) as usize
    }

    /// Returns the first `wanted` of the numbers below `count` in a drawn order.
    fn order(&mut self, count: usize, wanted: usize) -> Vec<usize> {
        let mut numbers: Vec<usize> = (0..count).collect();
        for place in 0..wanted.min(count) {
            let other = place + self.below(count - place);
            numbers.swap(place, other);
        }
        numbers.truncate(wanted);
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, frozen, policy};
    use super::*;
    use crate::plan::testing::chain;
    use crate::plan::{PlanOptions, build};

    fn options(order: &str, every: u64) -> PlanOptions {
        PlanOptions::of("cyclic").with("order", order).with("every", every)
    }

    #[test]
    fn groups_train_in_turn() {
        struct Case {
            options: PlanOptions,
            units: usize,
            rows: &'static [&'static str],
        }
        let cases = [
            Case { options: options("bottom-up", 1), units: 3, rows: &[".##", "#.#", "##.", ".##", "#.#"] },
            Case { options: options("top-down", 1), units: 3, rows: &["##.", "#.#", ".##", "##.", "#.#"] },
            Case { options: options("bottom-up", 2), units: 2, rows: &[".#", ".#", "#.", "#.", ".#"] },
            Case {
                options: options("bottom-up", 1).with("group", 2),
                units: 5,
                rows: &["..###", "##..#", "####.", "..###", "##..#"],
            },
            Case {
                options: options("top-down", 1).with("group", 2).with("always", true),
                units: 5,
                rows: &[".##..", "...#.", ".##..", "...#.", ".##.."],
            },
            Case { options: options("bottom-up", 1), units: 1, rows: &["."; 5] },
            Case { options: options("random", 1), units: 0, rows: &[""; 5] },
            Case { options: options("lisa", 1), units: 0, rows: &[""; 5] },
            Case { options: options("lisa", 1), units: 1, rows: &["."; 5] },
            Case { options: options("lisa", 1), units: 2, rows: &[".."; 5] },
            Case { options: options("lisa", 1).with("active", 9), units: 5, rows: &["....."; 5] },
        ];
        for Case { options, units, rows } in cases {
            let run = Run { epochs: 4, steps_per_epoch: 1 };
            assert_eq!(frozen(policy(&options).as_ref(), &chain(units), run), rows, "{:?} {units}", options.knobs);
        }
        let once = frozen(policy(&options("bottom-up", 20)).as_ref(), &chain(2), Run { epochs: 1, steps_per_epoch: 1 });
        assert_eq!(once, [".#", ".#"]);
    }

    #[test]
    fn a_cycle_trains_every_unit_once() {
        for (order, group, always) in
            [("bottom-up", 3, false), ("top-down", 2, true), ("random", 1, false), ("random", 4, true)]
        {
            for units in [3, 4, 11] {
                let chain = chain(units);
                let policy = policy(&options(order, 5).with("group", group).with("always", always).with("seed", 7));
                let turning = if always { units - 2 } else { units };
                let cycle = turning.div_ceil(group as usize);
                let run = Run { epochs: 10, steps_per_epoch: 5 * cycle };
                let mut trained = vec![0; units];
                for period in 0..cycle {
                    let decided = policy.decide(&at(&chain, run, 5 * period)).frozen;
                    assert_eq!(decided, policy.decide(&at(&chain, run, 5 * period + 4)).frozen);
                    assert_eq!(decided, policy.decide(&at(&chain, run, 5 * (period + cycle))).frozen);
                    (0..units).filter(|unit| !decided.contains(*unit)).for_each(|unit| trained[unit] += 1);
                }
                let expected = |unit| if always && (unit == 0 || unit + 1 == units) { cycle } else { 1 };
                assert_eq!(trained, (0..units).map(expected).collect::<Vec<_>>(), "{order} {group} {units}");
            }
        }
    }

    #[test]
    fn lisa_draws_without_replacement_and_evenly() {
        let chain = chain(10);
        let policy = policy(&options("lisa", 20).with("seed", 3));
        let run = Run { epochs: 100, steps_per_epoch: 1000 };
        let mut trained = [0; 10];
        let mut seen = std::collections::HashSet::new();
        for period in 0..4000 {
            let decided = policy.decide(&at(&chain, run, 20 * period)).frozen;
            assert_eq!(decided.count(), 6);
            (0..10).filter(|unit| !decided.contains(*unit)).for_each(|unit| trained[unit] += 1);
            seen.insert(format!("{decided:?}"));
        }
        assert_eq!((trained[0], trained[9], seen.len()), (4000, 4000, 28), "28 pairs of 8 units");
        assert!(trained[1..9].iter().all(|count| (900..1100).contains(count)), "a quarter of 4000: {trained:?}");
    }

    #[test]
    fn a_seed_gives_one_sequence() {
        let chain = chain(9);
        let rows = |order, seed: u64| {
            let policy = policy(&options(order, 1).with("seed", seed));
            frozen(policy.as_ref(), &chain, Run { epochs: 8, steps_per_epoch: 1 })
        };
        for order in ["random", "lisa"] {
            assert_eq!(rows(order, 1), rows(order, 1));
            assert_ne!(rows(order, 1), rows(order, 2), "{order}");
        }
    }

    /// The first numbers of the authors' program for these seeds.
    #[test]
    fn the_generator_is_splitmix64() {
        let mut generator = SplitMix64(0);
        let found: Vec<u64> = (0..3).map(|_| generator.draw()).collect();
        assert_eq!(found, [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f]);
        let mut generator = SplitMix64(1_234_567);
        let found: Vec<u64> = (0..3).map(|_| generator.draw()).collect();
        assert_eq!(found, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn periods_are_the_points_of_the_run() {
        let chain = chain(4);
        let run = Run { epochs: 2, steps_per_epoch: 50 };
        assert_eq!(policy(&options("bottom-up", 20)).points(run, 4), [20, 40, 60, 80]);
        assert!(policy(&options("lisa", 20)).points(run, 4).is_empty(), "two units and both are drawn");
        let mut inputs = chain.inputs(2);
        inputs.steps_per_epoch = 50;
        let plan = build(&inputs, &options("bottom-up", 20)).unwrap();
        let stretches: Vec<(usize, usize, String)> = plan
            .epochs
            .iter()
            .flat_map(|epoch| std::iter::once(epoch).chain(&epoch.changes))
            .map(|stretch| (stretch.epoch, stretch.after, stretch.frozen.join(" ").replace(".weight", "")))
            .collect();
        let expected = [
            (1, 0, "u1 u2 u3"),
            (1, 20, "u0 u2 u3"),
            (1, 40, "u0 u1 u3"),
            (2, 0, "u0 u1 u3"),
            (2, 10, "u0 u1 u2"),
            (2, 30, "u1 u2 u3"),
        ];
        assert_eq!(stretches, expected.map(|(epoch, after, names)| (epoch, after, names.to_string())));
    }

    #[test]
    fn a_step_of_many_equal_units_costs_half_and_two_thirds_with_the_ends() {
        let model = chain(200);
        for (always, expected) in [(false, 0.5), (true, 2.0 / 3.0)] {
            let options = options("bottom-up", 1).with("always", always);
            let ratio = build(&model.inputs(198), &options).unwrap().summary.cost_ratio;
            assert!((ratio - expected).abs() < 0.01, "always {always}: {ratio}");
        }
    }
}
