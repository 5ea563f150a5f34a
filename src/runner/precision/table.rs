//! Which operators compute in bfloat16 or float16, and which of their inputs and outputs are then of that dtype.
//!
//! The *low* dtype is the one of the two that the run asks for. A row is an operator: its class, the inputs and outputs
//! that have the low dtype where a node of it computes in it, and whether the CUDA execution provider has it in bfloat16
//! at opset 21 or lower (all rows that are not [`Class::Float`] exist in float16). Inputs and outputs that a row does not name stay float32;
//! only what is float32 in the graph as it comes is concerned, so indices, conditions and shapes stay as they are. An
//! operator without a row is [`Class::Float`].
//!
//! Operators of our own, which all have kernels of both dtypes. T is the low dtype where the node computes in it, else
//! float32; all inputs and outputs that are T are of one dtype. A kernel reads T, computes and accumulates in float32,
//! and rounds once where it writes T.
//!
//! | operator | class | inputs | outputs |
//! |---|---|---|---|
//! | AdamStep | float | all float32 | all float32 |
//! | AveragePool | follows | x T | y T |
//! | AveragePoolGrad | follows | dy T | dx T |
//! | BatchNormalization | follows | x T, scale, bias float32, residual T | y T, mean, var, inv_std float32 |
//! | BatchNormalizationGrad | follows | dy, dy2, y, x T, scale, bias, mean, inv_std float32 | dx T, dscale, dbias float32, dresidual T |
//! | ClipGrad | follows | dy, y T | dx T |
//! | Conv | low | x, w T, b, scale, bias, mean, spread float32 | y T |
//! | ConvInputGrad | low | dy, w T, dw (only waited for) float32 | dx T |
//! | ConvWeightGrad | low | x, dy T, scale, bias, mean, spread float32 | dw float32 |
//! | Dropout | follows | x T, r, c int64 | y T |
//! | EmbeddingGrad | follows | indices int64, dy T | dx float32 |
//! | FixedNormalization | follows | x T, scale, bias, mean, var float32, residual T | y T |
//! | FixedNormalizationGrad | follows | dy, dy2, y, x T, scale, bias, mean, var float32 | dx T, dscale, dbias float32, dresidual T |
//! | Gelu | follows | x T | y T |
//! | GeluGrad | follows | dy, x T | dx T |
//! | GlobalAveragePool | follows | x T | y T |
//! | GlobalAveragePoolGrad | follows | dy T | dx T |
//! | LayerNormalization | follows | x T, scale, bias float32 | y T, mean, inv_std float32 |
//! | LayerNormalizationGrad | follows | dy, x T, scale, mean, inv_std float32 | dx T, dscale, dbias float32 |
//! | MaxPool | follows | x T | y T |
//! | MaxPoolGrad | follows | dy, x, y T | dx T |
//! | ReluGrad | follows | dy, y T | dx T |
//! | RunningStatistics | float | mean, var, running_mean, running_var float32, x T of its own (only its shape is read) | all float32 |
//! | SgdStep | float | all float32 | all float32 |
//! | Softmax | follows | x T | y T |
//! | SoftmaxCrossEntropy | follows | x T, target int64, weights float32 | loss, log_sum, total float32 |
//! | SoftmaxCrossEntropyGrad | follows | dloss float32, x T, target int64, log_sum, total, weights float32 | dx T |
//! | SoftmaxGrad | follows | dy, y T | dx T |

use crate::graph::{INTERNAL_DOMAIN, OpId};

/// In which dtype an operator computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// In the low dtype: what it reads is cast to it. These are the products that profit most.
    Low,
    /// In the low dtype where something that it reads was computed in it, else in float32; a gradient where its forward node
    /// computed in it.
    Follows,
    /// In float32: sums over many elements, what leaves the range or resolution of the low dtypes, updates of state, and
    /// everything that is not known.
    Float,
}

/// Inputs or outputs of an operator.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ports {
    /// All.
    All,
    /// Those at these positions.
    At(&'static [usize]),
}

impl Ports {
    /// Returns true for the input or output at a position.
    pub(super) fn has(self, index: usize) -> bool {
        match self {
            Ports::All => true,
            Ports::At(ports) => ports.contains(&index),
        }
    }
}

/// What is known of an operator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    domain: &'static str,
    op: &'static str,
    pub(super) class: Class,
    /// Inputs that are of the low dtype where a node computes in it.
    pub(super) inputs: Ports,
    /// Outputs that are of the low dtype where a node computes in it.
    pub(super) outputs: Ports,
    /// The input that decides for a node that follows, where that is one alone: of a gradient what its forward node read or
    /// wrote.
    pub(super) led_by: Option<usize>,
    /// Inputs that may be of any dtype in any case: only their shape is read, or they are converted.
    pub(super) either: &'static [usize],
    /// Whether the CUDA execution provider computes it in bfloat16.
    pub(super) bf16: bool,
}

const MICROSOFT: &str = "com.microsoft";

const fn row(domain: &'static str, op: &'static str, class: Class) -> Row {
    Row { domain, op, class, inputs: Ports::All, outputs: Ports::All, led_by: None, either: &[], bf16: true }
}

const fn low(op: &'static str) -> Row {
    row("", op, Class::Low)
}

const fn follows(op: &'static str) -> Row {
    row("", op, Class::Follows)
}

const fn own(op: &'static str, class: Class, inputs: &'static [usize], outputs: &'static [usize]) -> Row {
    Row { inputs: Ports::At(inputs), outputs: Ports::At(outputs), ..row(INTERNAL_DOMAIN, op, class) }
}

/// A gradient: it has the dtype of one of its inputs, whatever that of `dy` is.
const fn gradient(op: &'static str, led_by: usize, inputs: &'static [usize], outputs: &'static [usize]) -> Row {
    Row { led_by: Some(led_by), ..own(op, Class::Follows, inputs, outputs) }
}

/// An operator that reads the shape of these inputs, or takes them in any dtype.
const fn either(domain: &'static str, op: &'static str, inputs: &'static [usize]) -> Row {
    Row { either: inputs, ..row(domain, op, Class::Float) }
}

const fn half(row: Row) -> Row {
    Row { bf16: false, ..row }
}

use Class::{Float, Follows, Low};

/// Every operator that need not be float32, and those that take an input in any dtype.
#[rustfmt::skip]
pub(super) static ROWS: &[Row] = &[
    // Products.
    low("Attention"),
    half(low("Conv")),
    half(low("ConvTranspose")),
    half(low("Einsum")),
    low("Gemm"),
    low("MatMul"),
    row(MICROSOFT, "Attention", Low),
    row(MICROSOFT, "FusedMatMul", Low),
    row(MICROSOFT, "MultiHeadAttention", Low),
    own("Conv", Low, &[0, 1], &[0]),
    own("ConvInputGrad", Low, &[0, 1], &[0]),
    own("ConvWeightGrad", Low, &[0, 1], &[]),
    // Element by element.
    follows("Abs"),
    follows("Add"),
    half(follows("Clip")),
    follows("Div"),
    Row { inputs: Ports::At(&[0]), outputs: Ports::At(&[0]), ..follows("Dropout") },
    half(follows("Elu")),
    half(follows("Equal")),
    follows("Erf"),
    follows("Gelu"),
    half(follows("Greater")),
    half(follows("GreaterOrEqual")),
    half(follows("HardSigmoid")),
    half(follows("HardSwish")),
    half(follows("LeakyRelu")),
    half(follows("Less")),
    half(follows("LessOrEqual")),
    follows("Max"),
    follows("Min"),
    follows("Mul"),
    follows("Neg"),
    half(follows("PRelu")),
    follows("Relu"),
    half(follows("Selu")),
    follows("Sigmoid"),
    follows("Sub"),
    follows("Sum"),
    follows("Tanh"),
    follows("Where"),
    row(MICROSOFT, "BiasGelu", Follows),
    row(MICROSOFT, "FastGelu", Follows),
    row(MICROSOFT, "Gelu", Follows),
    row(MICROSOFT, "QuickGelu", Follows),
    gradient("ClipGrad", 1, &[0, 1], &[0]),
    own("Dropout", Follows, &[0], &[0]),
    own("Gelu", Follows, &[0], &[0]),
    gradient("GeluGrad", 1, &[0, 1], &[0]),
    gradient("ReluGrad", 1, &[0, 1], &[0]),
    // Moves.
    follows("Concat"),
    half(follows("DepthToSpace")),
    follows("Expand"),
    follows("Flatten"),
    follows("Gather"),
    follows("GatherElements"),
    follows("GatherND"),
    follows("Identity"),
    half(follows("Pad")),
    follows("Reshape"),
    follows("Slice"),
    half(follows("SpaceToDepth")),
    follows("Split"),
    follows("Squeeze"),
    follows("Tile"),
    follows("Transpose"),
    follows("Trilu"),
    follows("Unsqueeze"),
    // Windows and rows.
    half(follows("AveragePool")),
    half(follows("GlobalAveragePool")),
    half(follows("GlobalMaxPool")),
    Row { outputs: Ports::At(&[0]), ..follows("LayerNormalization") },
    half(follows("MaxPool")),
    half(Row { inputs: Ports::At(&[0]), ..follows("Resize") }),
    follows("Softmax"),
    own("AveragePool", Follows, &[0], &[0]),
    own("AveragePoolGrad", Follows, &[0], &[0]),
    own("BatchNormalization", Follows, &[0, 3], &[0]),
    gradient("BatchNormalizationGrad", 3, &[0, 1, 2, 3], &[0, 3]),
    own("EmbeddingGrad", Follows, &[1], &[]),
    own("FixedNormalization", Follows, &[0, 5], &[0]),
    gradient("FixedNormalizationGrad", 3, &[0, 1, 2, 3], &[0, 3]),
    own("GlobalAveragePool", Follows, &[0], &[0]),
    own("GlobalAveragePoolGrad", Follows, &[0], &[0]),
    own("LayerNormalization", Follows, &[0], &[0]),
    gradient("LayerNormalizationGrad", 1, &[0, 1], &[0]),
    own("MaxPool", Follows, &[0], &[0]),
    gradient("MaxPoolGrad", 1, &[0, 1, 2], &[0]),
    own("Softmax", Follows, &[0], &[0]),
    own("SoftmaxCrossEntropy", Follows, &[0], &[]),
    own("SoftmaxCrossEntropyGrad", Follows, &[1], &[0]),
    gradient("SoftmaxGrad", 1, &[0, 1], &[0]),
    // Float32 beside inputs of any dtype.
    either("", "Cast", &[0]),
    either("", "Shape", &[0]),
    either("", "Size", &[0]),
    own("AdamStep", Float, &[], &[]),
    either(INTERNAL_DOMAIN, "RunningStatistics", &[4]),
    own("SgdStep", Float, &[], &[]),
];

/// Operators that move elements and compute nothing, and write no more than they read. One between float32 and products
/// moves what was cast already.
const MOVES: &[&str] =
    &["Concat", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"];

/// Operators of which one between the low dtype and float32 computes in float32: it may be the start of a sum or a norm,
/// and then what it gives may leave the range of float16, as a square does.
const ARITHMETIC: &[&str] = &["Abs", "Add", "Div", "Mul", "Neg", "Sub", "Sum"];

/// Sums over elements. What is computed with one of them stays float32, such as what is centered or normalized with it.
const REDUCTIONS: &[&str] = &[
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
];

/// The row of a sum that is the gradient of what was broadcast, as of a bias: it has the dtype in which that was added.
/// The CUDA execution provider accumulates it in float32.
pub(super) static BROADCAST_SUM: Row = follows("ReduceSum");

/// Returns the row of an operator.
pub(super) fn find(op: &OpId) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.domain == op.domain && row.op == op.name)
}

/// Returns the names of the operators that have a row.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| row.op)
}

/// Returns true for an operator that moves elements.
pub(super) fn moves(op: &OpId) -> bool {
    op.domain.is_empty() && MOVES.contains(&op.name.as_str())
}

/// Returns true for plain arithmetic, element by element.
pub(super) fn is_arithmetic(op: &OpId) -> bool {
    op.domain.is_empty() && ARITHMETIC.contains(&op.name.as_str())
}

/// Returns true for a sum over elements.
pub(super) fn reduces(op: &OpId) -> bool {
    op.domain.is_empty() && REDUCTIONS.contains(&op.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_operator_of_ours_has_one_row() {
        let mut seen = HashSet::new();
        assert!(ROWS.iter().all(|row| seen.insert((row.domain, row.op))));
        let rows: HashSet<&str> = ROWS.iter().filter(|row| row.domain == INTERNAL_DOMAIN).map(|row| row.op).collect();
        let own: HashSet<&str> = crate::runner::onnxruntime::operator_names().collect();
        assert_eq!(rows, own);
    }

    #[test]
    fn what_moves_and_what_computes_follows() {
        for op in MOVES.iter().chain(ARITHMETIC) {
            assert_eq!(find(&OpId::standard(op)).map(|row| row.class), Some(Class::Follows), "{op}");
        }
        assert!(REDUCTIONS.iter().all(|op| find(&OpId::standard(op)).is_none()));
    }
}
