//! Operators that exist only while gradients are built.
//!
//! Each is one node of the domain `ai.freeze-plan` until the gradients exist, so that its gradient
//! is one short formula and its forward part has few readers; [`lower`] then replaces it by
//! operators of the default domain. None of them is ever in a file. One operator a file: what it
//! means, a function that appends it, and how it is lowered. Its rule lies in `rules/` like any
//! other.

mod batch_normalization;
mod gelu;
mod rms_normalization;
mod safe_softmax;
mod steps_first;
mod summed_slices;
mod swish;

pub use batch_normalization::{batch_norm_node, batch_norm_op};
pub use gelu::{gelu_node, gelu_op};
pub use rms_normalization::{rms_norm_node, rms_norm_op};
pub use safe_softmax::safe_softmax_op;
pub use swish::{swish_node, swish_op};

use steps_first::{is_batch_first, steps_first};
use summed_slices::{reduces, summed};

use super::native::{Form, stays};
use crate::graph::{Builder, Graph, INTERNAL_DOMAIN, Node, Replaced, ValueId, prune, rebuild};

/// The output of batch normalization that only its portable form needs.
const CENTERED: usize = 3;

/// An internal operator.
pub struct Internal {
    /// Operator type in the domain `ai.freeze-plan`.
    pub op: &'static str,
    /// Appends what the node means, in operators of opset 18, and returns every output of the
    /// operator that the node may have.
    lower: fn(&mut Builder, &Node, &[Option<ValueId>]) -> Vec<ValueId>,
}

/// Every internal operator.
pub static INTERNALS: &[&Internal] = &[
    &batch_normalization::INTERNAL,
    &gelu::INTERNAL,
    &rms_normalization::INTERNAL,
    &safe_softmax::INTERNAL,
    &swish::INTERNAL,
];

/// Returns the graph with every internal operator replaced, and with what engines cannot do or do
/// wrong in a form that they do right.
pub fn lower(graph: &Graph) -> Graph {
    lower_to(Form::Portable, graph)
}

/// As [`lower`], without the operators that engines of this form have.
pub fn lower_to(form: Form, graph: &Graph) -> Graph {
    let own = |node: &Node| node.op.domain == INTERNAL_DOMAIN && !stays(graph, node, form);
    let consumers = graph.consumers();
    let unread = |id: ValueId| consumers[id.0].is_empty() && !graph.outputs().contains(&id);
    let spare = |node: &Node| node.output(CENTERED).is_some_and(|id| stays(graph, node, form) && unread(id));
    let concerned = |node: &Node| own(node) || is_batch_first(node) || reduces(node) || spare(node);
    if !graph.nodes().iter().any(concerned) {
        return graph.clone();
    }
    prune(&rebuild(graph, |b, node, inputs| {
        if spare(node) {
            let mut outputs = node.outputs.clone();
            outputs[CENTERED] = None;
            return Some(b.copy_node(graph, &Node { outputs, ..node.clone() }, inputs));
        }
        if is_batch_first(node) {
            return Some(steps_first(b, graph, node, inputs));
        }
        if reduces(node) {
            return summed(b, graph, node, inputs);
        }
        let internal = INTERNALS.iter().find(|internal| own(node) && internal.op == node.op.name)?;
        b.enter(node.origin.clone(), &node.name);
        let outputs = (internal.lower)(b, node, inputs);
        Some(in_place_of(b, graph, node, &outputs))
    }))
}

/// Gives values the names and facts of a node's outputs, whose place they take.
pub(super) fn in_place_of(b: &mut Builder, graph: &Graph, node: &Node, outputs: &[ValueId]) -> Replaced {
    let mut replaced = Vec::new();
    for (index, old) in node.outputs.iter().enumerate() {
        let new = outputs.get(index).copied();
        replaced.push(old.zip(new).map(|(old, new)| {
            b.refine(new, graph.fact(old));
            b.rename(new, graph.value_name(old));
            new
        }));
    }
    replaced
}
