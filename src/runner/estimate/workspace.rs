//! What operators take beside their inputs and outputs: a guess.
//!
//! Of convolutions only, one at a time: the largest. On the CPU ours pack the weights and sum the gradient of the weights
//! in each thread; those of ONNX Runtime spread the patches of one image out. On CUDA a convolution may take as much as it
//! reads and writes, and not more than [`MOST`].

use crate::graph::{Graph, INTERNAL_DOMAIN, Node, ValueId};
use crate::runner::device::Device;

/// The most bytes of a convolution on CUDA.
const MOST: u64 = 256 << 20;
/// What products of matrices take on CUDA.
const PRODUCTS: u64 = 32 << 20;

/// Returns the bytes for a graph of which every size is known.
pub(super) fn workspace(graph: &Graph, device: Device, threads: usize) -> u64 {
    let of = |node: &Node| match device {
        Device::Cuda(_) => convolution(graph, node).map(|all| all.min(MOST)),
        Device::Cpu => on_cpu(graph, node, threads as u64),
    };
    let largest = graph.nodes().iter().filter(|node| is_convolution(node)).filter_map(of).max().unwrap_or(0);
    match device {
        Device::Cuda(_) => largest + PRODUCTS,
        Device::Cpu => largest,
    }
}

fn is_convolution(node: &Node) -> bool {
    let standard = node.op.is("Conv") || node.op.is("ConvTranspose");
    let own = || ["Conv", "ConvInputGrad", "ConvWeightGrad"].contains(&node.op.name.as_str());
    standard || node.op.domain == INTERNAL_DOMAIN && own()
}

fn size(graph: &Graph, id: Option<ValueId>) -> Option<u64> {
    let fact = graph.fact(id?);
    Some(super::bytes(fact.dtype?, &fact.sizes()?))
}

/// Returns the bytes that a convolution reads and writes.
fn convolution(graph: &Graph, node: &Node) -> Option<u64> {
    Some(size(graph, node.input(0))? + size(graph, node.input(1))? + size(graph, node.output(0))?)
}

fn on_cpu(graph: &Graph, node: &Node, threads: u64) -> Option<u64> {
    if node.op.domain == INTERNAL_DOMAIN {
        return match node.op.name.as_str() {
            "ConvWeightGrad" => Some(size(graph, node.output(0))?.saturating_mul(threads + 1)),
            _ => size(graph, node.input(1)),
        };
    }
    let weight = graph.fact(node.input(1)?).sizes()?;
    let kernel: u64 = weight.iter().skip(2).map(|size| *size as u64).product();
    let channels = *weight.get(1)? as u64;
    let space = graph.fact(node.output(0)?).sizes()?;
    let space: u64 = space.iter().skip(2).map(|size| *size as u64).product();
    Some(if kernel == 1 { 0 } else { 4 * kernel.saturating_mul(channels).saturating_mul(space) })
}
