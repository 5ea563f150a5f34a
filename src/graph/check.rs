//! Structural checks that hold before and after every pass.

use super::{Graph, NodeId, ValueId};
use std::collections::HashSet;

/// A graph that cannot run.
#[derive(Debug, thiserror::Error, PartialEq)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum CheckError {
    #[error("node \"{node}\" ({op}) reads \"{value}\" before anything produces it")]
    ReadBeforeProduced { node: String, op: String, value: String },
    #[error("node \"{node}\" ({op}) needs its own output: the graph has a cycle")]
    Cycle { node: String, op: String },
    #[error("value \"{value}\" is produced twice, the second time by node \"{node}\"")]
    ProducedTwice { value: String, node: String },
    #[error("graph output \"{value}\" is produced by nothing")]
    NoOutput { value: String },
}

/// Checks that every value is produced once, before it is read, and every output exists.
///
/// # Errors
/// Names the first node or value for which this does not hold.
pub fn check(graph: &Graph) -> Result<(), CheckError> {
    let mut ready: HashSet<ValueId> = graph.inputs.iter().copied().collect();
    ready.extend(graph.initializers().map(|(id, ..)| id));
    for (id, node) in graph.node_ids() {
        if let Some(missing) = node.inputs.iter().flatten().find(|input| !ready.contains(input)) {
            return Err(CheckError::ReadBeforeProduced {
                node: node.name.clone(),
                op: node.op.to_string(),
                value: graph.value_name(*missing).to_string(),
            });
        }
        for output in node.outputs.iter().flatten() {
            if !ready.insert(*output) {
                return Err(produced_twice(graph, *output, id));
            }
        }
    }
    match graph.outputs.iter().find(|output| !ready.contains(output)) {
        Some(output) => Err(CheckError::NoOutput { value: graph.value_name(*output).to_string() }),
        None => Ok(()),
    }
}

fn produced_twice(graph: &Graph, value: ValueId, node: NodeId) -> CheckError {
    CheckError::ProducedTwice { value: graph.value_name(value).to_string(), node: graph.node(node).name.clone() }
}
