//! Which trainable parameters keep the backward pass running through a frozen part.
//!
//! A parameter does when, on the way from it to an output, a gradient passes a node as data that a
//! frozen parameter goes into as a weight. One pass backwards finds for every node whether such a node
//! comes after it. What a parameter costs by that is what it adds to a step in which only the
//! parameters that keep nothing alive train.

use super::model::{CostModel, Input};
use super::step::{is, wants};
use std::collections::HashSet;

/// A parameter that costs less than this share of a full step is not worth a word.
const MATERIAL: f64 = 0.01;
/// How many parameters are looked at, in the order in which the model reads them.
const MOST: usize = 64;

impl CostModel {
    /// Returns the trainable parameters that keep the backward pass running through a frozen part,
    /// in the order in which the model first reads them: at most 64, and each of them alone keeps
    /// at least a hundredth of a full step.
    pub fn keeps_backward_alive(&self, trainable: &HashSet<String>) -> Vec<String> {
        self.keeping_alive(self.mask(|name| trainable.contains(name)))
    }

    /// As [`CostModel::keeps_backward_alive`], while `frozen` answers whether a name is in the frozen set.
    pub fn keeps_backward_alive_while(&self, frozen: impl Fn(&str) -> bool) -> Vec<String> {
        self.keeping_alive(self.mask_while(frozen))
    }

    fn keeping_alive(&self, trains: Vec<bool>) -> Vec<String> {
        let mut found = self.passing_frozen(&trains);
        if found.is_empty() {
            return Vec::new();
        }
        let mut base = trains;
        found.iter().for_each(|index| base[*index] = false);
        found.truncate(MOST);
        let full = self.flops_of(&self.mask(|_| true)).iter().map(|flops| flops.total() as f64).sum::<f64>();
        let kept = self.kept_by(&found, &base);
        let name = |index: usize| self.trainable().iter().find(|name| self.parameter(name) == Some(index)).cloned();
        let material = found.iter().zip(kept).filter(|(_, flops)| *flops >= MATERIAL * full && *flops > 0.0);
        material.filter_map(|(index, _)| name(*index)).collect()
    }

    /// Returns the trainable parameters from which a gradient's way leads as data through a node
    /// with a frozen weight, in the order of their first reader.
    fn passing_frozen(&self, trains: &[bool]) -> Vec<usize> {
        let frozen_weight = self.frozen_weights(trains);
        // Whether the data that a node makes meets a frozen weight on its way to an output.
        let mut meets = vec![false; self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate().rev().filter(|(_, node)| node.live) {
            let own = is(&meets, index);
            let weighted = node.inputs.iter().any(|input| match input {
                Input::Parameter(parameter) => !is(trains, *parameter),
                Input::Made { by, weight } => *weight && is(&frozen_weight, *by),
                Input::Stop => false,
            });
            for input in &node.inputs {
                if let Input::Made { by, weight } = input
                    && (own || weighted && !weight)
                {
                    meets[*by] = true;
                }
            }
        }
        let mut seen = vec![false; self.parameters.len()];
        let mut found = Vec::new();
        for (index, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.live) {
            for input in &node.inputs {
                if let Input::Parameter(parameter) = input
                    && is(trains, *parameter)
                    && is(&meets, index)
                    && !std::mem::replace(&mut seen[*parameter], true)
                {
                    found.push(*parameter);
                }
            }
        }
        found
    }

    /// Returns the nodes that turn a frozen parameter into another form of it.
    fn frozen_weights(&self, trains: &[bool]) -> Vec<bool> {
        let mut of_frozen = vec![false; self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.of_weights) {
            let frozen = node.inputs.iter().any(|input| match input {
                Input::Parameter(parameter) => !is(trains, *parameter),
                Input::Made { by, .. } => is(&of_frozen, *by),
                Input::Stop => false,
            });
            of_frozen[index] = frozen;
        }
        of_frozen
    }

    /// Returns for each parameter the input-gradient flops that it adds to those of `base`.
    fn kept_by(&self, parameters: &[usize], base: &[bool]) -> Vec<f64> {
        let reached = self.reached(base);
        // One bit for each parameter: the nodes that it reaches.
        let mut sets = vec![0u64; self.nodes.len()];
        let mut kept = vec![0.0; parameters.len()];
        let bit = |parameter: usize| {
            let place = parameters.iter().position(|other| *other == parameter);
            place.map_or(0, |place| 1u64 << place)
        };
        for (index, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.live) {
            let mut set = 0;
            for (input, flops) in node.inputs.iter().zip(&self.form(node, base).flops.input_grads) {
                let through = match input {
                    Input::Made { by, .. } => sets[*by],
                    Input::Parameter(parameter) => bit(*parameter),
                    Input::Stop => 0,
                };
                set |= through;
                let data = matches!(input, Input::Made { weight: false, .. });
                if data && wants(input, base, &reached).is_none() {
                    let passes = |place: usize| through >> place & 1 == 1;
                    let kept = kept.iter_mut().enumerate().filter(|(place, _)| passes(*place));
                    kept.for_each(|(_, kept)| *kept += *flops as f64);
                }
            }
            sets[index] = set;
        }
        kept
    }
}
