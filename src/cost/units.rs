//! Which node counts for which unit, and what the units cost.

use super::model::{CostModel, Input};
use super::{Flops, UnitCost};
use crate::modules::{ModuleTree, Unit};

impl CostModel {
    /// Returns what each unit costs while everything trains, and remembers the units for
    /// [`CostModel::unit_costs`].
    ///
    /// A unit's nodes are those of its module and, for a unit that is a block, of the modules below;
    /// the nodes that read its parameters where these are not all the module's. A node counts for
    /// the first such unit only. Nodes of modules without parameters are in no unit.
    pub fn units(&mut self, tree: &ModuleTree, units: &[Unit]) -> Vec<UnitCost> {
        self.assign(tree, units);
        let flops = self.unit_flops(&self.mask(|_| true));
        units.iter().zip(flops).map(|(unit, flops)| self.unit_cost(unit, flops)).collect()
    }

    /// Returns the flops of each unit of the last call of [`CostModel::units`] while everything but
    /// what is in the frozen set, for which `frozen` answers true, trains.
    pub fn unit_costs(&self, frozen: impl Fn(&str) -> bool) -> Vec<Flops> {
        self.unit_flops(&self.mask_while(frozen))
    }

    fn unit_flops(&self, trains: &[bool]) -> Vec<Flops> {
        let mut sums = vec![Flops::default(); self.unit_count];
        for (unit, flops) in self.units.iter().zip(self.flops_of(trains)) {
            if let Some(sum) = unit.and_then(|unit| sums.get_mut(unit)) {
                *sum = sum.plus(flops);
            }
        }
        sums
    }

    fn unit_cost(&self, unit: &Unit, flops: Flops) -> UnitCost {
        let mut cost = UnitCost { flops, ..UnitCost::default() };
        for parameter in unit.parameters.iter().filter_map(|name| self.parameters.get(self.parameter(name)?)) {
            cost.elements = cost.elements.saturating_add(parameter.elements);
            cost.parameter_bytes = cost.parameter_bytes.saturating_add(parameter.bytes);
            cost.slot_bytes = cost.slot_bytes.saturating_add(parameter.slot_bytes());
        }
        cost.gradient_bytes = cost.parameter_bytes;
        cost
    }

    fn assign(&mut self, tree: &ModuleTree, units: &[Unit]) {
        let mut owner: Vec<Option<usize>> = vec![None; self.parameters.len()];
        let mut unit_of: Vec<Option<usize>> = vec![None; self.nodes.len()];
        for (index, unit) in units.iter().enumerate() {
            let Some(id) = tree.get(&unit.path) else {
                let parameters = unit.parameters.iter().filter_map(|name| self.parameter(name));
                parameters.for_each(|parameter| owner[parameter] = Some(index));
                continue;
            };
            let below = tree.below(id);
            let whole: usize = below.iter().map(|id| tree.module(*id).parameters.len()).sum();
            let modules = if whole == unit.parameters.len() { below } else { vec![id] };
            for node in modules.iter().flat_map(|id| &tree.module(*id).nodes) {
                unit_of[node.0] = earlier(unit_of[node.0], Some(index));
            }
        }
        // A unit that is a tensor has the nodes that read it, or a form of it.
        let mut reads: Vec<Option<usize>> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let units = node.inputs.iter().map(|input| match input {
                Input::Parameter(parameter) => owner.get(*parameter).copied().flatten(),
                Input::Made { by, weight: true } => reads.get(*by).copied().flatten(),
                _ => None,
            });
            reads.push(units.fold(None, earlier));
        }
        self.units = unit_of.into_iter().zip(reads).map(|(module, tensor)| earlier(module, tensor)).collect();
        self.unit_count = units.len();
    }
}

fn earlier(a: Option<usize>, b: Option<usize>) -> Option<usize> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
