//! The cost of a step for any frozen set, by exact reachability.
//!
//! With a set of trainable parameters, `R` is the set of nodes that a trainable parameter reaches
//! through values that carry a gradient and that reach an output. The backward pass costs the
//! input gradients of `R`'s nodes for inputs made in `R`, and the weight gradients of the trainable
//! parameters that `R`'s nodes read; each gradient keeps what the stash table says. Freezing a
//! parameter removes input gradients only where it makes `R` smaller.
//!
//! A mask `trains` says for each parameter whether it trains; after them for each running statistic
//! whether it moves, and for each Dropout whether it drops.

use super::model::{Alias, CostModel, Form, Input, NodeCost};
use super::{Flops, StepCost};

impl CostModel {
    /// Returns the cost of a step in which the parameters of `trains` train.
    pub(super) fn step_of(&self, trains: &[bool]) -> StepCost {
        let flops = self.flops_of(trains).into_iter().fold(Flops::default(), Flops::plus);
        let trained = self.parameters.iter().zip(trains).filter(|(_, trains)| **trains);
        let (gradient_bytes, slot_bytes) = trained.fold((0u64, 0u64), |(gradients, slots), (parameter, _)| {
            (gradients.saturating_add(parameter.bytes), slots.saturating_add(parameter.slot_bytes()))
        });
        let activation_bytes = self.kept(trains).flatten().fold(0u64, u64::saturating_add);
        let (cacheable, cut_bytes) = self.cacheable(trains);
        StepCost { flops, gradient_bytes, slot_bytes, activation_bytes, cacheable, cut_bytes }
    }

    /// Returns the flops of each node.
    pub(super) fn flops_of(&self, trains: &[bool]) -> Vec<Flops> {
        let reached = self.reached(trains);
        let cost = |(node, in_reach): (&NodeCost, &bool)| {
            let form = self.form(node, trains);
            let mut flops = Flops { forward: form.flops.forward, ..Flops::default() };
            let mut wanted = false;
            for (input, count) in node.inputs.iter().zip(&form.flops.input_grads).filter(|_| *in_reach) {
                let Some(weight) = wants(input, trains, &reached) else { continue };
                wanted = true;
                let side = if weight { &mut flops.weight_grad } else { &mut flops.input_grad };
                *side = side.saturating_add(*count);
            }
            if wanted {
                flops.input_grad = flops.input_grad.saturating_add(form.flops.through);
            }
            flops
        };
        self.nodes.iter().zip(&reached).map(cost).collect()
    }

    /// Returns the bytes of the tensors that the backward pass reads.
    pub(super) fn kept(&self, trains: &[bool]) -> impl Iterator<Item = Option<u64>> {
        let reached = self.reached(trains);
        let mut kept = vec![false; self.kept_bytes.len()];
        for (node, _) in self.nodes.iter().zip(&reached).filter(|(_, in_reach)| **in_reach) {
            for keeps in &self.form(node, trains).keeps {
                let inputs = node.inputs.get(keeps.inputs.clone()).unwrap_or_default();
                if inputs.iter().any(|input| wants(input, trains, &reached).is_some()) {
                    keeps.tensors.iter().for_each(|tensor| kept[*tensor] = true);
                }
            }
        }
        for Alias { tensor, of, .. } in self.aliases.iter().rev().filter(|alias| !is(trains, alias.unless)) {
            if std::mem::take(&mut kept[*tensor]) {
                of.iter().for_each(|of| kept[*of] = true);
            }
        }
        self.kept_bytes.iter().zip(kept).filter(|(_, kept)| *kept).map(|(bytes, _)| *bytes)
    }

    /// Returns the form in which a node runs.
    pub(super) fn form<'a>(&self, node: &'a NodeCost, trains: &[bool]) -> &'a Form {
        match &node.fixed {
            Some(fixed) if self.is_fixed(node, trains) => &fixed.form,
            _ => &node.form,
        }
    }

    /// Returns true for a `BatchNormalization` by its running statistics and a Dropout that passes its input on.
    pub(super) fn is_fixed(&self, node: &NodeCost, trains: &[bool]) -> bool {
        node.fixed.as_ref().is_some_and(|fixed| !is(trains, fixed.unless))
    }

    /// Returns the nodes that a gradient passes.
    pub(super) fn reached(&self, trains: &[bool]) -> Vec<bool> {
        let mut reached = vec![false; self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            let wanted = node.live && node.inputs.iter().any(|input| wants(input, trains, &reached).is_some());
            reached[index] = wanted;
        }
        reached
    }
}

/// Returns whether the gradient of an input is wanted, and then whether it is one of a weight.
pub(super) fn wants(input: &Input, trains: &[bool], reached: &[bool]) -> Option<bool> {
    match *input {
        Input::Made { by, weight } => is(reached, by).then_some(weight),
        Input::Parameter(parameter) => is(trains, parameter).then_some(true),
        Input::Stop => None,
    }
}

/// Returns the flag at a position; false past the end.
pub(super) fn is(flags: &[bool], index: usize) -> bool {
    flags.get(index).copied().unwrap_or(false)
}
