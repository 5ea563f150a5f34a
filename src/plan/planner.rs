//! Asks a policy point by point and writes down what it says.

use super::freeze_plan::*;
use super::options::check_epochs;
use super::selection::{Wish, wishes};
use super::summary::summary;
use super::{Accompanied, Decision, FrozenSet, History, Inputs, Moment, PlanError, Policy, Run};
use crate::cost::{Flops, StepCost, UnitCost};
use crate::modules::Unit;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// The most names that changes within epochs may list: beyond, a plan is no file for anybody.
const MOST_NAMES: usize = 5_000_000;

/// Note of a plan whose policy would act within epochs and does not know their steps.
pub const SHOWN_LATER: &str =
    "freezes within an epoch are shown at the start of the next one: the steps of an epoch are not known";

/// Makes plans of one policy for one model: ahead, and again when a run has measured more.
pub struct Planner<'a> {
    inputs: Inputs<'a>,
    policy: &'a dyn Policy,
    wishes: Vec<Vec<Wish>>,
    /// Steps of the run after which the policy is asked, in order.
    points: Vec<usize>,
    prices: RefCell<HashMap<Vec<String>, StepCost>>,
}

/// What is frozen of the units.
struct Frozen {
    names: Vec<String>,
    units: usize,
    statistics: Vec<String>,
    dropout_off: Vec<String>,
}

/// When a planner decides, and what it knows then.
#[derive(Clone, Copy)]
struct Asked<'a> {
    at: Point,
    history: &'a History,
    delay: usize,
}

impl<'a> Planner<'a> {
    /// Returns the planner of a policy. What the patterns `freeze` and `keep` match, on unit paths and parameter
    /// names, is frozen in all epochs and in none; they win over the policy.
    ///
    /// # Errors
    /// A pattern matches nothing, the inputs do not fit together, or the policy does not fit the units.
    pub fn new(
        inputs: Inputs<'a>,
        policy: &'a dyn Policy,
        freeze: &[String],
        keep: &[String],
    ) -> Result<Planner<'a>, PlanError> {
        check_epochs(inputs.epochs)?;
        check_inputs(&inputs)?;
        policy.check(inputs.units)?;
        let run = Run { epochs: inputs.epochs, steps_per_epoch: inputs.steps_per_epoch.max(1) };
        policy.check_run(run)?;
        let mut points = policy.points(run, inputs.units.len());
        points.retain(|step| (1..run.steps()).contains(step));
        points.sort_unstable();
        points.dedup();
        let wishes = wishes(inputs.units, freeze, keep)?;
        Ok(Planner { inputs, policy, wishes, points, prices: RefCell::default() })
    }

    /// Returns the policy.
    pub fn policy(&self) -> &'a dyn Policy {
        self.policy
    }

    /// Returns the units that it plans for.
    pub fn units(&self) -> &'a [Unit] {
        self.inputs.units
    }

    /// Returns after how many steps of the run the policy is asked, beside the starts of the epochs, in order.
    pub fn points(&self) -> &[usize] {
        &self.points
    }

    /// Returns what is frozen in all epochs whatever the policy decides, with what goes with it.
    pub fn frozen_throughout(&self) -> Vec<String> {
        let units = self.inputs.units.iter().zip(&self.wishes);
        let named = units.flat_map(|(unit, wishes)| unit.parameters.iter().zip(wishes));
        let names: Vec<String> =
            named.filter(|(_, wish)| **wish == Wish::Freeze).map(|(name, _)| name.clone()).collect();
        let explicit = names.clone();
        let explicit: HashSet<&str> = explicit.iter().map(String::as_str).collect();
        let Frozen { names, statistics, dropout_off, .. } = self.with_companions(names, &explicit);
        [names, statistics, dropout_off].concat()
    }

    /// Returns the plan as it can be told ahead.
    ///
    /// # Errors
    /// The policy decides on another number of units or outside its range, or the plan changes too often.
    pub fn plan(&self) -> Result<FreezePlan, PlanError> {
        let Inputs { model, units, costs, .. } = self.inputs;
        let mut plan = FreezePlan {
            format: FORMAT.into(),
            model: model.clone(),
            units: units.iter().zip(costs).map(planned_unit).collect(),
            policy: PolicyRecord { name: self.policy.name().into(), settings: self.policy.settings() },
            assumed: Assumed { steps_per_epoch: self.inputs.steps_per_epoch, ..Assumed::default() },
            summary: Summary::default(),
            epochs: Vec::new(),
            last: FinalDecision { frozen_units: 0, fraction: 0.0, frozen: Vec::new() },
        };
        self.fill(&mut plan, Asked { at: Point::START, history: &History::default(), delay: 0 })?;
        Ok(plan)
    }

    /// Returns a plan with what comes at `at` and after it decided anew, for a history that reaches to there. With a
    /// `delay` the policy sees the run as it was so many epochs ago. A policy that decides by what is measured is asked
    /// at `at` and at the starts of the epochs: what it will say at later points within epochs, nobody knows yet.
    ///
    /// # Errors
    /// As [`Planner::plan`].
    pub fn replan(
        &self,
        plan: &FreezePlan,
        at: Point,
        history: &History,
        delay: usize,
    ) -> Result<FreezePlan, PlanError> {
        let mut plan = plan.clone();
        let notes = std::mem::take(&mut plan.summary.notes);
        let own = self.notes(&plan);
        self.fill(&mut plan, Asked { at, history, delay })?;
        let more = notes.into_iter().filter(|note| !own.contains(note) && !plan.summary.notes.contains(note));
        let more: Vec<String> = more.collect();
        plan.summary.notes.extend(more);
        Ok(plan)
    }

    /// Returns the factors on the learning rate in the step that comes at `at`, by parameter, in the order of the
    /// units; `None` where all are 1 throughout.
    ///
    /// # Errors
    /// The policy gives another number of factors, or one that is not finite or below 0.
    pub fn lr_scale(
        &self,
        at: Point,
        history: &History,
        delay: usize,
    ) -> Result<Option<Vec<(&'a str, f64)>>, PlanError> {
        let asked = Asked { at, history, delay };
        let shown = shown(self.inputs, asked);
        let Some(factors) = self.policy.lr_scale(&moment(self.inputs, asked, &shown)) else { return Ok(None) };
        let units = self.inputs.units;
        let reason = if factors.len() != units.len() {
            Some(format!("it gives {} factors on the learning rate, expected {}", factors.len(), units.len()))
        } else {
            let wrong = factors.iter().find(|factor| !(factor.is_finite() && **factor >= 0.0));
            wrong.map(|factor| format!("its factor on the learning rate is {factor}, expected 0 or more"))
        };
        if let Some(reason) = reason {
            return Err(self.refused(at, reason));
        }
        let top = factors.last().copied().unwrap_or(1.0);
        let mut of: HashMap<&str, f64> = HashMap::new();
        for (unit, factor) in units.iter().zip(&factors) {
            for name in unit.parameters.iter().chain(&unit.shared) {
                let own = of.entry(name).or_insert(*factor);
                *own = own.max(*factor);
            }
        }
        let mut result = Vec::new();
        for (unit, wishes) in units.iter().zip(&self.wishes) {
            for (name, wish) in unit.parameters.iter().zip(wishes) {
                let own = of.get(name.as_str()).copied().unwrap_or(1.0);
                result.push((name.as_str(), if *wish == Wish::Keep { top } else { own }));
            }
        }
        Ok(Some(result))
    }

    /// Returns the entry of a plan that freezes all units but the last at a point: the most that a policy which lets
    /// something train can do.
    pub fn most(&self, at: Point) -> EpochPlan {
        let units = self.inputs.units.len();
        let set = FrozenSet::prefix(units, units.saturating_sub(1));
        let fraction = set.count() as f64 / units.max(1) as f64;
        let frozen = self.settle(&set);
        EpochPlan {
            epoch: at.epoch,
            after: at.after,
            frozen_units: frozen.units,
            fraction,
            predicted: self.predict(&frozen, &[]),
            frozen: frozen.names,
            statistics: frozen.statistics,
            dropout_off: frozen.dropout_off,
            lr_scale: BTreeMap::new(),
            changes: Vec::new(),
        }
    }

    /// Decides from a point on.
    fn fill(&self, plan: &mut FreezePlan, from: Asked<'_>) -> Result<(), PlanError> {
        let steps = self.inputs.steps_per_epoch.max(1);
        if from.at.after == 0 {
            plan.epochs.truncate(from.at.epoch - 1);
        } else {
            plan.epochs.truncate(from.at.epoch);
            plan.epochs.iter_mut().last().into_iter().for_each(|epoch| {
                epoch.changes.retain(|change| change.after < from.at.after);
            });
        }
        let told = !self.policy.is_adaptive() || from.history.observations.is_empty();
        let delayed = self.points.iter().map(|step| step.saturating_add(from.delay.saturating_mul(steps)));
        let points: BTreeSet<usize> = self.points.iter().copied().chain(delayed).collect();
        let mut named = 0;
        for epoch in from.at.epoch..=self.inputs.epochs {
            let before = epoch.checked_sub(2).and_then(|before| plan.epochs.get(before));
            let cached = before.map(throughout).unwrap_or_default();
            let first = if epoch == from.at.epoch { from.at.after } else { 0 };
            if first == 0 {
                let entry = self.entry(Asked { at: Point { epoch, after: 0 }, ..from }, &cached)?;
                plan.epochs.push(entry);
            }
            let Some(current) = plan.epochs.last_mut() else { continue };
            let start = (epoch - 1) * steps;
            let own = points
                .range(start + 1..start + steps.max(1))
                .map(|step| step - start)
                .filter(|after| told && *after > first);
            for after in own.chain((first > 0).then_some(first)).collect::<BTreeSet<_>>() {
                let entry = self.entry(Asked { at: Point { epoch, after }, ..from }, &cached)?;
                let before = current.changes.last().unwrap_or(current);
                let same_rates = self.policy.anneals() || before.lr_scale == entry.lr_scale;
                if before.holds_as(&entry) && same_rates {
                    continue;
                }
                named += entry.frozen.len();
                current.changes.push(entry);
                if named > MOST_NAMES {
                    let changes = plan.epochs.iter().map(|epoch| epoch.changes.len()).sum();
                    return Err(PlanError::Changes { changes, names: named, most: MOST_NAMES });
                }
            }
        }
        let asked = Asked { at: Point { epoch: self.inputs.epochs + 1, after: 0 }, ..from };
        let (frozen, fraction) = self.decide(asked)?;
        plan.last = FinalDecision { frozen_units: frozen.units, fraction, frozen: frozen.names };
        self.remaining(plan);
        plan.summary = summary(plan, self.inputs.step_costs);
        let notes = self.notes(plan);
        plan.summary.notes.splice(0..0, notes);
        let nothing = plan.epochs.iter().flat_map(EpochPlan::stretches).all(|stretch| stretch.frozen.is_empty());
        if nothing && self.policy.is_adaptive() && from.history.observations.is_empty() {
            plan.summary.verdict = "What this policy saves depends on what the run measures.".into();
        }
        Ok(())
    }

    /// Returns what a reader should know of a plan of this policy.
    fn notes(&self, plan: &FreezePlan) -> Vec<String> {
        let mut notes = Vec::new();
        if self.policy.is_adaptive() {
            notes.push(format!(
                "policy {} decides by what the run measures: ahead of it, nothing more can be told than what it does \
                 without measurements",
                plan.policy.name
            ));
            notes.extend(self.policy.assumed());
        } else if self.inputs.steps_per_epoch == 0 {
            let run = Run { epochs: self.inputs.epochs, steps_per_epoch: 1000 };
            let within = |step: &usize| !step.is_multiple_of(run.steps_per_epoch);
            if self.policy.points(run, self.inputs.units.len()).iter().any(within) {
                notes.push(SHOWN_LATER.into());
            }
        }
        notes
    }

    fn entry(&self, asked: Asked<'_>, cached: &[String]) -> Result<EpochPlan, PlanError> {
        let Point { epoch, after } = asked.at;
        let (frozen, fraction) = self.decide(asked)?;
        let lr_scale = self.lr_scale(asked.at, asked.history, asked.delay)?.unwrap_or_default();
        let frozen_names: HashSet<&str> = frozen.names.iter().map(String::as_str).collect();
        let scaled = |(name, factor): &(&str, f64)| *factor != 1.0 && !frozen_names.contains(name);
        let lr_scale = lr_scale.into_iter().filter(scaled).map(|(name, factor)| (name.to_string(), factor)).collect();
        Ok(EpochPlan {
            epoch,
            after,
            frozen_units: frozen.units,
            fraction,
            predicted: self.predict(&frozen, cached),
            frozen: frozen.names,
            statistics: frozen.statistics,
            dropout_off: frozen.dropout_off,
            lr_scale,
            changes: Vec::new(),
        })
    }

    /// Returns what a step costs. A cache holds what was frozen throughout the epoch before and still is.
    fn predict(&self, frozen: &Frozen, cached: &[String]) -> Predicted {
        let held = [frozen.names.as_slice(), &frozen.statistics, &frozen.dropout_off].concat();
        let cost = self.price(&held);
        let filled = if cached.is_empty() {
            0
        } else {
            let now: HashSet<&str> = held.iter().map(String::as_str).collect();
            let both: Vec<String> = cached.iter().filter(|name| now.contains(name.as_str())).cloned().collect();
            self.price(&both).cacheable
        };
        let nothing = self.price(&[]).total();
        let relative = |flops: u64| if nothing == 0 { 1.0 } else { flops as f64 / nothing as f64 };
        Predicted {
            step_cost: relative(cost.total()),
            backward_flops: cost.backward(),
            state_bytes: cost.state_bytes(),
            forward_flops: cost.flops.forward,
            input_grad_flops: cost.flops.input_grad,
            weight_grad_flops: cost.flops.weight_grad,
            gradient_bytes: cost.gradient_bytes,
            slot_bytes: cost.slot_bytes,
            activation_bytes: cost.activation_bytes,
            cached_step_cost: relative(cost.total().saturating_sub(filled)),
            cut_bytes: cost.cut_bytes,
            seconds: None,
        }
    }

    /// Returns what is frozen from a point on, and the schedule's value.
    fn decide(&self, asked: Asked<'_>) -> Result<(Frozen, f64), PlanError> {
        let units = self.inputs.units;
        let shown = shown(self.inputs, asked);
        let Decision { frozen, fraction } = self.policy.decide(&moment(self.inputs, asked, &shown));
        let reason = if frozen.units() != units.len() {
            Some(format!("it decided on {} units, expected {}", frozen.units(), units.len()))
        } else if !(0.0..=1.0).contains(&fraction) {
            Some(format!("its fraction is {fraction}, expected one in [0, 1]"))
        } else {
            None
        };
        if let Some(reason) = reason {
            return Err(self.refused(asked.at, reason));
        }
        Ok((self.settle(&frozen), fraction))
    }

    /// Returns what is frozen where a policy freezes a set of units.
    fn settle(&self, frozen: &FrozenSet) -> Frozen {
        let units = self.inputs.units;
        let training = units.iter().enumerate().filter(|(index, _)| !frozen.contains(*index));
        let in_use: HashSet<&str> = training.flat_map(|(_, unit)| unit.shared.iter().map(String::as_str)).collect();
        let (mut names, mut explicit) = (Vec::new(), HashSet::new());
        for (index, (unit, wishes)) in units.iter().zip(&self.wishes).enumerate() {
            for (parameter, wish) in unit.parameters.iter().zip(wishes) {
                let by_policy = frozen.contains(index) && !in_use.contains(parameter.as_str());
                if *wish == Wish::Freeze || (*wish == Wish::Policy && by_policy) {
                    names.push(parameter.clone());
                }
                if *wish == Wish::Freeze {
                    explicit.insert(parameter.as_str());
                }
            }
        }
        let mut result = self.with_companions(names, &explicit);
        let all: HashSet<&str> = result.names.iter().map(String::as_str).collect();
        let whole = |unit: &&Unit| {
            let mut held = unit.parameters.iter().chain(&unit.shared).peekable();
            held.peek().is_some() && held.all(|name| all.contains(name.as_str()))
        };
        result.units = units.iter().filter(whole).count();
        result
    }

    /// Returns a frozen set with what goes with it.
    fn with_companions(&self, mut names: Vec<String>, explicit: &HashSet<&str>) -> Frozen {
        let (mut statistics, mut dropout_off) = (Vec::new(), Vec::new());
        if let Some(Accompanied { companions, batch_norm, dropout }) = self.inputs.accompanied {
            let frozen: HashSet<&str> = names.iter().map(String::as_str).collect();
            let held = companions.held(&frozen, explicit, batch_norm, dropout);
            let owned = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
            (statistics, dropout_off) = (owned(&held.statistics), owned(&held.dropout_off));
            let trains: HashSet<String> = held.trains.iter().map(|name| name.to_string()).collect();
            names.retain(|name| !trains.contains(name));
        }
        Frozen { names, units: 0, statistics, dropout_off }
    }

    fn refused(&self, at: Point, reason: String) -> PlanError {
        PlanError::Decision { policy: self.policy.name().into(), epoch: at.epoch, reason }
    }

    fn price(&self, frozen: &[String]) -> StepCost {
        if let Some(cost) = self.prices.borrow().get(frozen) {
            return *cost;
        }
        let cost = self.inputs.step_costs.cost(&frozen.iter().map(String::as_str).collect());
        self.prices.borrow_mut().insert(frozen.to_vec(), cost);
        cost
    }

    /// Writes down what remains of each unit's backward pass.
    fn remaining(&self, plan: &mut FreezePlan) {
        plan.units.iter_mut().for_each(|unit| unit.backward.clear());
        for segment in segments(plan) {
            let first_epoch = segment.first_epoch;
            let costs = self.inputs.step_costs.unit_costs(&segment.held().collect());
            for (unit, Flops { input_grad, weight_grad, .. }) in plan.units.iter_mut().zip(costs) {
                let before = unit.backward.last().map(|before| (before.input_grad, before.weight_grad));
                if before == Some((input_grad, weight_grad)) {
                    continue;
                }
                let entry = Remaining { from_epoch: first_epoch, input_grad, weight_grad };
                match unit.backward.last_mut().filter(|last| last.from_epoch == first_epoch) {
                    Some(last) => *last = entry,
                    None => unit.backward.push(entry),
                }
            }
        }
    }
}

/// Returns what is frozen in every stretch of an epoch.
fn throughout(epoch: &EpochPlan) -> Vec<String> {
    let changes: Vec<HashSet<&str>> = epoch.changes.iter().map(|change| change.held().collect()).collect();
    let also = |name: &&str| changes.iter().all(|change| change.contains(name));
    epoch.held().filter(also).map(String::from).collect()
}

/// Returns how many epochs and steps are done at a point, as the policy sees it.
fn seen(asked: Asked<'_>) -> (usize, usize) {
    match (asked.at.epoch - 1).checked_sub(asked.delay) {
        Some(completed) => (completed, asked.at.after),
        None => (0, 0),
    }
}

/// Returns the history as the policy sees it.
fn shown<'h>(inputs: Inputs<'_>, asked: Asked<'h>) -> Cow<'h, History> {
    if asked.delay == 0 {
        return Cow::Borrowed(asked.history);
    }
    let (completed, step) = seen(asked);
    let mut history = asked.history.clone();
    let done = completed * inputs.steps_per_epoch.max(1) + step;
    history.epochs.truncate(completed);
    history.observations.retain(|observation| observation.step <= done);
    Cow::Owned(history)
}

fn moment<'m>(inputs: Inputs<'m>, asked: Asked<'_>, history: &'m History) -> Moment<'m> {
    let (completed, step) = seen(asked);
    let Inputs { units, costs, step_costs, epochs, steps_per_epoch, .. } = inputs;
    Moment { units, costs, step_costs, epochs, completed, steps_per_epoch: steps_per_epoch.max(1), step, history }
}

fn check_inputs(inputs: &Inputs<'_>) -> Result<(), PlanError> {
    let (units, costs) = (inputs.units.len(), inputs.costs.len());
    if units != costs {
        return Err(PlanError::Lengths { units, costs });
    }
    let mut owners: HashMap<&str, &Unit> = HashMap::new();
    for unit in inputs.units {
        for parameter in &unit.parameters {
            if let Some(first) = owners.insert(parameter, unit) {
                return Err(PlanError::TwoUnits {
                    parameter: parameter.clone(),
                    first: first.path.clone(),
                    second: unit.path.clone(),
                });
            }
        }
    }
    Ok(())
}

fn planned_unit((unit, cost): (&Unit, &UnitCost)) -> PlannedUnit {
    PlannedUnit {
        index: unit.index,
        path: unit.path.clone(),
        class: unit.class.clone(),
        parameters: unit.parameters.clone(),
        shared: unit.shared.clone(),
        elements: cost.elements,
        flops: cost.flops,
        state_bytes: cost.gradient_bytes.saturating_add(cost.slot_bytes),
        backward: Vec::new(),
    }
}
