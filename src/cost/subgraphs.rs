//! Forward flops of the operators that run a graph: no gradient passes them.

use super::flops::{NodeFlops, Uncounted, node_flops};
use crate::graph::{Attribute, Graph, Node};

/// Returns the flops of `If` (the costlier branch), `Loop` (the body, as often as a fixed trip count
/// says) or `Scan` (the body for each element).
///
/// # Errors
/// How often a body runs is not fixed, or something in it has no count.
pub(super) fn count(graph: &Graph, node: &Node) -> Result<NodeFlops, Uncounted> {
    let forward = match node.op.name.as_str() {
        "If" => body(node, "then_branch")?.max(body(node, "else_branch")?),
        "Loop" => body(node, "body")?.saturating_mul(trips(graph, node).ok_or(Uncounted::Subgraph)?),
        "Scan" => body(node, "body")?.saturating_mul(length(graph, node).ok_or(Uncounted::Shapes)?),
        _ => return Err(Uncounted::Subgraph),
    };
    Ok(NodeFlops { forward, ..NodeFlops::none(node.inputs.len()) })
}

fn body(node: &Node, name: &str) -> Result<u64, Uncounted> {
    let Some(Attribute::Graph(inner)) = node.attributes.get(name) else { return Err(Uncounted::Subgraph) };
    let nodes = inner.graph.nodes().iter().map(|node| node_flops(&inner.graph, node));
    nodes.into_iter().try_fold(0u64, |sum, flops| Ok(sum.saturating_add(flops?.forward)))
}

fn trips(graph: &Graph, node: &Node) -> Option<u64> {
    let count = graph.constant(node.input(0)?)?.to_ints()?;
    u64::try_from(*count.first()?).ok()
}

fn length(graph: &Graph, node: &Node) -> Option<u64> {
    let scanned = usize::try_from(node.attributes.int("num_scan_inputs", 0).ok()?).ok()?;
    let first = node.inputs.len().checked_sub(scanned)?;
    let axes = node.attributes.ints("scan_input_axes").ok()?;
    let axis = axes.and_then(|axes| axes.first().copied()).unwrap_or(0);
    u64::try_from(graph.fact(node.input(first)?).dim(axis)?.known()?).ok()
}
