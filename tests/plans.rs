//! Plans without costs, for tests that only need the frozen sets.

use freeze_plan::cost::{StepCost, UnitCost};
use freeze_plan::modules::Unit;
use freeze_plan::plan::{FreezePlan, Inputs, ModelInfo, PlanOptions, StepCosts, build};
use std::collections::HashSet;

struct NoCosts;

impl StepCosts for NoCosts {
    fn cost(&self, _: &HashSet<&str>) -> StepCost {
        StepCost::default()
    }

    fn keeps_backward_alive(&self, _: &HashSet<&str>) -> Vec<String> {
        Vec::new()
    }
}

/// Returns the linear plan of some units.
pub fn linear(units: &[Unit], epochs: usize, freeze_start: f64, freeze_level: f64) -> FreezePlan {
    let costs = vec![UnitCost::default(); units.len()];
    let model = ModelInfo::default();
    let inputs = Inputs {
        model: &model,
        units,
        costs: &costs,
        step_costs: &NoCosts,
        epochs,
        steps_per_epoch: 0,
        accompanied: None,
    };
    build(&inputs, &PlanOptions::default().with("freeze_start", freeze_start).with("freeze_level", freeze_level))
        .unwrap()
}
