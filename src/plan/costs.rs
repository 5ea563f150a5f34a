//! The cost model as the planner asks it.

use super::StepCosts;
use crate::cost::{CostModel, Flops, Reach, StepCost};
use std::collections::HashSet;

impl StepCosts for CostModel {
    fn cost(&self, frozen: &HashSet<&str>) -> StepCost {
        self.step_while(|name| frozen.contains(name))
    }

    fn keeps_backward_alive(&self, frozen: &HashSet<&str>) -> Vec<String> {
        self.keeps_backward_alive_while(|name| frozen.contains(name))
    }

    fn unit_costs(&self, frozen: &HashSet<&str>) -> Vec<Flops> {
        CostModel::unit_costs(self, |name| frozen.contains(name))
    }

    fn ends_cache(&self, frozen: &HashSet<&str>) -> Option<String> {
        CostModel::ends_cache(self, |name| frozen.contains(name))
    }

    fn reach(&self) -> Option<Reach> {
        Some(CostModel::reach(self))
    }

    fn counted(&self) -> (usize, usize) {
        (self.len() - self.uncounted(), self.len())
    }

    fn notes(&self) -> Vec<String> {
        CostModel::notes(self)
    }
}
