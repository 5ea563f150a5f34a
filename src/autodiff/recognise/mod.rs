//! Finds operators that a model has written as primitives and makes each ONE node again.
//!
//! A gradient built through the primitives reads their intermediate values: they stay in memory
//! until the backward pass, and the fusions of ONNX Runtime, which want intermediate values without
//! other readers, do not happen. One node has one gradient rule that reads little. What has a
//! standard operator at the model's opset becomes that, the rest an internal operator
//! ([`super::INTERNALS`]).
//!
//! One pattern a file: the formula, how exporters write it, what must hold, and what it becomes. A
//! pattern is looked for at the node that gives its result. It is left alone where an intermediate
//! value is a graph output, is read by a subgraph or by any node outside the pattern. The new node
//! takes the name, the output name and the metadata of the node that gave the result.
//!
//! What this module does not do: change what a value means beyond rounding, or touch a parameter.

mod gated;
mod gelu;
mod hard_swish;
mod layer_normalization;
mod log_softmax;
mod rms_normalization;
mod safe_softmax;
mod swap;
mod swish;
mod view;

use crate::graph::{Attributes, Builder, Fact, Graph, Node, NodeId, OpId, Tensor, ValueId, rebuild};
use std::collections::{HashMap, HashSet};
use view::View;

/// A kind of subgraph that is one operator.
struct Pattern {
    /// Name, as its file has it.
    name: &'static str,
    /// Returns what the subgraph is that ends in this node.
    find: fn(&View<'_>, &Node) -> Option<Found>,
}

/// An operator found in primitives.
struct Found {
    op: OpId,
    attributes: Attributes,
    inputs: Vec<Source>,
    /// Outputs after the first: the last part of their names, and what is known of them.
    more: Vec<(&'static str, Fact)>,
}

/// An input of the operator found.
enum Source {
    Value(ValueId),
    Constant(Tensor),
}

impl Found {
    fn new(op: OpId, attributes: Attributes, inputs: Vec<Source>) -> Found {
        Found { op, attributes, inputs, more: Vec::new() }
    }

    /// An operator of one input.
    fn unary(op: OpId, attributes: Attributes, x: ValueId) -> Found {
        Found::new(op, attributes, vec![Source::Value(x)])
    }
}

/// Every pattern, by file.
static PATTERNS: &[&Pattern] = &[
    &gelu::PATTERN,
    &hard_swish::PATTERN,
    &layer_normalization::PATTERN,
    &log_softmax::PATTERN,
    &rms_normalization::PATTERN,
    &safe_softmax::PATTERN,
    &swap::PATTERN,
    &swish::PATTERN,
];

/// Nodes that are one operator.
pub struct Group {
    /// The node that gives the result.
    pub root: NodeId,
    /// The nodes of the group, this one included.
    pub parts: HashSet<NodeId>,
    /// The operator.
    pub op: OpId,
    /// Its attributes.
    pub attributes: Attributes,
    /// Its inputs; `None` where it is given a constant of its own.
    pub inputs: Vec<Option<ValueId>>,
    /// Name of the pattern.
    pub pattern: &'static str,
    found: Found,
}

/// Returns the graph, of an opset from 18 to 21, with every pattern that reads a value of `moving`
/// as one node. `variable` names the initializers whose elements may change; no other initializer
/// is taken for a number.
pub fn recognise(graph: &Graph, opset: i64, variable: &HashSet<&str>, moving: &HashSet<ValueId>) -> Graph {
    recognise_but(graph, opset, variable, moving, |_| false)
}

/// As [`recognise`], where nodes for which `alone` holds stay as they are.
pub fn recognise_but(
    graph: &Graph,
    opset: i64,
    variable: &HashSet<&str>,
    moving: &HashSet<ValueId>,
    alone: impl Fn(&Node) -> bool,
) -> Graph {
    rewrite(graph, &groups(graph, opset, variable, moving, &alone))
}

/// Returns the groups of nodes that [`recognise`] would make one node, from the last one to the
/// first. Here the graph may have an older opset too.
pub fn patterns(graph: &Graph, opset: i64, variable: &HashSet<&str>, moving: &HashSet<ValueId>) -> Vec<Group> {
    groups(graph, opset, variable, moving, &|_| false)
}

fn groups(
    graph: &Graph,
    opset: i64,
    variable: &HashSet<&str>,
    moving: &HashSet<ValueId>,
    alone: &dyn Fn(&Node) -> bool,
) -> Vec<Group> {
    let view = View::new(graph, opset, variable);
    let mut taken: HashSet<NodeId> = HashSet::new();
    let mut groups = Vec::new();
    for (root, node) in graph.node_ids().collect::<Vec<_>>().into_iter().rev() {
        let plain = node.op.domain.is_empty() && node.outputs.len() == 1;
        let moves = node.inputs.iter().flatten().any(|input| moving.contains(input));
        if !plain || !moves || taken.contains(&root) {
            continue;
        }
        let matches = PATTERNS.iter().filter_map(|pattern| Some((pattern.name, (pattern.find)(&view, node)?)));
        for (pattern, found) in matches {
            let inputs: Vec<Option<ValueId>> = found.inputs.iter().map(Source::value).collect();
            let values: Vec<ValueId> = inputs.iter().copied().flatten().collect();
            let Some(parts) = view.parts(root, &values).filter(|parts| parts.is_disjoint(&taken)) else { continue };
            if parts.iter().any(|id| alone(graph.node(*id))) {
                continue;
            }
            taken.extend(&parts);
            let (op, attributes) = (found.op.clone(), found.attributes.clone());
            groups.push(Group { root, parts, op, attributes, inputs, pattern, found });
            break;
        }
    }
    groups
}

fn rewrite(graph: &Graph, groups: &[Group]) -> Graph {
    if groups.is_empty() {
        return graph.clone();
    }
    let roots: HashMap<NodeId, &Group> = groups.iter().map(|group| (group.root, group)).collect();
    let gone: HashSet<NodeId> = groups.iter().flat_map(|group| group.parts.iter().copied()).collect();
    let mut position = 0;
    rebuild(graph, |b, node, _| {
        let id = NodeId(position);
        position += 1;
        match roots.get(&id) {
            Some(group) => Some(one_node(b, graph, node, &group.found)),
            None => gone.contains(&id).then(|| vec![None; node.outputs.len()]),
        }
    })
}

impl Source {
    fn value(&self) -> Option<ValueId> {
        match self {
            Source::Value(value) => Some(*value),
            Source::Constant(_) => None,
        }
    }
}

/// Appends the operator in the place of `node`. Values keep their names, so an input is found by
/// its name.
fn one_node(b: &mut Builder, graph: &Graph, node: &Node, operator: &Found) -> Vec<Option<ValueId>> {
    b.enter(node.origin.clone(), &node.name);
    let mut inputs = Vec::with_capacity(operator.inputs.len());
    for source in &operator.inputs {
        inputs.push(match source {
            Source::Value(value) => b.graph().find(graph.value_name(*value)),
            Source::Constant(tensor) => Some(b.constant("const", tensor.clone())),
        });
    }
    let more: Vec<(String, Fact)> = operator.more.iter().map(|(part, fact)| (b.unique(part), fact.clone())).collect();
    let one = Node {
        op: operator.op.clone(),
        overload: String::new(),
        attributes: operator.attributes.clone(),
        ..node.clone()
    };
    b.copy_node_with(graph, &one, &inputs, &more)
}

#[cfg(test)]
mod tests;
