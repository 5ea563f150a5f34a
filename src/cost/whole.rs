//! Nodes that are one operator when gradients are built.
//!
//! What a group of primitives keeps for the backward pass is what the one operator keeps that they
//! are: the values between them are gone by then.

use crate::graph::{NodeId, ValueId};
use std::collections::HashSet;

/// A group of nodes that is one operator.
#[derive(Clone, Debug)]
pub struct Whole {
    /// The node that gives the result.
    pub root: NodeId,
    /// The nodes of the group, this one included.
    pub parts: HashSet<NodeId>,
    /// Type of the operator.
    pub op: String,
    /// Inputs of the operator.
    pub inputs: Vec<Option<ValueId>>,
    /// The first of the axes that a normalization normalizes.
    pub axis: Option<usize>,
}

/// What the gradient of a whole reads, beside results of its own that have one element for each row
/// of a normalization.
pub(super) struct WholeReads {
    /// The first input.
    pub input: bool,
    /// The result.
    pub output: bool,
    /// Tensors of its own that are like the first input.
    pub own: usize,
    /// Tensors of its own with size 1 in the normalized axes.
    pub rows: usize,
}

impl Whole {
    pub(super) fn reads(&self) -> WholeReads {
        let (input, output, own, rows) = match self.op.as_str() {
            "LayerNormalization" => (true, false, 0, 2),
            "RMSNormalization" => (true, false, 0, 1),
            "Swish" => (false, true, 1, 0),
            "LogSoftmax" | "SafeSoftmax" => (false, true, 0, 0),
            "Transpose" => (false, false, 0, 0),
            _ => (true, false, 0, 0),
        };
        WholeReads { input, output, own, rows }
    }
}
