//! A train graph in the form that ONNX Runtime with operators of our own runs fastest.
//!
//! [`optimize`] takes a graph that was built for operators of our own ([`Form::Native`](crate::autodiff::Form), which
//! the model says by importing their domain) and returns one that computes the same: normalization, residual
//! and activation are one operator ([`fuse`]), convolutions on the processor normalize what they read ([`absorb`]), and
//! images are channels-last from end to end ([`layout`]). The names of inputs and outputs stay. Operators on rows, dropout
//! ([`rows`]) and averages of statistics ([`running`]) are ours too.
//!
//! What this module does not do: numerics (`kernels`), or the binding to ONNX Runtime (`runner/onnxruntime`).

mod absorb;
mod fuse;
mod layout;
mod order;
mod rows;
mod running;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod transformer_tests;

pub(super) use order::read;

use crate::autodiff::{Window, batch_norm_op, is_image, own};
use crate::graph::{DType, Dim, Graph, INTERNAL_DOMAIN, Model, Node, ValueId};
use fuse::rebuilt;
use std::borrow::Cow;

/// Whose operators of our own a graph is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The processor, whose convolutions can normalize what they read.
    Processor,
    /// A device, whose convolutions are a library's.
    Device,
}

/// Returns the model as ONNX Runtime runs it with operators of our own.
pub(super) fn optimize(model: &Model, target: Target) -> Cow<'_, Model> {
    let imports = model.opsets.contains_key(INTERNAL_DOMAIN);
    if !imports
        || !(rows::concerned(&model.graph) || model.graph.nodes().iter().any(|node| profits(&model.graph, node)))
    {
        return Cow::Borrowed(model);
    }
    Cow::Owned(model.with_graph(layout::channels_last(&fuse::fuse(&rows::rows(&model.graph), target))))
}

/// Returns true for an operator of our own, and for a convolution of images, also one with fixed weights: what ONNX
/// Runtime prepares for those saves less than ours does.
fn profits(graph: &Graph, node: &Node) -> bool {
    let image = |index: usize| node.input(index).is_some_and(|id| is_image(graph.fact(id)));
    node.op.domain == INTERNAL_DOMAIN || node.op.is("Conv") && image(0)
}

/// Returns true for an operator of our own of this name.
fn is_own(node: &Node, name: &str) -> bool {
    node.op.domain == INTERNAL_DOMAIN && node.op.name == name
}

/// Returns true for batch normalization by the batch's statistics.
fn normalizes(node: &Node) -> bool {
    node.op == batch_norm_op()
}

/// Returns true for batch normalization of images by statistics that are given.
fn applies_statistics(graph: &Graph, node: &Node) -> bool {
    let five = (0..5).all(|index| node.input(index).is_some_and(|id| graph.fact(id).dtype == Some(DType::F32)));
    let inference = node.op.is("BatchNormalization") && node.attributes.int("training_mode", 0) == Ok(0);
    inference && five && node.input(0).is_some_and(|x| is_image(graph.fact(x)))
}

/// Returns a convolution of images in our operator, with every attribute given; `None` for other nodes.
fn convolution(graph: &Graph, node: &Node) -> Option<Node> {
    let (x, w) = (node.input(0)?, node.input(1)?);
    let fits = node.op.is("Conv") && is_image(graph.fact(x)) && is_image(graph.fact(node.output(0)?));
    let weight = graph.fact(w).sizes().filter(|_| fits)?;
    let kernel: Vec<i64> = weight.iter().skip(2).filter_map(|size| i64::try_from(*size).ok()).collect();
    let group = node.attributes.int("group", 1).ok()?;
    let attributes = window(graph, node, x, kernel)?.attributes().with("group", group);
    Some(Node { op: own("Conv"), attributes, ..node.clone() })
}

/// Returns the window of a node on images.
fn window(graph: &Graph, node: &Node, x: ValueId, kernel: Vec<i64>) -> Option<Window> {
    let space: Vec<usize> = graph.fact(x).shape.as_ref()?.iter().skip(2).filter_map(Dim::known).collect();
    Window::read(&node.attributes, kernel, &space).ok()
}

/// Returns the graph's nodes in an order in which they can run, each as late as its place says.
fn in_order(graph: &Graph, nodes: Vec<Node>) -> Vec<Node> {
    use std::collections::{BinaryHeap, HashMap};
    let mut producer = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        producer.extend(node.outputs.iter().flatten().map(|output| (*output, index)));
    }
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    let mut open = vec![0_usize; nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        let captured = node.captured().filter_map(|name| graph.find(name));
        for from in node.inputs.iter().flatten().copied().chain(captured).filter_map(|id| producer.get(&id)) {
            readers[*from].push(index);
            open[index] += 1;
        }
    }
    let ready = (0..nodes.len()).filter(|index| open[*index] == 0);
    let mut ready: BinaryHeap<std::cmp::Reverse<usize>> = ready.map(std::cmp::Reverse).collect();
    let mut nodes: Vec<Option<Node>> = nodes.into_iter().map(Some).collect();
    let mut ordered = Vec::with_capacity(nodes.len());
    while let Some(std::cmp::Reverse(index)) = ready.pop() {
        ordered.extend(nodes[index].take());
        for reader in &readers[index] {
            open[*reader] -= 1;
            if open[*reader] == 0 {
                ready.push(std::cmp::Reverse(*reader));
            }
        }
    }
    ordered
}
