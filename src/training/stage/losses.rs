//! `SoftmaxCrossEntropyLoss` and `NegativeLogLikelihoodLoss` in operators that have gradients.
//!
//! With `p` the log-probabilities `[N, C, d..]` (for the first operator `LogSoftmax` of the
//! scores over axis 1), `t` the labels `[N, d..]` and `w` the class weights, 1 where absent and 0
//! at `ignore_index`: `l = -w[t] p[t]`; `sum` is the sum of `l`, `mean` that over the sum of
//! `w[t]`. A label that is neither a class nor `ignore_index` makes the loss NaN.
//! <https://onnx.ai/onnx/operators/onnx__SoftmaxCrossEntropyLoss.html>

use super::StageError;
use crate::graph::{Attributes, Builder, DType, Graph, Node, Replaced, Tensor, ValueId, rebuild};
use crate::losses::{LossKind, LossSpec};

const SOFTMAX: &str = "SoftmaxCrossEntropyLoss";
const NEGATIVE: &str = "NegativeLogLikelihoodLoss";

/// Returns the graph without the two operators.
///
/// # Errors
/// A node has a form that is not known.
pub fn expand(graph: &Graph) -> Result<Graph, StageError> {
    let concerned = |node: &Node| node.op.is(SOFTMAX) || node.op.is(NEGATIVE);
    if !graph.nodes().iter().any(concerned) {
        return Ok(graph.clone());
    }
    let mut failed = None;
    let expanded = rebuild(graph, |b, node, inputs| {
        if !concerned(node) || failed.is_some() {
            return None;
        }
        match loss(b, graph, node, inputs) {
            Ok(outputs) => Some(outputs),
            Err(reason) => {
                failed = Some(StageError::Node { node: node.name.clone(), op: node.op.name.clone(), reason });
                None
            }
        }
    });
    failed.map_or(Ok(expanded), Err)
}

/// Returns what metrics can be taken of a loss: those of classes where it is cross-entropy of
/// `prediction` and `target`, otherwise the loss alone.
pub(super) fn metrics(graph: &Graph, loss: ValueId, prediction: ValueId, target: ValueId) -> LossSpec {
    let node = graph.producer(loss).map(|id| graph.node(id));
    let classes = node.filter(|node| {
        node.op.is(SOFTMAX)
            && node.input(0) == Some(prediction)
            && node.input(1) == Some(target)
            && !node.outputs.is_empty()
    });
    match classes {
        Some(node) => LossSpec {
            class_axis: Some(1),
            ignore_index: node.attributes.int("ignore_index", crate::losses::IGNORE_INDEX).ok(),
            ..LossSpec::new(LossKind::CrossEntropy)
        },
        None => LossSpec::new(LossKind::Output),
    }
}

fn loss(b: &mut Builder, graph: &Graph, node: &Node, inputs: &[Option<ValueId>]) -> Result<Replaced, String> {
    let at = |index: usize| inputs.get(index).copied().flatten();
    let old = |index: usize| node.input(index).map(|id| graph.fact(id).clone()).unwrap_or_default();
    let (Some(scores), Some(labels)) = (at(0), at(1)) else { return Err("needs two inputs".into()) };
    let fact = old(0);
    let rank =
        fact.rank().filter(|rank| *rank >= 2).ok_or_else(|| format!("needs scores of rank 2 or more, found {fact}"))?;
    let count = fact.dim(1).and_then(crate::graph::Dim::known);
    let count = count.ok_or_else(|| format!("needs a fixed number of classes on axis 1, found {fact}"))?;
    if node.outputs.len() > if node.op.is(SOFTMAX) { 2 } else { 1 } {
        return Err(format!("has {} outputs", node.outputs.len()));
    }
    let reduction = node.attributes.text("reduction", "mean").map_err(|error| error.to_string())?;
    let ignored = match node.attributes.get("ignore_index") {
        None => None,
        Some(_) => Some(node.attributes.int("ignore_index", 0).map_err(|error| error.to_string())?),
    };
    b.enter(node.origin.clone(), &node.name);
    b.refine(scores, &fact);
    let dtype = b.dtype(scores);
    let logs =
        if node.op.is(SOFTMAX) { b.op("LogSoftmax", &[scores], Attributes::none().with("axis", 1)) } else { scores };
    let labels = if old(1).dtype == Some(DType::I64) { labels } else { b.cast(labels, DType::I64) };
    let labels = b.unsqueeze(labels, &[1]);
    let shape = [vec![count], vec![1; rank - 2]].concat();
    let classes = (0..count).map(|class| class as i64).collect();
    let classes = b.constant("classes", Tensor::from_vec(&shape, classes));
    let hit = b.op("Equal", &[labels, classes], Attributes::none());
    let zero = b.scalar(dtype, 0.0);
    let own = match at(2) {
        None => b.scalar(dtype, 1.0),
        Some(weights) => {
            let sizes: Vec<i64> = shape.iter().map(|size| *size as i64).collect();
            let weights = b.reshape(weights, &sizes);
            let selected = b.select(hit, weights, zero);
            b.reduce("ReduceSum", selected, &[1], true)
        }
    };
    let (below, above) = (b.compare("Less", labels, 0.0), b.compare("Greater", labels, count as f64 - 1.0));
    let outside = b.op("Or", &[below, above], Attributes::none());
    let nan = b.scalar(dtype, f64::NAN);
    let mut weight = b.select(outside, nan, own);
    if let Some(ignored) = ignored {
        let ignored = b.constant("ignore_index", Tensor::scalar(ignored));
        let ignored = b.op("Equal", &[labels, ignored], Attributes::none());
        weight = b.select(ignored, zero, weight);
    }
    let picked = b.select(hit, logs, zero);
    let picked = b.reduce("ReduceSum", picked, &[1], true);
    let each = b.mul(picked, weight);
    let each = b.unary("Neg", each);
    let all: Vec<i64> = (0..rank as i64).collect();
    let result = match reduction.as_str() {
        "none" => b.squeeze(each, &[1]),
        "sum" => b.reduce("ReduceSum", each, &all, false),
        "mean" => {
            let total = b.reduce("ReduceSum", each, &all, false);
            let weights = b.reduce("ReduceSum", weight, &all, false);
            b.div(total, weights)
        }
        other => return Err(format!("reduction is \"{other}\", expected none, sum or mean")),
    };
    let mut outputs = Vec::new();
    for (old, new) in node.outputs.iter().zip([result, logs]) {
        outputs.push(match old {
            None => None,
            Some(old) => {
                b.refine(new, graph.fact(*old));
                b.rename(new, graph.value_name(*old));
                Some(new)
            }
        });
    }
    Ok(outputs)
}
