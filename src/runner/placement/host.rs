//! Which values are on the host, as ONNX Runtime decides it for the CUDA provider: what `Shape` and `Size` say, and what
//! is computed of nothing but that, of small constants and of graph inputs.
//!
//! ONNX Runtime moves such a node to the processor even though it has a CUDA kernel, unless it reads float16 or bfloat16.

use crate::graph::{DType, Graph, Node, Subgraph, ValueId};
use std::collections::HashSet;

/// Largest number of elements of a constant that ONNX Runtime takes for a value on the host.
const SMALL: usize = 100;

/// Inputs that CUDA kernels read on the host.
#[rustfmt::skip]
const READ_ON_HOST: &[(&str, &[usize])] = &[
    ("AffineGrid", &[1]),
    ("Clip", &[1, 2]),
    ("ConstantOfShape", &[0]),
    ("CumSum", &[1]),
    ("Dropout", &[1, 2]),
    ("Expand", &[1]),
    ("If", &[0]),
    ("Loop", &[0, 1]),
    ("OneHot", &[1]),
    ("Pad", &[1, 2, 3]),
    ("Range", &[0, 1, 2]),
    ("ReduceL1", &[1]),
    ("ReduceL2", &[1]),
    ("ReduceLogSum", &[1]),
    ("ReduceLogSumExp", &[1]),
    ("ReduceMax", &[1]),
    ("ReduceMean", &[1]),
    ("ReduceMin", &[1]),
    ("ReduceProd", &[1]),
    ("ReduceSum", &[1]),
    ("ReduceSumSquare", &[1]),
    ("Reshape", &[1]),
    ("Resize", &[1, 2, 3]),
    ("ReverseSequence", &[1]),
    ("Slice", &[1, 2, 3, 4]),
    ("Split", &[1]),
    ("Squeeze", &[1]),
    ("Tile", &[1]),
    ("TopK", &[1]),
    ("Trilu", &[1]),
    ("Unsqueeze", &[1]),
    ("Upsample", &[1]),
];

/// What is known of a graph's values.
#[derive(Clone, Default)]
pub(super) struct Host {
    /// Names of those on the host.
    names: HashSet<String>,
    /// The graph's inputs; in a subgraph those that its node gives.
    inputs: HashSet<ValueId>,
}

impl Host {
    /// Returns what is known at the beginning of a graph.
    pub(super) fn of(graph: &Graph) -> Host {
        Host { names: HashSet::new(), inputs: graph.inputs().iter().copied().collect() }
    }

    /// Returns what is known at the beginning of a subgraph.
    pub(super) fn inner(&self, subgraph: &Subgraph) -> Host {
        let names = subgraph.captures.iter().filter(|name| self.names.contains(*name)).cloned().collect();
        Host { names, inputs: subgraph.formal_inputs().iter().copied().collect() }
    }

    /// Returns true for a node that runs on the host because of what it reads; then so are its outputs. `has_kernel` says
    /// that the provider could run it.
    pub(super) fn follows(&mut self, graph: &Graph, node: &Node, has_kernel: bool) -> bool {
        let asks = asks(node);
        let follows = !asks && if has_kernel { self.pulled(graph, node) } else { self.reads_host_only(graph, node) };
        if asks || follows {
            self.names.extend(node.outputs.iter().flatten().map(|id| graph.value_name(*id).to_string()));
        }
        follows
    }

    /// Returns true where a node that has been judged runs on the host.
    pub(super) fn runs(&self, graph: &Graph, node: &Node) -> bool {
        !asks(node) && node.outputs.iter().flatten().any(|id| self.contains(graph, *id))
    }

    /// Returns true where one of the graph inputs that a node reads is not as small as shapes are.
    pub(super) fn large(&self, graph: &Graph, node: &Node) -> bool {
        let small = |id: &ValueId| graph.fact(*id).sizes().is_some_and(|sizes| elements(&sizes) <= SMALL);
        node.inputs.iter().flatten().any(|id| !self.contains(graph, *id) && self.inputs.contains(id) && !small(id))
    }

    fn contains(&self, graph: &Graph, id: ValueId) -> bool {
        self.names.contains(graph.value_name(id))
    }

    /// Of a node without kernel: it reads something, and that is on the host or constant.
    fn reads_host_only(&self, graph: &Graph, node: &Node) -> bool {
        let mut read = node.inputs.iter().flatten().peekable();
        read.peek().is_some() && read.all(|id| self.contains(graph, *id) || graph.value(*id).initializer.is_some())
    }

    /// Of a node with a kernel: it reads values on the host that its kernel wants on the device, and nothing of the device.
    fn pulled(&self, graph: &Graph, node: &Node) -> bool {
        let on_host: &[usize] = READ_ON_HOST.iter().find(|(name, _)| node.op.is(name)).map_or(&[], |row| row.1);
        let mut some = false;
        for (index, id) in node.inputs.iter().enumerate().filter_map(|(index, id)| Some((index, (*id)?))) {
            if matches!(graph.fact(id).dtype, Some(DType::F16 | DType::BF16)) {
                return false;
            }
            let held = graph.value(id).initializer.as_ref();
            if held.is_some_and(|tensor| elements(tensor.shape()) <= SMALL) || self.inputs.contains(&id) {
                continue;
            }
            if !self.contains(graph, id) || on_host.contains(&index) {
                return false;
            }
            some = true;
        }
        some
    }
}

/// Returns true for an operator that runs for the device and answers on the host.
fn asks(node: &Node) -> bool {
    node.op.is("Shape") || node.op.is("Size")
}

fn elements(sizes: &[usize]) -> usize {
    sizes.iter().fold(1, |product, size| product.saturating_mul(*size))
}
