//! Plans from models: what is given, and what comes out.

use super::freeze_plan::*;
use super::{Accompanied, PlanError, PlanOptions, Planner, Policy, policies};
use crate::cost::{Flops, Reach, StepCost, UnitCost};
use crate::modules::Unit;
use std::collections::HashSet;

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

    /// Returns what the training of each parameter needs; `None` where only whole steps are known.
    fn reach(&self) -> Option<Reach> {
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
    /// Steps of an epoch; 0 where they are not known.
    pub steps_per_epoch: usize,
    /// BatchNormalization and Dropout, which go with frozen parameters.
    pub accompanied: Option<Accompanied<'a>>,
}

/// Returns the plan of the policy that `options` name.
///
/// # Errors
/// An option is out of range, unknown or matches nothing; the inputs do not fit together.
pub fn build(inputs: &Inputs<'_>, options: &PlanOptions) -> Result<FreezePlan, PlanError> {
    build_with(inputs, policies::find(options)?.as_ref(), &options.freeze, &options.keep)
}

/// Returns the plan of a policy, with what `freeze` and `keep` say about single units and parameters; both are
/// patterns on unit paths and parameter names.
///
/// # Errors
/// A pattern matches nothing, the inputs do not fit together, or the policy decides on another number of units or
/// outside its range.
pub fn build_with(
    inputs: &Inputs<'_>,
    policy: &dyn Policy,
    freeze: &[String],
    keep: &[String],
) -> Result<FreezePlan, PlanError> {
    Planner::new(*inputs, policy, freeze, keep)?.plan()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Chain, chain, observed, six_units};
    use super::super::{Decision, FrozenSet, MAX_EPOCHS, Moment, Run, Signal};
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
            let options = PlanOptions::default().with("freeze_start", start).with("freeze_level", level);
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
        let plan = plan(&chain(4), 10, &PlanOptions::default().with("freeze_start", 0.0));
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
        let level = PlanOptions::default().with("freeze_level", 1.01);
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
    fn what_is_not_measured_yet_is_not_asked_for() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        struct Counting(AtomicUsize);
        impl Policy for Counting {
            fn name(&self) -> &str {
                "counting"
            }
            fn decide(&self, at: &Moment<'_>) -> Decision {
                self.0.fetch_add(1, Ordering::Relaxed);
                Decision::of(FrozenSet::prefix(at.units.len(), at.history.observations.len()))
            }
            fn points(&self, run: Run, _: usize) -> Vec<usize> {
                (1..run.steps()).collect()
            }
            fn signals(&self) -> Vec<Signal> {
                vec![Signal::WeightChange]
            }
        }
        let (model, policy) = (chain(4), Counting(Default::default()));
        let planner = Planner::new(Inputs { steps_per_epoch: 50, ..model.inputs(4) }, &policy, &[], &[]).unwrap();
        let plan = planner.plan().unwrap();
        policy.0.store(0, Ordering::Relaxed);
        let history = observed(Signal::WeightChange, &[&[Some(1.0); 4]]);
        let plan = planner.replan(&plan, Point { epoch: 1, after: 10 }, &history, 0).unwrap();
        assert_eq!(policy.0.load(Ordering::Relaxed), 5, "now, at the starts of three epochs and at the end");
        let units: Vec<usize> = plan.epochs.iter().map(|epoch| epoch.frozen_units).collect();
        assert_eq!((units, plan.epochs[0].changes.len()), (vec![0, 1, 1, 1], 1));
        assert_eq!((plan.epochs[0].changes[0].after, plan.epochs[0].changes[0].frozen_units), (10, 1));
    }

    #[test]
    fn a_shared_parameter_freezes_with_the_last_unit_that_uses_it() {
        let mut model = chain(4);
        model.units[2].shared = vec!["u0.weight".into()];
        let options = PlanOptions::default().with("freeze_start", 0.0);
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
