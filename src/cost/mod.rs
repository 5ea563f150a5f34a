//! What a step costs: flops and bytes, per unit and for any frozen set.
//!
//! A multiply-add is two flops. Everything is for one batch of the size the shapes say.
//! [`node_flops`] counts one node, [`CostModel`] whole steps.
//!
//! What this module does not do: measure time, count the loss or the optimizer's arithmetic, or
//! complete shapes (`facts`).

mod flops;
mod step;

pub use flops::{NodeFlops, node_flops};
pub use step::CostModel;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

/// Flops of a unit's nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flops {
    /// Forward pass.
    pub forward: u64,
    /// Gradient with respect to the nodes' data inputs.
    pub input_grad: u64,
    /// Gradient with respect to the unit's parameters.
    pub weight_grad: u64,
}

/// What one unit costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitCost {
    /// Elements of the unit's parameters.
    pub elements: u64,
    /// Flops.
    pub flops: Flops,
    /// Bytes of the parameters.
    pub parameter_bytes: u64,
    /// Bytes of the gradients while the unit trains.
    pub gradient_bytes: u64,
    /// Bytes of the optimizer's slots while the unit trains.
    pub slot_bytes: u64,
}

/// What a step costs with some parameters frozen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepCost {
    /// Flops of the forward pass.
    pub forward: u64,
    /// Flops of the backward pass that remains.
    pub backward: u64,
    /// Bytes of gradients and slots of what trains.
    pub state_bytes: u64,
}

impl StepCost {
    /// Returns forward and backward flops together.
    pub fn total(&self) -> u64 {
        self.forward.saturating_add(self.backward)
    }
}
