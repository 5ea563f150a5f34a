//! Trains the tensors that promise most within a budget for the step: GreenTrainer.
//!
//! *Idea.* A step on one batch tells what each tensor's update did to the loss. With `g` the gradient after the step,
//! the importance of unit `k` is
//!
//! ```text
//! I_k = -sum(g_k * update_k)
//! ```
//!
//! and the units train that together have the largest `sum I` at a cost within the target. For `flops` the target is
//! turned into one for the backward pass, since the forward pass stays: with `F` and `B` the flops of both,
//!
//! ```text
//! backward target = target (1 + F/B) - F/B, and 0.05 where that is 0 or less
//! ```
//!
//! The cost of a selection is that of the nodes that gradients pass on the way to it, each counted once, from the
//! graph; a node that the cost model cannot count is free. The selection is the best one on chains and, for up to 256
//! tensors, where branch and bound ends in time; beyond, it is a heuristic (closures of the graph with a knapsack in
//! each), within the target but not proven to be the best (`plan::budget`). Where only costs of whole steps are known, units are priced
//! as a chain. The selection is made anew after the first step and then every `interval` epochs, and units freeze and
//! thaw.
//!
//! Without measurements every unit counts alike; so does the first step. A unit of which no finite value is known
//! trains. One with an importance of 0 or less takes no room from the others: it trains where the target leaves some,
//! the least harmful first. (GreenTrainer never selects it. But where the trial step overshoots, as Adam's first one
//! can, most importances are below 0, and next to nothing would train.) One that was frozen by name, or owns no
//! parameter, is not selected. What `keep` names trains beside the selection and its cost comes on top. One unit always trains, the
//! cheapest if no other fits.
//!
//! *Signals.* `importance`.
//!
//! *Knobs.*
//!
//! | knob | unit | range | default |
//! |---|---|---|---|
//! | `target` | fraction of the full step's cost | [0, 1] | 0.6 |
//! | `of` | what is limited: `flops`, `time` or `memory` | | `flops` |
//! | `interval` | epochs from one selection to the next | from 1 | 2 |
//!
//! `memory` is that of gradients, optimizer slots and what the forward pass keeps for the backward pass, without the
//! weights. `time` is the step's seconds: what no freeze removes, and the flops of the backward pass and the bytes of
//! gradients at the speeds that the run measured before its first step. Where none were measured (ahead of a run, or
//! with `ceiling_steps` 0) it is `flops`. Measured times differ from run to run, so with `time` selections can too.
//!
//! *Does nothing* with `target` 1.
//!
//! *Source.* Huang, Yin, Huang, Gao, "GreenTrainer", ICLR 2024, arXiv 2309.13192, and pittisl/GreenTrainer. There,
//! flops come from tables for OPT, BLOOM and T5, gradients pass a chain, and costs are rounded to thousandths of the
//! total. Its probe takes two optimizer steps and puts the weights back but not the moments.
//!
//! *Known negative results.* Optimizer slots stay for every unit that has trained. A budget below the forward pass
//! cannot be kept: 0.05 of the backward pass is then more than the target. The importance of one batch is a rough
//! estimate, and a probe costs a full step.

use super::Entry;
use crate::cost::{Bits, Needs, Reach, StepCost};
use crate::modules::{Unit, UnitKind};
use crate::plan::budget::{Candidate, Effort, Item, Problem, State};
use crate::plan::memo::Memo;
use crate::plan::{Decision, FrozenSet, Knob, Knobs, Moment, Policy, Preset, Range, Reading, Run, Signal, Speeds};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// Trains what is most important within a budget.
#[derive(Debug)]
pub struct Budget {
    target: f64,
    of: Of,
    interval: usize,
    settings: Map<String, Value>,
    frozen: Memo<Question, FrozenSet>,
}

/// What a selection follows from.
type Question = (Vec<Unit>, StepCost, Vec<Candidate>, Option<Speeds>);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Of {
    Flops,
    Time,
    Memory,
}

/// What a selection is priced in, in whole numbers.
#[derive(Clone, Copy, Debug)]
enum Price {
    Flops,
    Bytes,
    /// Picoseconds beside what no freeze removes.
    Time(Speeds),
}

impl Price {
    fn of(self, needs: &Needs) -> u64 {
        match self {
            Price::Flops => needs.flops.total(),
            Price::Bytes => needs.bytes(),
            Price::Time(speeds) => {
                let backward = speeds.backward * needs.flops.backward() as f64;
                (1e12 * (backward + speeds.update * needs.gradient_bytes as f64)) as u64
            }
        }
    }

    /// Returns the most that a step may cost, of a full one.
    fn limit(self, target: f64, full: &Needs) -> u64 {
        if target >= 1.0 {
            return self.of(full);
        }
        // What the target leaves beside a part that stays; a share of the rest where it leaves nothing.
        let beside = |stays: f64, rest: f64| {
            let left = target * (stays + rest) - stays;
            if left > 0.0 { left } else { LEAST * rest }
        };
        match self {
            Price::Bytes => (target * full.bytes() as f64) as u64,
            Price::Flops => {
                let (forward, backward) = (full.flops.forward, full.flops.backward());
                forward.saturating_add(beside(forward as f64, backward as f64) as u64)
            }
            Price::Time(speeds) => beside(1e12 * speeds.fixed, self.of(full) as f64) as u64,
        }
    }
}

pub(super) static ENTRY: Entry = Entry {
    name: "budget",
    knobs: &[
        Knob {
            name: "target",
            about: "fraction of the full step's cost",
            range: Range::Fraction,
            default: Preset::Number(0.6),
        },
        Knob {
            name: "of",
            about: "what is limited",
            range: Range::Word(&["flops", "time", "memory"]),
            default: Preset::Word("flops"),
        },
        Knob {
            name: "interval",
            about: "epochs from one selection to the next",
            range: Range::Count(1),
            default: Preset::Count(2),
        },
    ],
    unit: Some(UnitKind::Parameter),
    card: include_str!("budget.rs"),
    new: |knobs| Ok(Box::new(Budget::new(knobs))),
};

/// The part of the backward pass that trains where the target leaves none.
const LEAST: f64 = 0.05;

impl Budget {
    fn new(knobs: &Knobs<'_>) -> Budget {
        Budget {
            target: knobs.number("target"),
            of: match knobs.word("of") {
                "memory" => Of::Memory,
                "time" => Of::Time,
                _ => Of::Flops,
            },
            interval: knobs.count("interval"),
            settings: knobs.settings(),
            frozen: Memo::default(),
        }
    }

    fn price(&self, at: &Moment<'_>) -> Price {
        match (self.of, at.history.speeds) {
            (Of::Memory, _) => Price::Bytes,
            (Of::Time, Some(speeds)) => Price::Time(speeds),
            _ => Price::Flops,
        }
    }

    fn select(&self, at: &Moment<'_>, candidates: Vec<Candidate>) -> FrozenSet {
        let problem = match at.step_costs.reach() {
            Some(reach) => self.graph(at.units, &reach, self.price(at), candidates),
            None => self.chain(at, candidates),
        };
        let mut chosen = problem.solve(&Effort::default()).chosen;
        if !chosen.contains(&true) {
            let alone = |index: usize| {
                let only: Vec<bool> = (0..chosen.len()).map(|other| other == index).collect();
                problem.cost(&only)
            };
            let free = (0..chosen.len()).rev().filter(|index| problem.candidates[*index].state != State::Frozen);
            match free.min_by_key(|index| alone(*index)) {
                Some(cheapest) => chosen[cheapest] = true,
                None => return FrozenSet::none(chosen.len()),
            }
        }
        FrozenSet::from(chosen.iter().map(|trains| !trains).collect::<Vec<bool>>())
    }

    fn graph(&self, units: &[Unit], reach: &Reach, price: Price, candidates: Vec<Candidate>) -> Problem {
        let members = |unit: &Unit| {
            let held: HashSet<&str> = unit.parameters.iter().chain(&unit.shared).map(String::as_str).collect();
            reach.set(|name| held.contains(name))
        };
        let members: Vec<Bits> = units.iter().map(members).collect();
        let mut planned = reach.set(|_| false);
        members.iter().for_each(|parameters| planned.join(parameters));
        let all = reach.set(|_| true);
        let always = Bits::of(reach.parameters().len(), all.without(&planned).collect::<Vec<usize>>());
        let limit = price.limit(self.target, &reach.cost(&all));
        Problem::of(reach, candidates, &members, &always, |needs| price.of(needs), limit)
    }

    /// Prices the units as a chain: each needs something for itself and what all the units after it pass on. Both
    /// follow from the costs of training one unit alone and beside the first one.
    fn chain(&self, at: &Moment<'_>, candidates: Vec<Candidate>) -> Problem {
        let size = at.units.len();
        let needs = |trains: &dyn Fn(usize) -> bool| {
            let frozen = FrozenSet::from((0..size).map(|index| !trains(index)).collect::<Vec<bool>>());
            Needs::from(at.step_costs.cost(&frozen.parameters(at.units)))
        };
        let price = self.price(at);
        let cost = |trains: &dyn Fn(usize) -> bool| price.of(&needs(trains));
        let base = cost(&|_| false);
        let first = cost(&|index| index == 0);
        let own: Vec<u64> = (0..size)
            .map(|index| match index {
                0 => 0,
                _ => cost(&|other| other == 0 || other == index).saturating_sub(first),
            })
            .collect();
        let pass = own
            .iter()
            .enumerate()
            .map(|(index, own)| cost(&|other| other == index).saturating_sub(base).saturating_sub(*own));
        let pass: Vec<u64> = pass.collect();
        let mut items = Vec::new();
        for (index, own) in own.into_iter().enumerate() {
            items.push(Item { cost: own, any: Bits::of(size, [index]), and: None });
            let beyond = pass.get(index + 1).copied().unwrap_or(0);
            let more = pass.get(index).copied().unwrap_or(0).saturating_sub(beyond);
            items.push(Item { cost: more, any: Bits::of(size, 0..=index), and: None });
        }
        let limit = price.limit(self.target, &needs(&|_| true));
        Problem { candidates, items, base, limit }
    }
}

/// Returns what each unit's training is worth.
fn candidates(at: &Moment<'_>) -> Vec<Candidate> {
    let mut readings: Option<Vec<Reading>> = None;
    for seen in &at.history.observations {
        if !seen.signals.contains_key(&Signal::Importance) {
            continue;
        }
        let now = seen.readings(Signal::Importance, at.units);
        let readings = readings.get_or_insert_with(|| vec![Reading::Absent; now.len()]);
        for (reading, now) in readings.iter_mut().zip(now) {
            if now != Reading::Absent {
                *reading = now;
            }
        }
    }
    if let Some(readings) = &mut readings {
        raise(readings);
    }
    let alike = |unit: &Unit| if unit.parameters.is_empty() { Reading::Absent } else { Reading::Value(1.0) };
    let readings = readings.unwrap_or_else(|| at.units.iter().map(alike).collect());
    let candidate = |reading| match reading {
        Reading::Value(value) => Candidate { value, state: State::Free },
        Reading::Unknown => Candidate { value: 0.0, state: State::Trains },
        Reading::Absent => Candidate { value: 0.0, state: State::Frozen },
    };
    readings.into_iter().map(candidate).collect()
}

/// Raises values of 0 or less above 0, in their order, and all together below the least of the others.
fn raise(readings: &mut [Reading]) {
    let value = |reading: &Reading| if let Reading::Value(value) = reading { Some(*value) } else { None };
    let values: Vec<f64> = readings.iter().filter_map(value).collect();
    let lowest = values.iter().copied().fold(0.0, f64::min);
    let least = values.iter().copied().filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
    let room = if least.is_finite() { least } else { 1.0 } / (values.len() + 1) as f64;
    for reading in readings {
        if let Reading::Value(value) = reading
            && *value <= 0.0
        {
            let part = if lowest < 0.0 { 0.5 + 0.5 * (1.0 - *value / lowest) } else { 1.0 };
            *value = room * part;
        }
    }
}

impl Policy for Budget {
    fn name(&self) -> &str {
        ENTRY.name
    }

    fn decide(&self, at: &Moment<'_>) -> Decision {
        let candidates = candidates(at);
        let question = (at.units.to_vec(), at.step_costs.cost(&HashSet::new()), candidates.clone(), at.history.speeds);
        Decision::of(self.frozen.get(question, || self.select(at, candidates)))
    }

    fn settings(&self) -> Map<String, Value> {
        self.settings.clone()
    }

    fn points(&self, run: Run, _units: usize) -> Vec<usize> {
        let mut points = super::every(run, self.interval.saturating_mul(run.steps_per_epoch));
        points.push(1);
        points
    }

    fn signals(&self) -> Vec<Signal> {
        vec![Signal::Importance]
    }

    fn assumed(&self) -> Option<String> {
        Some("without measurements, policy budget selects as if all units were equally important".into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::find;
    use super::*;
    use crate::cost::Flops;
    use crate::plan::testing::{Chain, RUN, chain, observed, rough, simulated};
    use crate::plan::{History, PlanOptions, build};

    fn policy(target: f64) -> Box<dyn Policy> {
        find(&PlanOptions::of("budget").with("target", target)).unwrap()
    }

    /// The toy case of GreenTrainer, from the input side: `t_dw` and `t_dy` from the output are 5 1 7 3 1 and 0 2 1 4 0.
    fn toy(forward: u64) -> Chain {
        let mut model = chain(5);
        for (cost, (input_grad, weight_grad)) in model.costs.iter_mut().zip([(9, 1), (0, 3), (4, 7), (1, 1), (2, 5)]) {
            cost.flops = Flops { forward, input_grad, weight_grad };
        }
        model
    }

    fn important(values: &[f64]) -> History {
        let values: Vec<Option<f64>> = values.iter().copied().map(Some).collect();
        observed(Signal::Importance, &[&values])
    }

    #[test]
    fn the_selection_is_that_of_greentrainer() {
        let history = important(&[3.0, 5.0, 10.0, 3.0, 1.0]);
        assert_eq!(toy(0).frozen(policy(0.6).as_ref(), &history), [0, 1, 4], "value 13 at cost 11 of 14");
        // 24 backward and 120 forward: the target of 0.6 for the backward pass is one of 0.9334 for the step.
        assert_eq!(toy(24).frozen(policy(0.9334).as_ref(), &history), [0, 1, 4]);
        assert_eq!(toy(24).frozen(policy(1.0).as_ref(), &history), [0usize; 0]);
        // Below the forward pass 0.05 of the backward pass may train, 1 flop: no unit but the first costs so
        // little by itself, and that one needs the gradients of the others. The cheapest is the second from the end.
        assert_eq!(toy(24).frozen(policy(0.5).as_ref(), &history), [0, 1, 2, 4]);
    }

    #[test]
    fn the_best_of_all_selections_is_found() {
        let mut value = rough(3);
        let mut next = || value(0, 0).filter(|value| value.is_finite()).unwrap_or(0.3);
        for round in 0..40 {
            let values: Vec<f64> = (0..5).map(|_| next()).collect();
            let (model, target) = (toy(3), 0.45 + 0.5 * next());
            let frozen = model.frozen(policy(target).as_ref(), &important(&values));
            let cost = |frozen: &[usize]| {
                let set: Vec<bool> = (0..5).map(|index| frozen.contains(&index)).collect();
                let needs =
                    Needs::from(crate::plan::StepCosts::cost(&model, &FrozenSet::from(set).parameters(&model.units)));
                needs.flops.total()
            };
            let limit = ((39.0 * target) as u64).max(15);
            let worth = |frozen: &[usize]| -> f64 {
                (0..5).filter(|index| !frozen.contains(index)).map(|index| values[index]).sum()
            };
            let sets = (0u32..31).map(|set| (0..5).filter(|index| set >> index & 1 == 1).collect::<Vec<usize>>());
            let best = sets.filter(|frozen| cost(frozen) <= limit).map(|frozen| worth(&frozen)).fold(0.0, f64::max);
            assert!((worth(&frozen) - best).abs() < 1e-12 || best == 0.0, "{round}: {values:?} {target} {frozen:?}");
            assert!(cost(&frozen) <= limit || best == 0.0, "{round}: {}", cost(&frozen));
        }
    }

    #[test]
    fn memory_is_what_training_keeps() {
        let mut model = toy(8);
        model.costs[2].slot_bytes = 1000;
        let half = PlanOptions::of("budget").with("of", "memory").with("target", 0.5);
        let frozen = model.frozen(find(&half).unwrap().as_ref(), &important(&[1.0; 5]));
        assert_eq!(frozen, [2]);
    }

    #[test]
    fn what_harms_takes_no_room() {
        let mut readings = [-2.0, 3.0, 0.0, 0.5, -1.0].map(Reading::Value);
        raise(&mut readings);
        let values = readings.map(|reading| if let Reading::Value(value) = reading { value } else { 0.0 });
        assert_eq!((values[1], values[3]), (3.0, 0.5));
        assert!(0.0 < values[0] && values[0] < values[4] && values[4] < values[2], "{values:?}");
        assert!(values[0] + values[2] + values[4] < 0.5, "{values:?}");
    }

    #[test]
    fn time_is_what_was_measured() {
        let half = |of: &str| find(&PlanOptions::of("budget").with("of", of).with("target", 0.5)).unwrap();
        let (model, mut history) = (toy(8), important(&[5.0, 1.0, 2.0, 4.0, 3.0]));
        assert_eq!(
            model.frozen(half("time").as_ref(), &history),
            model.frozen(half("flops").as_ref(), &history),
            "nothing was measured"
        );
        // Five updates of one second each: half of that is two of them, wherever they are.
        let second = 1.0 / model.costs[0].gradient_bytes as f64;
        history.speeds = Some(Speeds { fixed: 0.0, backward: 0.0, update: second });
        assert_eq!(model.frozen(half("time").as_ref(), &history), [1, 2, 4]);
        // Two seconds that stay leave one and a half of the seven.
        history.speeds = Some(Speeds { fixed: 2.0, backward: 0.0, update: second });
        assert_eq!(model.frozen(half("time").as_ref(), &history), [1, 2, 3, 4]);
    }

    #[test]
    fn units_without_a_value() {
        let history = important(&[3.0, f64::NAN, 10.0, 3.0, -1.0]);
        let frozen = toy(0).frozen(policy(0.6).as_ref(), &history);
        assert!(!frozen.contains(&1) && frozen.contains(&4), "{frozen:?}");
        let named = observed(Signal::Importance, &[&[Some(3.0), Some(5.0), None, Some(3.0), Some(1.0)]]);
        assert_eq!(toy(0).frozen(policy(1.0).as_ref(), &named), [2]);
        let empty = toy(0).frozen(policy(0.6).as_ref(), &History::default());
        // Alike, three of the five fit, all without unit 2: with 0 and 3 beside 1 at 12 of 14, or beside 4 at 14.
        assert!([[2, 4], [1, 2]].iter().any(|frozen| empty == frozen), "{empty:?}");
    }

    #[test]
    fn a_plan_says_what_it_assumes_and_keeps_the_target() {
        let model = chain(20);
        for target in [0.4, 0.6, 0.9] {
            let plan = build(&model.inputs(3), &PlanOptions::of("budget").with("target", target)).unwrap();
            let cost = plan.epochs[0].predicted.step_cost;
            assert!(cost <= target && cost > target - 0.05, "{cost}");
            assert!(plan.summary.notes.iter().any(|note| note.contains("equally important")), "{:?}", plan.summary);
        }
        let points = policy(0.6).points(RUN, 3);
        assert_eq!(points.into_iter().collect::<std::collections::BTreeSet<_>>(), [1, 200, 400, 600, 800].into());
    }

    #[test]
    fn rough_histories() {
        for (seed, target) in (0..20).flat_map(|seed| [0.0, 0.5, 0.9].map(|target| (seed, target))) {
            simulated(&|| policy(target), Signal::Importance, &[], rough(seed));
        }
        simulated(&|| policy(0.9), Signal::Importance, &[0, 5], rough(1));
        let harmful = |_: usize, unit: usize| Some(-1.0 - unit as f64);
        let all = simulated(&|| policy(1.0), Signal::Importance, &[], harmful);
        assert!(all.iter().all(|frozen| frozen.count() == 0), "{all:?}");
        let some = simulated(&|| policy(0.8), Signal::Importance, &[], harmful);
        assert!(some.iter().all(|frozen| (1..5).contains(&frozen.count())), "the target leaves room: {some:?}");
    }
}
