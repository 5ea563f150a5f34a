//! What the gradient of an operator reads of the forward pass: kept from there until the backward
//! pass is done with it.
//!
//! The table says what the gradient rules of `autodiff` read; `tests/costs.rs` compares it with
//! the train graphs of whole models. Theory needs less in places: one bit instead of an element for
//! `Relu`. An operator that is not in the table keeps
//! all its inputs.
//!
//! What is kept is a *tensor*: one that several gradients read counts once, and a view of a tensor
//! ([`viewed`]) is the tensor. What is made of nothing but parameters and constants, and the inputs
//! of the model, are there anyway and do not count.

use crate::graph::{Graph, Node, ValueId};

/// One thing that a gradient reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Keep {
    /// An input.
    Input(usize),
    /// An output.
    Output(usize),
    /// All inputs.
    Inputs,
    /// A tensor of the operator's own, like the given input: `x - mean` of a normalisation.
    Like(usize),
    /// The positions of a pool's maxima: eight bytes for each element of the output.
    Positions,
    /// An output, which the node gives for its gradient where it is float32: the mean or the inverse
    /// deviation of a layer normalization, with one element for each row.
    Rows(usize),
    /// The mask of a dropout: a byte for each element of the output.
    Mask,
}

use Keep::{Input, Inputs, Like, Mask, Output, Positions, Rows};

/// What the gradient with respect to each input reads, by position; the last entry stands for all
/// further inputs.
type Reads = &'static [&'static [Keep]];

const NOTHING: Reads = &[&[]];
const INPUT: Reads = &[&[Input(0)]];
const OUTPUT: Reads = &[&[Output(0)]];
const INDICES: Reads = &[&[Input(1)]];
const PRODUCT: Reads = &[&[Input(1)], &[Input(0)], &[]];
const RECURRENT: Reads = &[&[Inputs, Output(0)]];
const WINNER: Reads = &[&[Inputs, Output(0)]];
/// `BatchNormalization` by the batch: the centred input and the inverse deviation of each channel.
pub(super) const BATCH_NORM: Reads = &[&[Like(0), Like(1)], &[Like(0), Like(1)], &[]];

/// Operators of the default domain, by name.
static TABLE: &[(&str, Reads)] = &[
    ("Abs", INPUT),
    ("Add", NOTHING),
    ("AveragePool", NOTHING),
    ("BatchNormalization", &[&[], &[Input(0)], &[]]),
    ("Cast", NOTHING),
    ("CastLike", NOTHING),
    ("Celu", INPUT),
    ("Clip", &[&[Input(0), Input(1), Input(2)]]),
    ("Concat", NOTHING),
    ("Conv", PRODUCT),
    ("ConvTranspose", PRODUCT),
    ("Cos", INPUT),
    ("CumSum", NOTHING),
    ("DepthToSpace", NOTHING),
    ("Div", &[&[Input(1)], &[Input(1), Output(0)]]),
    ("Dropout", NOTHING),
    ("Elu", &[&[Input(0), Output(0)]]),
    ("Erf", INPUT),
    ("Exp", OUTPUT),
    ("Expand", NOTHING),
    ("Flatten", NOTHING),
    ("GRU", RECURRENT),
    ("Gather", INDICES),
    ("GatherElements", INDICES),
    ("GatherND", INDICES),
    ("Gelu", INPUT),
    ("Gemm", PRODUCT),
    ("GlobalAveragePool", NOTHING),
    ("GlobalMaxPool", INPUT),
    ("HardSigmoid", OUTPUT),
    ("HardSwish", INPUT),
    ("Identity", NOTHING),
    ("InstanceNormalization", &[&[Input(0)], &[Input(0)], &[]]),
    ("LSTM", RECURRENT),
    ("LayerNormalization", &[&[Input(0), Rows(1), Rows(2)], &[Input(0), Rows(1), Rows(2)], &[]]),
    ("LeakyRelu", INPUT),
    ("Log", INPUT),
    ("LogSoftmax", OUTPUT),
    ("LpPool", INPUT),
    ("MatMul", PRODUCT),
    ("Max", WINNER),
    ("MaxPool", &[&[Positions]]),
    ("Mean", NOTHING),
    ("Min", WINNER),
    ("Mish", INPUT),
    ("Mul", PRODUCT),
    ("Neg", NOTHING),
    ("PRelu", &[&[Input(0), Input(1)], &[Input(0)]]),
    ("Pad", NOTHING),
    ("Pow", &[&[Input(0), Input(1)], &[Input(0), Output(0)]]),
    ("RNN", RECURRENT),
    ("Reciprocal", OUTPUT),
    ("ReduceL1", INPUT),
    ("ReduceL2", &[&[Input(0), Output(0)]]),
    ("ReduceMax", &[&[Input(0), Output(0)]]),
    ("ReduceMean", NOTHING),
    ("ReduceMin", &[&[Input(0), Output(0)]]),
    ("ReduceSum", NOTHING),
    ("ReduceSumSquare", INPUT),
    ("Relu", OUTPUT),
    ("Reshape", NOTHING),
    ("Resize", NOTHING),
    ("ScatterElements", INDICES),
    ("ScatterND", INDICES),
    ("Selu", &[&[Input(0), Output(0)]]),
    ("Sigmoid", OUTPUT),
    ("Sin", INPUT),
    ("Slice", NOTHING),
    ("Softmax", OUTPUT),
    ("Softplus", INPUT),
    ("Softsign", INPUT),
    ("SpaceToDepth", NOTHING),
    ("Split", NOTHING),
    ("Sqrt", OUTPUT),
    ("Squeeze", NOTHING),
    ("Sub", NOTHING),
    ("Sum", NOTHING),
    ("Swish", INPUT),
    ("Tanh", OUTPUT),
    ("ThresholdedRelu", INPUT),
    ("Tile", NOTHING),
    ("Transpose", NOTHING),
    ("Trilu", NOTHING),
    ("Unsqueeze", NOTHING),
    ("Where", &[&[Input(0)]]),
];

/// Returns what the gradient of a node with respect to input `wanted` reads.
pub(super) fn reads(graph: &Graph, node: &Node, wanted: usize) -> &'static [Keep] {
    const ALL: &[Keep] = &[Inputs];
    if !node.op.domain.is_empty() {
        return ALL;
    }
    if is_random_dropout(graph, node) {
        return &[Mask];
    }
    let found = TABLE.binary_search_by(|(name, _)| (*name).cmp(node.op.name.as_str()));
    let Some((_, reads)) = found.ok().and_then(|index| TABLE.get(index)) else { return ALL };
    reads.get(wanted).or(reads.last()).copied().unwrap_or(ALL)
}

/// Returns true for a Dropout that drops: it is told to train, and its ratio is not 0.
pub(super) fn is_random_dropout(graph: &Graph, node: &Node) -> bool {
    if !node.op.is("Dropout") {
        return false;
    }
    let number = |index: usize| {
        let tensor = node.input(index).and_then(|value| graph.constant(value))?;
        tensor.to_f64s()?.first().copied()
    };
    number(2).is_some_and(|flag| flag != 0.0) && number(1) != Some(0.0)
}

/// Returns the input of a node whose output is the same tensor under another shape.
pub(super) fn viewed(graph: &Graph, node: &Node) -> Option<ValueId> {
    let view = matches!(node.op.name.as_str(), "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Identity");
    let passes = node.op.is("Dropout") && !is_random_dropout(graph, node);
    if node.op.domain.is_empty() && (view || passes) { node.input(0) } else { None }
}

/// Returns the bytes of a value; `None` where its shape is not fixed.
pub(super) fn bytes(graph: &Graph, value: ValueId) -> Option<u64> {
    elements(graph, value)?.checked_mul(graph.fact(value).dtype?.size() as u64)
}

/// Returns the bytes of a value of which the dimensions from `axis` on have size 1.
pub(super) fn row_bytes(graph: &Graph, value: ValueId, axis: usize) -> Option<u64> {
    let fact = graph.fact(value);
    let outer = fact.sizes()?.into_iter().take(axis);
    let rows = outer.map(u64::try_from).try_fold(1u64, |product, size| product.checked_mul(size.ok()?))?;
    rows.checked_mul(fact.dtype?.size() as u64)
}

/// Returns the bytes of a statistic of each row of a layer normalization.
pub(super) fn statistic_bytes(graph: &Graph, node: &Node) -> Option<u64> {
    let x = node.input(0)?;
    let (axis, rank) = (node.attributes.int("axis", -1).ok()?, i64::try_from(graph.fact(x).rank()?).ok()?);
    row_bytes(graph, x, usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()?)
}

/// Returns the elements of a value; `None` where its shape is not fixed.
pub(super) fn elements(graph: &Graph, value: ValueId) -> Option<u64> {
    let sizes = graph.fact(value).sizes()?;
    sizes.iter().try_fold(1u64, |product, size| product.checked_mul(u64::try_from(*size).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(TABLE.is_sorted_by(|a, b| a.0 < b.0));
        assert!(TABLE.iter().all(|(name, reads)| !reads.is_empty() && !name.is_empty()));
    }
}
