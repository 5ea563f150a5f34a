//! Values of which something stays unknown.

use super::sequences::makes_sequence;
use super::walk::may_be_float;
use crate::graph::{Fact, Graph, NodeId, ValueId, missing};
use std::fmt;

/// A value of which something is not known.
#[derive(Clone, Debug, PartialEq)]
pub struct Gap {
    /// Value.
    pub value: ValueId,
    /// Its name.
    pub name: String,
    /// What is not known: `dtype`, `shape`, or `size of dimension N`.
    pub missing: String,
    /// First node in evaluation order whose inputs were known and whose output is not.
    pub node: NodeId,
    /// That node's name.
    pub node_name: String,
    /// That node's operator.
    pub op: String,
    /// True for a floating-point value that depends on a floating-point input or initializer: only
    /// such values have gradients and costs.
    pub needed: bool,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Gap { name, missing, node_name, op, .. } = self;
        write!(f, "the {missing} of \"{name}\" is not known, lost by node \"{node_name}\" ({op})")
    }
}

/// Returns the gaps in evaluation order. Sequences are no gaps: they have no shape.
pub(super) fn gaps(graph: &Graph, facts: &[Fact]) -> Vec<Gap> {
    let mut lost_by: Vec<Option<NodeId>> = vec![None; facts.len()];
    let mut carries = vec![false; facts.len()];
    for (id, value) in graph.values() {
        carries[id.0] = graph.producer(id).is_none() && value.fact.is_float();
    }
    let mut gaps = Vec::new();
    for (id, node) in graph.node_ids() {
        let lost = node.inputs.iter().flatten().find_map(|input| lost_by[input.0]);
        let captured = || node.captured().filter_map(|name| graph.find(name)).any(|value| carries[value.0]);
        let carried = node.inputs.iter().flatten().any(|input| carries[input.0]) || captured();
        for output in node.outputs.iter().flatten() {
            let fact = &facts[output.0];
            carries[output.0] = carried && may_be_float(fact);
            let Some(missing) = missing(fact).filter(|_| !makes_sequence(node)) else { continue };
            let node = lost.unwrap_or(id);
            lost_by[output.0] = Some(node);
            gaps.push(Gap {
                value: *output,
                name: graph.value_name(*output).to_string(),
                missing,
                node,
                node_name: graph.node(node).name.clone(),
                op: graph.node(node).op.to_string(),
                needed: carries[output.0],
            });
        }
    }
    gaps
}
