//! Flops of one node, from the facts of its values.
//!
//! A multiply-add is two flops. `n` is the number of elements of the first output, `m` of the
//! first input:
//!
//! | operators | forward | gradient with respect to an input |
//! |---|---|---|
//! | `Conv`, `ConvTranspose`, `Gemm`, `MatMul`, `Einsum` | 2 for each product; `n` for the bias | data and weight: as the products forward; bias: `n` |
//! | `LSTM`, `GRU`, `RNN` | 2 for each product | data, weight, recurrence: as the products that it has part in, and the way back through the states |
//! | `Attention` and its fused forms | 2 for each product, 5 for each weight | as the products that it has part in, and 4 for each weight |
//! | normalisations (own statistics) | 5 `n` | data 8 `n`, scale 2 `n`, bias `n` |
//! | `BatchNormalization` (running statistics) | 2 `n` | data `n`, scale 2 `n`, bias `n` |
//! | `Softmax`, `LogSoftmax` | 5 `n` | 4 `n` |
//! | pools | window times `n` | the same |
//! | global pools, reductions, `CumSum` | `m` | `m` |
//! | `Resize` (linear; cubic 35), composite activations (`Gelu`, `Mish`, ..) | 5 `n` | 5 `n` |
//! | other pointwise operators | `n` | `n` |
//! | data movement | 0 | 0; `n` where gradients add up (`Gather`, `Expand`, `Tile`) |
//! | quantised products | 2 for each product | 0: no gradient passes |
//! | `If`, `Loop`, `Scan` | the costlier branch; the body as often as it runs | 0: no gradient passes |
//! | others on integers, booleans or strings | 0 | 0 |
//!
//! An operator that is not known, one whose shapes are not fixed and a loop without a fixed number of
//! rounds have no count: [`Uncounted`] says which.

use super::operators::{Count, find};
use super::products::{Counts, Shapes};
use super::subgraphs;
use crate::graph::{DType, Graph, Node};
use crate::modules::uses::carries_gradient;

/// Flops of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFlops {
    /// Forward pass.
    pub forward: u64,
    /// Gradient with respect to each input, by position; 0 where there is none.
    pub input_grads: Vec<u64>,
    /// What is added once, whichever gradients are wanted: the way back through the states of a
    /// recurrent operator or the weights of an attention.
    pub through: u64,
}

impl NodeFlops {
    /// Returns no flops for a node with `inputs` inputs.
    pub(super) fn none(inputs: usize) -> NodeFlops {
        NodeFlops { forward: 0, input_grads: vec![0; inputs], through: 0 }
    }
}

/// Why a node has no count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Uncounted {
    /// A shape that the count depends on is not known.
    Shapes,
    /// The operator is not known.
    Operator,
    /// The operator runs a graph of which it is not known how often.
    Subgraph,
}

/// Returns the flops of a node.
///
/// # Errors
/// The operator is not known, it is not known how often it runs a graph, or a shape that the count depends
/// on is not fixed.
pub fn node_flops(graph: &Graph, node: &Node) -> Result<NodeFlops, Uncounted> {
    let shapes = Shapes { graph, node };
    let count = find(&node.op.domain, &node.op.name).ok_or(Uncounted::Operator)?;
    let dtype = node.outputs.iter().flatten().find_map(|output| graph.fact(*output).dtype);
    let whole = matches!(count, Count::Products(_) | Count::Quantizes(_) | Count::Subgraph);
    if dtype.is_some_and(|dtype| !dtype.is_float()) && !whole {
        return Ok(NodeFlops::none(node.inputs.len()));
    }
    let flat = |forward: u64, grads: Vec<u64>| Counts { forward, grads, through: 0 };
    let counts = match count {
        Count::Free => Some(flat(0, vec![0])),
        Count::Gathers => shapes.output().map(|n| flat(0, vec![n])),
        Count::Each(forward, backward) => {
            shapes.output().map(|n| flat(n.saturating_mul(forward), vec![n.saturating_mul(backward)]))
        }
        Count::EachInput(forward, backward) => {
            shapes.input(0).map(|m| flat(m.saturating_mul(forward), vec![m.saturating_mul(backward)]))
        }
        Count::Quantizes(flops) => shapes.input(0).map(|m| flat(m.saturating_mul(flops), vec![0])),
        Count::Normalizes => shapes.output().map(|n| {
            let times = |flops: u64| n.saturating_mul(flops);
            flat(times(5), vec![times(8), times(2), n])
        }),
        Count::With(function) | Count::Products(function) => function(&shapes),
        Count::Subgraph => return subgraphs::count(graph, node),
    };
    counts.map(|counts| node_counts(&shapes, &counts)).ok_or(Uncounted::Shapes)
}

/// Returns counts as those of a node: 0 for an input that has no gradient.
pub(super) fn node_counts(shapes: &Shapes<'_>, counts: &Counts) -> NodeFlops {
    let grad = |index: usize| {
        let value = shapes.node.input(index)?;
        let float = shapes.graph.fact(value).dtype.is_none_or(DType::is_float);
        let carries = float && carries_gradient(shapes.node, index);
        carries.then(|| counts.grads.get(index).or(counts.grads.last()).copied().unwrap_or(0))
    };
    let input_grads = (0..shapes.node.inputs.len()).map(|index| grad(index).unwrap_or(0)).collect();
    NodeFlops { forward: counts.forward, input_grads, through: counts.through }
}
