//! The tree from the names that TensorFlow's converters write: `model/dense/MatMul`.
//!
//! Nodes and tensors have the scope of the layer in front and operators behind; the call around the whole
//! graph (`StatefulPartitionedCall`) is no module. A number behind the name of a layer is part of its
//! name, unlike in TorchScript's scopes.

use super::Scopes;
use crate::graph::Model;
use crate::modules::names::slash_scope;
use crate::modules::parameters::{Param, Role};
use std::collections::{HashMap, HashSet};

/// Returns the scopes of every node; `None` when fewer than half of the nodes that read parameters, or
/// of all nodes that compute, have one.
pub(super) fn scopes(model: &Model, params: &[Param]) -> Option<Scopes> {
    let nodes = model.graph.nodes();
    let held: HashSet<_> = params.iter().filter(|param| param.role != Role::Buffer).map(|param| param.value).collect();
    let computing = nodes.iter().filter(|node| !node.op.is("Constant") && !node.op.is("Identity"));
    let reading = nodes.iter().filter(|node| node.inputs.iter().flatten().any(|value| held.contains(value)));
    let most = |of: &mut dyn Iterator<Item = &crate::graph::Node>| {
        let scoped: Vec<bool> = of.map(|node| node.name.contains('/') && !node.name.starts_with('/')).collect();
        !scoped.is_empty() && scoped.iter().filter(|scoped| **scoped).count() * 2 > scoped.len()
    };
    if !most(&mut computing.into_iter()) && !most(&mut reading.into_iter()) {
        return None;
    }
    let mut paths: Vec<Option<String>> = nodes.iter().map(|node| slash_scope(&node.name)).collect();
    // A recurrent layer becomes one node with a name of its own, behind a transposition that has the scope.
    for (id, node) in model.graph.node_ids() {
        let recurrent = matches!(node.op.name.as_str(), "LSTM" | "GRU" | "RNN");
        let before = node.input(0).and_then(|value| model.graph.producer(value)).filter(|_| recurrent);
        if let (None, Some(before)) = (&paths[id.0], before) {
            paths[id.0] = paths[before.0].clone();
        }
    }
    Some(Scopes::new("slash", paths, HashMap::new()))
}
