//! The cost model as the planner asks it.

use super::StepCosts;
use crate::cost::{CostModel, StepCost};
use std::collections::HashSet;

impl StepCosts for CostModel {
    fn cost(&self, frozen: &HashSet<&str>) -> StepCost {
        self.step(&trained(self, frozen))
    }

    fn keeps_backward_alive(&self, frozen: &HashSet<&str>) -> Vec<String> {
        CostModel::keeps_backward_alive(self, &trained(self, frozen))
    }
}

fn trained(costs: &CostModel, frozen: &HashSet<&str>) -> HashSet<String> {
    costs.trainable().iter().filter(|name| !frozen.contains(name.as_str())).cloned().collect()
}
