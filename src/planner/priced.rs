//! Prices a frozen set together with its companions.

use crate::cost::{CostModel, Flops, StepCost};
use crate::plan::{Companions, PlanOptions, StepCosts};
use std::collections::HashSet;

/// The costs of frozen sets together with their companions.
pub(super) struct WithCompanions<'a> {
    pub(super) costs: &'a CostModel,
    pub(super) companions: &'a Companions,
    pub(super) options: &'a PlanOptions,
}

impl WithCompanions<'_> {
    fn held<T>(&self, frozen: &HashSet<&str>, answer: impl FnOnce(&HashSet<&str>) -> T) -> T {
        let held = self.companions.held(frozen, frozen, self.options.batch_norm, self.options.dropout);
        let mut all = frozen.clone();
        all.extend(held.names());
        answer(&all)
    }
}

impl StepCosts for WithCompanions<'_> {
    fn cost(&self, frozen: &HashSet<&str>) -> StepCost {
        self.held(frozen, |all| self.costs.cost(all))
    }

    fn keeps_backward_alive(&self, frozen: &HashSet<&str>) -> Vec<String> {
        self.held(frozen, |all| StepCosts::keeps_backward_alive(self.costs, all))
    }

    fn unit_costs(&self, frozen: &HashSet<&str>) -> Vec<Flops> {
        self.held(frozen, |all| StepCosts::unit_costs(self.costs, all))
    }

    fn ends_cache(&self, frozen: &HashSet<&str>) -> Option<String> {
        self.held(frozen, |all| StepCosts::ends_cache(self.costs, all))
    }

    fn counted(&self) -> (usize, usize) {
        self.costs.counted()
    }

    fn notes(&self) -> Vec<String> {
        StepCosts::notes(self.costs)
    }
}
