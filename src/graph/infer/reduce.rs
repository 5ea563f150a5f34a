//! Reductions, and the losses that are reductions.

use super::{Call, DType, Dim, Fact, axes_of};

pub(super) fn infer(call: &Call) -> Option<Vec<Fact>> {
    match call.name() {
        "ReduceSum" | "ReduceMean" | "ReduceMax" | "ReduceMin" | "ReduceProd" | "ReduceL1" | "ReduceL2"
        | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceSumSquare" => {
            let axes = if call.has(1) { call.fixed(1).map(Some) } else { call.ints("axes") };
            call.like(axes.map_or_else(|| unknown_axes(call), |axes| reduce(call, axes)))
        }
        "ArgMax" | "ArgMin" => {
            let axes = Some(vec![call.int("axis", 0)?]);
            call.give([Fact { dtype: Some(DType::I64), shape: reduce(call, axes) }])
        }
        "NegativeLogLikelihoodLoss" => call.like(loss(call)),
        "SoftmaxCrossEntropyLoss" => {
            call.give([Fact { dtype: call.dtype(0), shape: loss(call) }, call.fact(0).clone()])
        }
        _ => None,
    }
}

fn reduce(call: &Call, axes: Option<Vec<i64>>) -> Option<Vec<Dim>> {
    let shape = call.shape(0)?;
    let axes = axes_of(&axes.unwrap_or_default(), shape.len())?;
    if axes.is_empty() && call.int("noop_with_empty_axes", 0)? == 1 {
        return Some(shape.to_vec());
    }
    let keep = call.int("keepdims", 1)? == 1;
    let gone = |axis: usize| axes.is_empty() || axes.contains(&axis);
    let reduced = shape.iter().enumerate().filter_map(|(axis, dim)| match (gone(axis), keep) {
        (false, _) => Some(dim.clone()),
        (true, true) => Some(Dim::Known(1)),
        (true, false) => None,
    });
    Some(reduced.collect())
}

/// Returns what holds whichever axes are reduced.
fn unknown_axes(call: &Call) -> Option<Vec<Dim>> {
    let rank = call.rank(0)?;
    (call.int("keepdims", 1)? == 1).then(|| vec![Dim::Unknown; rank])
}

fn loss(call: &Call) -> Option<Vec<Dim>> {
    match call.text("reduction", "mean")?.as_str() {
        "none" => call.shape(1).map(<[Dim]>::to_vec),
        _ => Some(Vec::new()),
    }
}
