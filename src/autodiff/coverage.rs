//! The table of operators: which have gradients, at which opsets, and why others have none.
//!
//! The table is made from the lists of rules and decompositions; what stands here by hand is the list of
//! operators of the standard and the reasons of those without a rule. `OPERATORS.md` beside this file is
//! the table as `freeze-plan operators` writes it.

use super::{DECOMPOSITIONS, InputRule, Inputs, RULES};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::ops::RangeInclusive;

/// Every operator of the default domain that opset 7 to 24 has, from the schemas of onnx 1.23.
const STANDARD: &str = "Abs Acos Acosh Add AffineGrid And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool \
    BatchNormalization Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow Cast CastLike Ceil \
    Celu CenterCropPad Clip Col2Im Compress Concat ConcatFromSequence Constant ConstantOfShape Conv ConvInteger \
    ConvTranspose Cos Cosh CumSum DFT DeformConv DepthToSpace DequantizeLinear Det Div Dropout DynamicQuantizeLinear \
    Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm \
    GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HammingWindow \
    HannWindow HardSigmoid HardSwish Hardmax Identity If ImageDecoder InstanceNormalization IsInf IsNaN LRN LSTM \
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul MatMulInteger Max \
    MaxPool MaxRoiPool MaxUnpool Mean MeanVarianceNormalization MelWeightMatrix Min Mish Mod Mul Multinomial Neg \
    NegativeLogLikelihoodLoss NonMaxSuppression NonZero Not OneHot Optional OptionalGetElement OptionalHasElement Or \
    PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear RMSNormalization RNN RandomNormal RandomNormalLike \
    RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax \
    ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare RegexFullMatch Relu Reshape Resize ReverseSequence \
    RoiAlign RotaryEmbedding Round STFT Scan Scatter ScatterElements ScatterND Selu SequenceAt SequenceConstruct \
    SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap Shape Shrink Sigmoid Sign Sin Sinh Size Slice \
    Softmax SoftmaxCrossEntropyLoss Softplus Softsign SpaceToDepth Split SplitToSequence Sqrt Squeeze StringConcat \
    StringNormalizer StringSplit Sub Sum Swish Tan Tanh TensorScatter TfIdfVectorizer ThresholdedRelu Tile TopK \
    Transpose Trilu Unique Unsqueeze Upsample Where Xor";

/// Operators whose outputs do not depend on a floating-point input in a way that has a gradient.
const WITHOUT_GRADIENT: &[(&str, &str)] = &[
    (
        "the outputs are truth values",
        "And Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Not Or Xor OptionalHasElement RegexFullMatch",
    ),
    (
        "the outputs are integers",
        "ArgMax ArgMin BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor NonMaxSuppression NonZero SequenceLength Shape Size",
    ),
    (
        "nothing of the data is read but its shape",
        "Constant ConstantOfShape EyeLike BlackmanWindow HammingWindow HannWindow MelWeightMatrix",
    ),
    (
        "drawn from the seed, the step and the name; the gradient ends here",
        "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike",
    ),
    ("texts, images and counts", "ImageDecoder StringConcat StringNormalizer StringSplit TfIdfVectorizer"),
];

/// Operators that are replaced before gradients are built.
const REPLACED: &[(&str, &str)] = &[
    ("becomes ScatterElements when the model is brought to opset 18", "Scatter"),
    ("becomes Resize when the model is brought to opset 18", "Upsample"),
    ("plumbing of known length is taken apart before gradients are built", "SequenceEmpty"),
];

/// One line of the table.
struct Row {
    opsets: String,
    status: String,
}

/// Returns the table in Markdown.
pub fn table() -> String {
    let standard = rows("");
    let microsoft = rows("com.microsoft");
    let mut text = String::from("# Operators and their gradients\n\nWritten by `freeze-plan operators`.\n");
    let with = standard.values().filter(|row| row.opsets != "-").count();
    let _ = writeln!(
        text,
        "\nOf {} operators of the default domain up to opset 24, {with} are differentiated. Opsets are those of \
         models; 7 to 24 can be read.\n",
        standard.len()
    );
    write_rows(&mut text, &standard);
    let _ = writeln!(text, "\nOperators of `com.microsoft`, which ONNX Runtime's optimizers write:\n");
    write_rows(&mut text, &microsoft);
    text
}

fn write_rows(text: &mut String, rows: &BTreeMap<String, Row>) {
    text.push_str("| operator | opsets | status |\n|---|---|---|\n");
    for (op, row) in rows {
        let _ = writeln!(text, "| {op} | {} | {} |", row.opsets, row.status);
    }
}

fn rows(domain: &str) -> BTreeMap<String, Row> {
    let mut names: BTreeSet<&str> = RULES.iter().filter(|rule| rule.domain == domain).map(|rule| rule.op).collect();
    names.extend(DECOMPOSITIONS.iter().filter(|entry| entry.domain == domain).map(|entry| entry.op));
    if domain.is_empty() {
        names.extend(STANDARD.split_whitespace());
    }
    names.into_iter().map(|op| (op.to_string(), row(domain, op))).collect()
}

fn row(domain: &str, op: &str) -> Row {
    let none = |status: String| Row { opsets: "-".into(), status };
    if let Some(entry) = DECOMPOSITIONS.iter().find(|entry| (entry.domain, entry.op) == (domain, op)) {
        return Row {
            opsets: range(domain, std::slice::from_ref(&entry.opsets)),
            status: "by way of other operators".into(),
        };
    }
    let rules: Vec<_> = RULES.iter().filter(|rule| (rule.domain, rule.op) == (domain, op)).collect();
    let Some(newest) = rules.last() else {
        return none(reason(op).map_or_else(|| "no rule".into(), |(kind, why)| format!("{kind}: {why}")));
    };
    let ranges: Vec<_> = rules.iter().map(|rule| rule.opsets.clone()).collect();
    match status(&newest.inputs) {
        Status::Differentiated(status) => Row { opsets: range(domain, &ranges), status },
        Status::OutOfReach(reason) => none(format!("out of reach: {reason}")),
        Status::Constant => {
            none(reason(op).map_or_else(|| "no gradient".into(), |(kind, why)| format!("{kind}: {why}")))
        }
    }
}

/// What a rule's inputs say.
enum Status {
    /// Which inputs have a gradient.
    Differentiated(String),
    /// None has, for this reason.
    OutOfReach(&'static str),
    /// No input has a gradient at all.
    Constant,
}

fn status(inputs: &Inputs) -> Status {
    let gives = |rule: &InputRule| matches!(rule, InputRule::Gradient(_) | InputRule::Each(_));
    let list: &[InputRule] = match inputs {
        Inputs::Subgraphs(_) => {
            return Status::Differentiated("gradient of inputs and of outer values that its graphs read".into());
        }
        Inputs::Variadic(rule) if gives(rule) => return Status::Differentiated("gradient of every input".into()),
        Inputs::Variadic(rule) => std::slice::from_ref(rule),
        Inputs::Fixed(list) => list,
    };
    let positions = list.iter().enumerate().filter(|(_, rule)| gives(rule));
    let positions: Vec<String> = positions.map(|(index, _)| index.to_string()).collect();
    let missing = list.iter().enumerate().filter_map(|(index, rule)| match rule {
        InputRule::Missing(reason) => Some((index, *reason)),
        _ => None,
    });
    let missing: Vec<(usize, &'static str)> = missing.collect();
    let text = match (positions.as_slice(), missing.first()) {
        ([], Some((_, reason))) => return Status::OutOfReach(reason),
        ([], None) => return Status::Constant,
        ([one], _) => format!("gradient of input {one}"),
        (many, _) => format!("gradients of inputs {}", many.join(", ")),
    };
    let missing = missing.iter().map(|(index, reason)| format!("; not of input {index}: {reason}"));
    Status::Differentiated(text + &missing.collect::<String>())
}

fn reason(op: &str) -> Option<(&'static str, &'static str)> {
    let find = |list: &'static [(&'static str, &'static str)]| {
        list.iter().find(|(_, names)| names.split_whitespace().any(|name| name == op)).map(|(why, _)| *why)
    };
    let kinds = [("no gradient", WITHOUT_GRADIENT), ("replaced", REPLACED)];
    kinds.into_iter().find_map(|(kind, list)| Some((kind, find(list)?)))
}

fn range(domain: &str, ranges: &[RangeInclusive<i64>]) -> String {
    if !domain.is_empty() {
        return "1".into();
    }
    let first = ranges.iter().map(|range| *range.start()).min().unwrap_or(7).max(7);
    let last = ranges.iter().map(|range| *range.end()).max().unwrap_or(24).min(24);
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_one_in_the_documentation() {
        let expected = include_str!("OPERATORS.md");
        assert!(table() == expected, "write it anew: freeze-plan operators --output src/autodiff/OPERATORS.md");
    }

    #[test]
    fn every_operator_of_the_standard_has_a_rule_or_one_reason() {
        let lists = [WITHOUT_GRADIENT, REPLACED];
        let mut failures = Vec::new();
        for op in STANDARD.split_whitespace() {
            let rules = RULES.iter().filter(|rule| rule.domain.is_empty() && rule.op == op);
            let differentiated = rules.filter(|rule| !matches!(status(&rule.inputs), Status::Constant)).count()
                + DECOMPOSITIONS.iter().filter(|entry| entry.domain.is_empty() && entry.op == op).count();
            let reasons = lists.iter().flat_map(|list| list.iter()).flat_map(|(_, names)| names.split_whitespace());
            let reasons = reasons.filter(|name| *name == op).count();
            if (differentiated > 0) == (reasons > 0) || reasons > 1 {
                failures.push(format!("{op}: {differentiated} rules, {reasons} reasons"));
            }
        }
        assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    }
}
