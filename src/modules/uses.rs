//! Who reads a value, seen through nodes that only move its elements.

use crate::graph::{Graph, Node, NodeId, ValueId};

/// One input slot that reads a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Use {
    /// The reading node.
    pub node: NodeId,
    /// Position of the input.
    pub input: usize,
}

/// The readers of every value of a graph.
#[derive(Debug)]
pub struct Uses(Vec<Vec<Use>>);

impl Uses {
    /// Returns the readers of every value.
    pub fn new(graph: &Graph) -> Uses {
        let mut uses = vec![Vec::new(); graph.values().count()];
        for (id, node) in graph.node_ids() {
            for (input, value) in node.inputs.iter().enumerate() {
                if let Some(value) = value {
                    uses[value.0].push(Use { node: id, input });
                }
            }
        }
        Uses(uses)
    }

    /// Returns the slots that read a value as it is.
    pub fn direct(&self, value: ValueId) -> &[Use] {
        &self.0[value.0]
    }

    /// Returns the slots that read a value or a view of it (`Identity`, `Transpose`, `Reshape`,
    /// ..), in evaluation order; the views themselves are not among them.
    pub fn through_views(&self, graph: &Graph, value: ValueId) -> Vec<Use> {
        self.views(graph, value).1
    }

    /// Returns a value with all views of it, and the slots that read one of these.
    pub fn views(&self, graph: &Graph, value: ValueId) -> (Vec<ValueId>, Vec<Use>) {
        let (mut found, mut views, mut next) = (Vec::new(), vec![value], 0);
        while let Some(value) = views.get(next).copied() {
            next += 1;
            for reader in self.direct(value) {
                let node = graph.node(reader.node);
                match view_output(node, reader.input) {
                    Some(output) => views.push(output),
                    None => found.push(*reader),
                }
            }
        }
        found.sort_by_key(|reader| (reader.node, reader.input));
        (views, found)
    }
}

/// Returns the output of a node that only moves the elements of the given input.
fn view_output(node: &Node, input: usize) -> Option<ValueId> {
    let view = matches!(
        node.op.name.as_str(),
        "Identity" | "Cast" | "Transpose" | "Reshape" | "Unsqueeze" | "Squeeze" | "Flatten" | "Slice" | "Expand"
    );
    if view && input == 0 { node.output(0) } else { None }
}

/// Returns the value that a chain of views starts from.
pub fn source(graph: &Graph, value: ValueId) -> ValueId {
    let mut current = value;
    while let Some(producer) = graph.producer(current) {
        let node = graph.node(producer);
        match (view_output(node, 0), node.input(0)) {
            (Some(output), Some(input)) if output == current => current = input,
            _ => break,
        }
    }
    current
}

/// Returns true for operators on quantised numbers: their scales, zero points and packed weights never
/// train, and rounding passes no gradient.
pub fn is_quantized(node: &Node) -> bool {
    let op = node.op.name.as_str();
    op.contains("Quantize")
        || op.contains("Dequantize")
        || op.contains("QuantizeLinear")
        || op.starts_with("QLinear")
        || op.starts_with("QGemm")
        || op.starts_with("QAttention")
        || op.starts_with("QOrdered")
        || matches!(op, "MatMulNBits" | "MatMulBnb4" | "MatMulInteger" | "ConvInteger" | "MatMulIntegerToFloat")
        || matches!(op, "GatherBlockQuantized" | "MatMulInteger16" | "MatMulFpQ4")
}

/// Returns true when a gradient can pass from a node to the given input: the input is data, not a
/// shape, an index, a condition or a running statistic, and the operator is not flat everywhere.
/// The dtype of the value is the caller's to check.
pub fn carries_gradient(node: &Node, input: usize) -> bool {
    if is_quantized(node) {
        return node.op.name.starts_with("MatMulNBits") && input == 0;
    }
    match node.op.name.as_str() {
        "Shape" | "Size" | "ArgMax" | "ArgMin" | "NonZero" | "OneHot" | "ConstantOfShape" | "EyeLike" | "Range"
        | "NonMaxSuppression" | "RandomNormalLike" | "RandomUniformLike" | "Bernoulli" | "Multinomial" | "Sign"
        | "Floor" | "Ceil" | "Round" | "Equal" | "Less" | "Greater" | "LessOrEqual" | "GreaterOrEqual" | "And"
        | "Or" | "Xor" | "Not" | "IsNaN" | "IsInf" => false,
        "BatchNormalization" => input <= 2,
        "LSTM" | "GRU" | "RNN" => input != 4,
        "Where" => input != 0,
        "ScatterElements" | "ScatterND" | "Scatter" => input != 1,
        // Tables of cosines and sines.
        "RotaryEmbedding" => input == 0,
        "GroupQueryAttention" => !matches!(input, 7 | 8),
        "CastLike" | "Clip" | "Dropout" | "Pad" | "Resize" | "Upsample" | "Reshape" | "Expand" | "Slice" | "Tile"
        | "TopK" | "Unsqueeze" | "Squeeze" | "Split" | "CumSum" | "Gather" | "GatherElements" | "GatherND"
        | "Compress" | "Trilu" => input == 0,
        name if name.starts_with("Reduce") => input == 0,
        _ => true,
    }
}
