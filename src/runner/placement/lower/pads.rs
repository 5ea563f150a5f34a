//! Pad of the types that its CUDA kernel leaves out, by fixed amounts: constants are put beside the data, other modes take
//! elements by their position.

use super::Call;
use crate::graph::{Attributes, DType, Tensor, ValueId};

pub(super) fn pad(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    let (mut x, rank) = (call.input(0)?, call.rank(0)?);
    let dtype = call.dtype(0)?;
    if dtype.is_float() || dtype == DType::String {
        return None;
    }
    let axes = match call.input(3) {
        Some(_) => call.ints(3)?,
        None => (0..rank).collect(),
    };
    let amounts = call.ints(1)?;
    let mode = call.node.attributes.text("mode", "constant").ok()?;
    if amounts.len() != 2 * axes.len() {
        return None;
    }
    let sizes = call.sizes(0);
    if mode != "constant" && (sizes.is_none() || amounts.iter().any(|amount| *amount < 0)) {
        return None;
    }
    let value = call.input(2).filter(|_| mode == "constant");
    for (at, axis) in axes.iter().enumerate() {
        let axis = if *axis < 0 { axis + rank } else { *axis };
        let (front, back) = (*amounts.get(at)?, *amounts.get(at + axes.len())?);
        if front == 0 && back == 0 {
            continue;
        }
        x = if mode == "constant" {
            beside(call, x, value, axis, (front, back))?
        } else {
            let size = *sizes.as_ref()?.get(usize::try_from(axis).ok()?)?;
            let positions: Vec<i64> =
                (-front..size + back).map(|at| position(&mode, at, size)).collect::<Option<_>>()?;
            let positions = call.b.ints("positions", &positions);
            call.b.op("Gather", &[x, positions], Attributes::none().with("axis", axis))
        };
    }
    Some(vec![call.b.unary("Identity", x)])
}

/// Returns which element stands at a position that may be outside.
fn position(mode: &str, at: i64, size: i64) -> Option<i64> {
    match mode {
        "edge" => Some(at.clamp(0, size - 1)),
        "wrap" => Some(at.rem_euclid(size)),
        "reflect" if size == 1 => Some(0),
        "reflect" => {
            let turn = at.rem_euclid(2 * (size - 1));
            Some(turn.min(2 * (size - 1) - turn))
        }
        _ => None,
    }
}

fn beside(
    call: &mut Call<'_>,
    x: ValueId,
    value: Option<ValueId>,
    axis: i64,
    (front, back): (i64, i64),
) -> Option<ValueId> {
    let (cut, to) = (if front < 0 { -front } else { 0 }, if back < 0 { back } else { i64::MAX });
    let mut x = x;
    if cut != 0 || to != i64::MAX {
        x = call.slice(x, axis, cut, to, 1);
    }
    let mut parts = Vec::new();
    if front > 0 {
        parts.push(filled(call, x, value, axis, front)?);
    }
    parts.push(x);
    if back > 0 {
        parts.push(filled(call, x, value, axis, back)?);
    }
    if parts.len() == 1 { Some(x) } else { Some(call.b.op("Concat", &parts, Attributes::none().with("axis", axis))) }
}

/// Returns a value repeated in the shape of `x`, but `count` times along an axis.
fn filled(call: &mut Call<'_>, x: ValueId, value: Option<ValueId>, axis: i64, count: i64) -> Option<ValueId> {
    let dtype = call.b.dtype(x);
    let value = match value {
        Some(value) => value,
        None => call.b.constant("zero", Tensor::zeros(dtype, &[])),
    };
    let count = call.b.ints("count", &[count]);
    let part = |call: &mut Call<'_>, from: i64, to: Option<i64>| {
        let attributes = Attributes::none().with("start", from);
        let attributes = if let Some(to) = to { attributes.with("end", to) } else { attributes };
        call.b.op("Shape", &[x], attributes)
    };
    let (before, after) = (part(call, 0, Some(axis)), part(call, axis + 1, None));
    let shape = call.b.op("Concat", &[before, count, after], Attributes::none().with("axis", 0));
    Some(call.b.op("Expand", &[value, shape], Attributes::none()))
}
