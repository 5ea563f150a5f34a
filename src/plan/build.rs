//! Asks a policy epoch by epoch and writes down what it says.

use super::freeze_plan::*;
use super::options::check_epochs;
use super::selection::{Wish, wishes};
use super::summary::summary;
use super::{Decision, History, Moment, PlanError, PlanOptions, Policy, policies};
use crate::cost::{Flops, StepCost, UnitCost};
use crate::modules::Unit;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Predicts what a step costs.
pub trait StepCosts {
    /// Returns what a step costs while the initializers `frozen` are frozen.
    fn cost(&self, frozen: &HashSet<&str>) -> StepCost;

    /// Returns the trainable parameters because of which the backward pass still runs through
    /// nodes that only frozen ones would need otherwise.
    fn keeps_backward_alive(&self, frozen: &HashSet<&str>) -> Vec<String>;

    /// Returns the flops of each unit of the plan; none where they are not known.
    fn unit_costs(&self, _frozen: &HashSet<&str>) -> Vec<Flops> {
        Vec::new()
    }

    /// Returns the first node of the frozen part that cannot be cached, with the reason.
    fn ends_cache(&self, _frozen: &HashSet<&str>) -> Option<String> {
        None
    }

    /// Returns how many nodes are counted, and how many there are.
    fn counted(&self) -> (usize, usize) {
        (0, 0)
    }

    /// Returns what is missing in the counts, for a person.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What a plan is made from.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The model, for the file.
    pub model: &'a ModelInfo,
    /// The units, from the input side; no parameter is in two of them.
    pub units: &'a [Unit],
    /// What each unit costs.
    pub costs: &'a [UnitCost],
    /// What a step costs.
    pub step_costs: &'a dyn StepCosts,
    /// Epochs of the run, from 1 to [`MAX_EPOCHS`](super::MAX_EPOCHS).
    pub epochs: usize,
}

/// Returns the plan of the policy that `options` name.
///
/// # Errors
/// An option is out of range, unknown or matches nothing; the inputs do not fit together.
pub fn build(inputs: &Inputs<'_>, options: &PlanOptions) -> Result<FreezePlan, PlanError> {
    build_with(inputs, policies::find(options)?.as_ref(), &options.freeze, &options.keep)
}

/// Returns the plan of `policy`. What the globs `freeze` and `keep` match, on unit paths and
/// parameter names, is frozen in all epochs and in none; they win over the policy.
///
/// # Errors
/// As [`build()`], and the policy answers for another number of units or with no fraction in [0, 1].
pub fn build_with(
    inputs: &Inputs<'_>,
    policy: &dyn Policy,
    freeze: &[String],
    keep: &[String],
) -> Result<FreezePlan, PlanError> {
    check_epochs(inputs.epochs)?;
    check_inputs(inputs)?;
    let mut planner = Planner {
        inputs,
        policy,
        wishes: wishes(inputs.units, freeze, keep)?,
        prices: HashMap::new(),
        before: Vec::new(),
    };
    let epochs = (1..=inputs.epochs).map(|epoch| planner.epoch(epoch)).collect::<Result<Vec<_>, _>>()?;
    let (frozen, fraction) = planner.decide(inputs.epochs)?;
    let last = FinalDecision { frozen_units: frozen.units, fraction, frozen: frozen.names };
    let mut plan = FreezePlan {
        format: FORMAT.into(),
        model: inputs.model.clone(),
        units: inputs.units.iter().zip(inputs.costs).map(planned_unit).collect(),
        policy: PolicyRecord { name: policy.name().into(), settings: policy.settings() },
        assumed: Assumed::default(),
        summary: Summary::default(),
        epochs,
        last,
    };
    remaining(&mut plan, inputs.step_costs);
    plan.summary = summary(&plan, inputs.step_costs);
    Ok(plan)
}

/// Writes down what remains of each unit's backward pass.
fn remaining(plan: &mut FreezePlan, step_costs: &dyn StepCosts) {
    for Segment { first_epoch, frozen, .. } in segments(plan) {
        let costs = step_costs.unit_costs(&frozen.iter().map(String::as_str).collect());
        for (unit, Flops { input_grad, weight_grad, .. }) in plan.units.iter_mut().zip(costs) {
            let before = unit.backward.last().map(|before| (before.input_grad, before.weight_grad));
            if before != Some((input_grad, weight_grad)) {
                unit.backward.push(Remaining { from_epoch: first_epoch, input_grad, weight_grad });
            }
        }
    }
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

struct Planner<'a> {
    inputs: &'a Inputs<'a>,
    policy: &'a dyn Policy,
    wishes: Vec<Vec<Wish>>,
    prices: HashMap<Vec<String>, StepCost>,
    /// What was frozen in the epoch before.
    before: Vec<String>,
}

struct Frozen {
    names: Vec<String>,
    units: usize,
}

impl Planner<'_> {
    fn epoch(&mut self, epoch: usize) -> Result<EpochPlan, PlanError> {
        let (frozen, fraction) = self.decide(epoch - 1)?;
        let predicted = self.predict(&frozen.names, epoch == 1);
        self.before.clone_from(&frozen.names);
        Ok(EpochPlan {
            epoch,
            frozen_units: frozen.units,
            fraction,
            frozen: frozen.names,
            lr_scale: BTreeMap::new(),
            predicted,
        })
    }

    /// Returns what a step costs. A cache holds what was frozen in the epoch before and still is.
    fn predict(&mut self, frozen: &[String], first: bool) -> Predicted {
        let cost = self.price(frozen);
        let filled = if first {
            0
        } else {
            let now: HashSet<&str> = frozen.iter().map(String::as_str).collect();
            let both: Vec<String> = self.before.iter().filter(|name| now.contains(name.as_str())).cloned().collect();
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
        }
    }

    /// Returns what is frozen after `completed` epochs, and the schedule's value.
    fn decide(&self, completed: usize) -> Result<(Frozen, f64), PlanError> {
        let Inputs { units, costs, epochs, .. } = *self.inputs;
        let moment = Moment { units, costs, epochs, completed, history: &History::default() };
        let Decision { frozen, fraction } = self.policy.decide(&moment);
        let reason = if frozen.units() != units.len() {
            Some(format!("it decided on {} units, expected {}", frozen.units(), units.len()))
        } else if !(0.0..=1.0).contains(&fraction) {
            Some(format!("its fraction is {fraction}, expected one in [0, 1]"))
        } else {
            None
        };
        if let Some(reason) = reason {
            return Err(PlanError::Decision { policy: self.policy.name().into(), epoch: completed + 1, reason });
        }
        let training = units.iter().enumerate().filter(|(index, _)| !frozen.contains(*index));
        let in_use: HashSet<&str> = training.flat_map(|(_, unit)| unit.shared.iter().map(String::as_str)).collect();
        let mut result = Frozen { names: Vec::new(), units: 0 };
        for (index, (unit, wishes)) in units.iter().zip(&self.wishes).enumerate() {
            for (parameter, wish) in unit.parameters.iter().zip(wishes) {
                let by_policy = frozen.contains(index) && !in_use.contains(parameter.as_str());
                if *wish == Wish::Freeze || (*wish == Wish::Policy && by_policy) {
                    result.names.push(parameter.clone());
                }
            }
        }
        let all: HashSet<&str> = result.names.iter().map(String::as_str).collect();
        let whole = |unit: &&Unit| {
            let mut held = unit.parameters.iter().chain(&unit.shared).peekable();
            held.peek().is_some() && held.all(|name| all.contains(name.as_str()))
        };
        result.units = units.iter().filter(whole).count();
        Ok((result, fraction))
    }

    fn price(&mut self, frozen: &[String]) -> StepCost {
        if let Some(cost) = self.prices.get(frozen) {
            return *cost;
        }
        let cost = self.inputs.step_costs.cost(&frozen.iter().map(String::as_str).collect());
        self.prices.insert(frozen.to_vec(), cost);
        cost
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Chain, chain, six_units};
    use super::super::{FrozenSet, MAX_EPOCHS};
    use super::*;

    fn plan(chain: &Chain, epochs: usize, options: &PlanOptions) -> FreezePlan {
        build(&chain.inputs(epochs), options).unwrap()
    }

    fn options(freeze: &[&str], keep: &[&str]) -> PlanOptions {
        let owned = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect();
        PlanOptions { freeze: owned(freeze), keep: owned(keep), ..PlanOptions::default() }
    }

    #[test]
    fn an_epoch_freezes_what_was_decided_before_it() {
        let chain = chain(10);
        let plan = plan(&chain, 10, &PlanOptions::default());
        let counts: Vec<usize> = plan.epochs.iter().map(|epoch| epoch.frozen_units).collect();
        assert_eq!(counts, [0, 0, 0, 0, 0, 0, 1, 3, 5, 7]);
        assert_eq!((plan.last.frozen_units, plan.last.fraction), (9, 1.0));
        assert_eq!(plan.epochs[7].frozen, ["u0.weight", "u1.weight", "u2.weight"]);
        assert_eq!(plan.epochs[0].epoch, 1);
    }

    #[test]
    fn savings_of_equal_units_are_those_of_the_formula() {
        struct Case {
            epochs: usize,
            start: f64,
            level: f64,
            saving: &'static str,
        }
        let cases = [
            Case { epochs: 10, start: 0.5, level: 1.0, saving: "12.9" },
            Case { epochs: 90, start: 0.5, level: 1.0, saving: "15.8" },
            Case { epochs: 90, start: 0.1, level: 1.0, saving: "28.7" },
            Case { epochs: 90, start: 0.1, level: 0.5, saving: "14.1" },
        ];
        let chain = chain(53);
        for Case { epochs, start, level, saving } in cases {
            let options = PlanOptions { freeze_start: start, freeze_level: level, ..PlanOptions::default() };
            let summary = plan(&chain, epochs, &options).summary;
            assert_eq!(format!("{:.1}", 100.0 * (1.0 - summary.cost_ratio)), saving, "E={epochs} {start} {level}");
            assert_eq!(summary.ceiling, 1.0 / summary.cost_ratio);
        }
    }

    #[test]
    fn names_win_over_the_policy() {
        let model = six_units();
        let plan = plan(&model, 10, &options(&["fc.bias"], &["stem.bn"]));
        assert_eq!(plan.epochs[0].frozen, ["fc.bias"]);
        assert_eq!(plan.epochs[0].frozen_units, 0, "a unit of which a part is frozen does not count");
        assert_eq!(plan.last.frozen.first().map(String::as_str), Some("stem.conv.weight"));
        assert!(plan.epochs.iter().all(|epoch| !epoch.frozen.iter().any(|name| name.starts_with("stem.bn"))));
        assert_eq!(plan.last.frozen_units, 4);
        assert_eq!(plan.policy.name, "linear");
    }

    #[test]
    fn segments_are_runs_of_one_frozen_set() {
        let plan = plan(&chain(3), 6, &PlanOptions::default());
        let shown: Vec<_> = segments(&plan).iter().map(|s| (s.first_epoch, s.last_epoch, s.frozen.len())).collect();
        assert_eq!(shown, [(1, 5, 0), (6, 6, 1)]);
    }

    #[test]
    fn a_cache_saves_from_the_epoch_after_the_freeze() {
        let chain = chain(10);
        let plan = plan(&chain, 10, &PlanOptions::default());
        let full = 29.0;
        let frozen = [0, 0, 0, 0, 0, 0, 1, 3, 5, 7];
        for (epoch, pair) in plan.epochs.iter().zip([0].iter().chain(&frozen).zip(&frozen)) {
            let (before, now) = (*pair.0 as f64, *pair.1 as f64);
            let plain = (full - 2.0 * now) / full;
            let expected = (plain, plain - before / full);
            let found = (epoch.predicted.step_cost, epoch.predicted.cached_step_cost);
            assert!(
                (found.0 - expected.0).abs() < 1e-12 && (found.1 - expected.1).abs() < 1e-12,
                "{found:?} {expected:?}"
            );
            assert_eq!(epoch.predicted.cut_bytes, u64::from(now > 0.0));
        }
        let pinned = build(&chain.inputs(2), &options(&["u0"], &[])).unwrap();
        let cached: Vec<f64> =
            pinned.epochs.iter().map(|e| e.predicted.step_cost - e.predicted.cached_step_cost).collect();
        assert!(cached[0] == 0.0 && cached[1] > 0.0, "the first epoch fills the cache: {cached:?}");
    }

    #[test]
    fn what_remains_of_a_units_backward_pass_is_written_where_it_changes() {
        let plan = plan(&chain(4), 10, &PlanOptions { freeze_start: 0.0, ..PlanOptions::default() });
        let remaining = |unit: usize| {
            let backward = plan.units[unit].backward.iter();
            backward.map(|r| (r.from_epoch, r.input_grad, r.weight_grad)).collect::<Vec<_>>()
        };
        assert_eq!(remaining(0), [(1, 0, 1), (5, 0, 0)]);
        assert_eq!(remaining(1), [(1, 1, 1), (5, 0, 1), (8, 0, 0)]);
        assert_eq!(remaining(3), [(1, 1, 1)]);
    }

    #[test]
    fn arguments_out_of_range_are_usage_errors() {
        let model = chain(3);
        let text = |epochs, options: &PlanOptions| {
            let error = build(&model.inputs(epochs), options).unwrap_err();
            assert_eq!(error.kind(), crate::error::ErrorKind::Usage);
            error.to_string()
        };
        assert_eq!(text(0, &PlanOptions::default()), "epochs is 0, expected 1 to 1000000");
        assert!(text(MAX_EPOCHS + 1, &PlanOptions::default()).starts_with("epochs is 1000001"));
        let level = PlanOptions { freeze_level: 1.01, ..PlanOptions::default() };
        assert_eq!(text(3, &level), "freeze_level is 1.01, expected a fraction in [0, 1]");
    }

    #[test]
    fn a_policy_of_the_user_is_planned_and_checked() {
        struct Odd(usize, f64);
        impl Policy for Odd {
            fn name(&self) -> &str {
                "odd"
            }
            fn decide(&self, at: &Moment<'_>) -> Decision {
                let frozen: Vec<bool> = (0..self.0).map(|index| index % 2 == 1 && at.completed % 2 == 1).collect();
                Decision { frozen: frozen.into(), fraction: self.1 }
            }
        }
        let model = chain(4);
        let plan = |policy: &Odd| build_with(&model.inputs(3), policy, &[], &[]);
        let made = plan(&Odd(4, 0.5)).unwrap();
        let counts: Vec<usize> = made.epochs.iter().map(|epoch| epoch.frozen_units).collect();
        assert_eq!((counts, made.policy.name.as_str()), (vec![0, 2, 0], "odd"));
        assert!(made.policy.settings.is_empty());
        let text = |policy| plan(&policy).unwrap_err().to_string();
        assert_eq!(text(Odd(3, 0.5)), "policy \"odd\", epoch 1: it decided on 3 units, expected 4");
        assert_eq!(text(Odd(4, f64::NAN)), "policy \"odd\", epoch 1: its fraction is NaN, expected one in [0, 1]");
        assert_eq!(FrozenSet::prefix(3, 9).count(), 3);
    }

    #[test]
    fn a_shared_parameter_freezes_with_the_last_unit_that_uses_it() {
        let mut model = chain(4);
        model.units[2].shared = vec!["u0.weight".into()];
        let options = PlanOptions { freeze_start: 0.0, ..PlanOptions::default() };
        let plan = plan(&model, 8, &options);
        let frozen: Vec<String> = plan.epochs.iter().map(|epoch| epoch.frozen.join(" ")).collect();
        let (second, all) = ("u1.weight", "u0.weight u1.weight u2.weight");
        assert_eq!(frozen, ["", "", "", "", "", "", second, second].map(String::from), "{frozen:?}");
        assert_eq!((plan.last.frozen.join(" "), plan.last.frozen_units), (all.to_string(), 3));
        assert_eq!(plan.units[2].shared, ["u0.weight"]);
    }

    #[test]
    fn a_parameter_in_two_units_is_refused() {
        let mut model = chain(3);
        model.units[2].parameters = vec!["u0.weight".into()];
        let error = build(&model.inputs(3), &PlanOptions::default()).unwrap_err();
        assert_eq!(error.to_string(), "parameter \"u0.weight\" is in unit \"u0\" and in unit \"u2\"");
        model.costs.pop();
        let error = build(&model.inputs(3), &PlanOptions::default()).unwrap_err();
        assert_eq!(error.to_string(), "there are 3 units and 2 unit costs");
    }
}
