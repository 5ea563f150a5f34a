//! Where ONNX Runtime's CUDA execution provider would run the nodes of a graph, told without a device.
//!
//! [`on_cpu`] finds the nodes that would run on the processor: those without a CUDA kernel of their operator, opset and
//! types (`cuda_kernels.txt`), and those that the provider refuses (`refused.rs`). A node that computes with shapes alone
//! is left out: ONNX Runtime runs it on the host on purpose (`host.rs`). `lower` rewrites a graph so that fewer remain.
//!
//! What this module does not do: ask ONNX Runtime. Whoever makes a session can compare.

mod host;
mod kernels;
mod lower;
mod refused;
#[cfg(test)]
mod tests;

use crate::graph::{Attribute, DType, Graph, INTERNAL_DOMAIN, Model, Node, OpId, ValueId};
use host::Host;
pub use lower::lower;
use std::fmt;

/// A node that would run on the processor.
#[derive(Clone, Debug, PartialEq)]
pub struct Misplaced {
    /// The node's name.
    pub node: String,
    /// Its operator.
    pub operator: OpId,
    /// The opset of the operator's domain in the model.
    pub opset: i64,
    /// The dtype that the reason is about, or that of the first input.
    pub dtype: Option<DType>,
    /// Why.
    pub reason: Reason,
}

/// Why a node would run on the processor.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// The operator has no CUDA kernel, or none is registered under its name.
    Operator,
    /// The operator's version that begins at this opset has none.
    Opset(i64),
    /// Its kernels take other types.
    Type {
        /// The types that they take.
        takes: Vec<DType>,
    },
    /// The provider has a kernel, but it does not take the node, its kernel fails, or it computes something else.
    Refused(&'static str),
    /// All it reads are values on the host and graph inputs, which ONNX Runtime takes for values on the host.
    Inputs,
}

impl fmt::Display for Misplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node \"{}\": {} of opset {}", self.node, self.operator, self.opset)?;
        if let Some(dtype) = self.dtype {
            write!(f, ", {dtype}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Operator => f.write_str("it has no CUDA kernel"),
            Reason::Opset(since) => write!(f, "its version of opset {since} has no CUDA kernel"),
            Reason::Type { takes } => {
                let takes: Vec<String> = takes.iter().map(DType::to_string).collect();
                write!(f, "its CUDA kernel takes only {}", takes.join(", "))
            }
            Reason::Refused(why) => write!(f, "its CUDA kernel does not serve: {why}"),
            Reason::Inputs => f.write_str("it reads only graph inputs and values on the host"),
        }
    }
}

/// Returns the nodes of a model, and of the subgraphs in it, that would not run on the device, in the order of the
/// graph. `own` names the operators of this program's domain that are registered for CUDA.
pub fn on_cpu(model: &Model, own: &[&str]) -> Vec<Misplaced> {
    let mut found = Found::default();
    Judge { model, own }.graph(&model.graph, Host::of(&model.graph), &mut found);
    found.misplaced
}

/// Returns the names of the nodes that run on the processor because they compute with shapes, or with what ONNX Runtime
/// takes for such; [`on_cpu`] leaves them out, except those that read data.
pub fn on_host(model: &Model, own: &[&str]) -> Vec<String> {
    let mut found = Found::default();
    Judge { model, own }.graph(&model.graph, Host::of(&model.graph), &mut found);
    found.host
}

#[derive(Default)]
struct Found {
    misplaced: Vec<Misplaced>,
    host: Vec<String>,
}

/// Why a node would run on the processor, and the dtype that it is about.
type Verdict = (Reason, Option<DType>);

struct Judge<'a> {
    model: &'a Model,
    own: &'a [&'a str],
}

impl Judge<'_> {
    fn graph(&self, graph: &Graph, mut host: Host, found: &mut Found) {
        for node in graph.nodes() {
            let verdict = self.node(graph, node, &mut host);
            if host.runs(graph, node) {
                found.host.push(node.name.clone());
            }
            if let Some((reason, dtype)) = verdict {
                let (node, operator, opset) = (node.name.clone(), node.op.clone(), self.opset(node));
                found.misplaced.push(Misplaced { node, operator, opset, dtype, reason });
            }
            for (_, value) in node.attributes.iter() {
                if let Attribute::Graph(inner) = value {
                    self.graph(&inner.graph, host.inner(inner), found);
                }
            }
        }
    }

    /// Judges a node, given what is on the host before it; nodes come in the order of their graph.
    fn node(&self, graph: &Graph, node: &Node, host: &mut Host) -> Option<Verdict> {
        let missing = if self.is_own(node) { None } else { missing(graph, node, self.opset(node)) };
        let first = node.input(0).and_then(|id| graph.fact(id).dtype);
        match missing {
            Some((reason, dtype)) => (!host.follows(graph, node, false)).then(|| (reason, dtype.or(first))),
            None => {
                let moves = host.follows(graph, node, true) && host.large(graph, node);
                moves.then_some((Reason::Inputs, first))
            }
        }
    }

    fn opset(&self, node: &Node) -> i64 {
        self.model.opsets.get(&node.op.domain).copied().unwrap_or(1)
    }

    fn is_own(&self, node: &Node) -> bool {
        node.op.domain == INTERNAL_DOMAIN && self.own.contains(&node.op.name.as_str())
    }
}

/// Returns why the provider has no kernel of a node, and the dtype that it is about.
fn missing(graph: &Graph, node: &Node, opset: i64) -> Option<(Reason, Option<DType>)> {
    let dtypes = |values: &[Option<ValueId>]| -> Vec<Option<DType>> {
        values.iter().map(|value| value.and_then(|id| graph.fact(id).dtype)).collect()
    };
    let (inputs, outputs) = (dtypes(&node.inputs), dtypes(&node.outputs));
    let found = kernels::find(&node.op, opset, &inputs, &outputs);
    found.err().or_else(|| refused::why(node, &inputs).map(|why| (Reason::Refused(why), None)))
}
