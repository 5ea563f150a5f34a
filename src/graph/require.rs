//! Facts that somebody cannot do without.

use super::{Dim, Fact, Graph, Node, NodeId, ValueId};
use std::collections::HashSet;

/// A value of which something is not known that is needed.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
#[error("the {missing} of \"{value}\" is not known: node \"{node}\" ({op}) gives {found} of {inputs}")]
pub struct FactError {
    /// Value that is needed.
    pub value: String,
    /// What is not known of it: `dtype`, `shape`, or `size of dimension N`.
    pub missing: String,
    /// First node whose inputs are known and whose output is not.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// What is known of its output.
    pub found: String,
    /// What is known of its inputs.
    pub inputs: String,
}

/// Returns the fact of a value of which dtype and every dimension, as a number or a name, are known.
///
/// # Errors
/// Names what is not known, and the node that lost it.
pub fn require(graph: &Graph, value: ValueId) -> Result<&Fact, FactError> {
    let fact = graph.fact(value);
    match missing(fact) {
        None => Ok(fact),
        Some(missing) => Err(lost(graph, value, missing)),
    }
}

/// Returns what is not known of a fact.
pub fn missing(fact: &Fact) -> Option<String> {
    match (&fact.dtype, &fact.shape) {
        (_, None) => Some("shape".into()),
        (None, _) => Some("dtype".into()),
        (_, Some(shape)) => {
            let axis = shape.iter().position(|dim| *dim == Dim::Unknown)?;
            Some(format!("size of dimension {axis}"))
        }
    }
}

/// Returns the node that lost a value: the one reached by going from unknown output to first
/// unknown input until every input is known.
pub fn loser(graph: &Graph, value: ValueId) -> Option<NodeId> {
    let mut seen: HashSet<ValueId> = HashSet::new();
    let mut node = graph.producer(value)?;
    loop {
        let unknown = |id: &&ValueId| missing(graph.fact(**id)).is_some();
        let input = graph.node(node).inputs.iter().flatten().find(unknown);
        match input.filter(|id| seen.insert(**id)).and_then(|id| graph.producer(*id)) {
            Some(earlier) => node = earlier,
            None => return Some(node),
        }
    }
}

/// Returns the error for a value of which something is not known.
pub fn lost(graph: &Graph, value: ValueId, missing: String) -> FactError {
    let name = graph.value_name(value).to_string();
    let Some(node) = loser(graph, value).map(|id| graph.node(id)) else {
        let (node, found) = (name.clone(), graph.fact(value).to_string());
        return FactError { value: name, missing, node, op: "graph input".into(), found, inputs: "the file".into() };
    };
    let found = node.outputs.iter().flatten().map(|id| graph.fact(*id).to_string()).collect::<Vec<_>>().join(", ");
    let op = node.op.to_string();
    FactError { value: name, missing, node: node.name.clone(), op, found, inputs: inputs(graph, node) }
}

fn inputs(graph: &Graph, node: &Node) -> String {
    let input = |id: &Option<ValueId>| id.map_or_else(|| "nothing".to_string(), |id| graph.fact(id).to_string());
    match node.inputs.as_slice() {
        [] => "no inputs".into(),
        inputs => inputs.iter().take(8).map(input).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attributes, Builder, DType, OpId};

    #[test]
    fn the_node_that_lost_a_value_is_named() {
        let mut b = Builder::new("lost");
        let x = b.input("x", Fact::new(DType::F32, vec![Dim::Symbol("batch".into()), Dim::Known(4)]));
        let op = OpId { domain: "org.example".into(), name: "Mystery".into() };
        let y = b.ops(&op, &[Some(x)], Attributes::none(), 1)[0];
        let z = b.add(y, x);
        let unsized_input = b.input("u", Fact::new(DType::F32, vec![Dim::Unknown]));
        let graph = b.finish();
        assert_eq!(require(&graph, x).map(Fact::to_string), Ok("float32[batch,4]".into()));
        let error = require(&graph, z).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the shape of \"Add:0\" is not known: node \"Mystery\" (org.example.Mystery) gives ?[..] of float32[batch,4]"
        );
        assert_eq!(require(&graph, unsized_input).unwrap_err().missing, "size of dimension 0");
    }
}
