//! What a step costs: flops and bytes, per unit and for any frozen set.
//!
//! A multiply-add is two flops. Everything is for one batch of the size the shapes say.
//! [`node_flops`] counts one node, [`CostModel`] whole steps: the flops of the backward pass that
//! remains, the bytes of gradients and optimizer slots, the bytes that the forward pass keeps for the
//! backward pass, and what a cache of a frozen prefix's output saves.
//!
//! One file per question: `flops` with `operators` (how often an operator counts) and `products`
//! (operators with products); `stash` (what a gradient reads of the forward pass); `step`
//! (reachability); `prefix` (what a cache can hold); `alive` (who keeps the backward pass
//! running); `units` (which node counts for which unit); `whole`
//! (nodes that are one operator).
//!
//! What this module does not do: measure time, count the loss or the optimizer's arithmetic, read
//! a weight, or complete shapes (`facts`).

mod alive;
mod bits;
mod flops;
mod model;
mod operators;
mod prefix;
mod products;
mod reach;
mod reader;
mod stash;
mod step;
mod subgraphs;
mod units;
mod whole;

pub use bits::Bits;
pub use flops::{NodeFlops, Uncounted, node_flops};
pub use model::CostModel;
pub use reach::{Needs, Reach, ReachItem};
pub use whole::Whole;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

/// Flops of a unit's nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Flops {
    /// Forward pass.
    pub forward: u64,
    /// Gradient with respect to the nodes' data inputs.
    pub input_grad: u64,
    /// Gradient with respect to the unit's parameters.
    pub weight_grad: u64,
}

impl Flops {
    /// Returns the flops of the backward pass.
    pub fn backward(&self) -> u64 {
        self.input_grad.saturating_add(self.weight_grad)
    }

    /// Returns forward and backward flops together.
    pub fn total(&self) -> u64 {
        self.forward.saturating_add(self.backward())
    }

    /// Returns the sum with other flops.
    pub fn plus(self, other: Flops) -> Flops {
        Flops {
            forward: self.forward.saturating_add(other.forward),
            input_grad: self.input_grad.saturating_add(other.input_grad),
            weight_grad: self.weight_grad.saturating_add(other.weight_grad),
        }
    }
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepCost {
    /// Flops of the forward pass and of what remains of the backward pass.
    pub flops: Flops,
    /// Bytes of the gradients of what trains.
    pub gradient_bytes: u64,
    /// Bytes of the optimizer's slots of what trains.
    pub slot_bytes: u64,
    /// Bytes that the forward pass makes and the backward pass reads.
    pub activation_bytes: u64,
    /// Flops of the forward pass that a cache of the frozen prefix's output can save: of nodes that
    /// give the same for the same sample in every step.
    pub cacheable: u64,
    /// Bytes for each sample of what crosses from those nodes to the others.
    pub cut_bytes: u64,
}

impl StepCost {
    /// Returns forward and backward flops together.
    pub fn total(&self) -> u64 {
        self.flops.total()
    }

    /// Returns the flops of the backward pass.
    pub fn backward(&self) -> u64 {
        self.flops.backward()
    }

    /// Returns the bytes of gradients and slots together.
    pub fn state_bytes(&self) -> u64 {
        self.gradient_bytes.saturating_add(self.slot_bytes)
    }
}
