//! Reductions of ScatterElements and ScatterND in types that the CUDA kernels do not reduce in.
//!
//! bfloat16 goes by float32 and integers of up to 32 bits by float64, which holds them and their sums, but not their
//! products. A sum of int64 is taken in two halves of 32 bits. ScatterND becomes ScatterElements on rows where the shape of its data is fixed.

use super::Call;
use crate::graph::{Attributes, Builder, DType, Tensor, ValueId};

const HALF: i64 = 1 << 32;

pub(super) fn elements(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    let (data, indices, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let reduction = call.node.attributes.text("reduction", "none").ok()?;
    let (sums, exact) = (reduction == "add", reduction != "mul");
    let through = |call: &mut Call<'_>, dtype: DType, data: ValueId, updates: ValueId| {
        let (data, updates) = (call.b.cast(data, dtype), call.b.cast(updates, dtype));
        call.again(&[data, indices, updates])
    };
    let dtype = call.dtype(0)?;
    match dtype {
        DType::BF16 => {
            let y = through(call, DType::F32, data, updates);
            Some(vec![call.b.cast(y, dtype)])
        }
        DType::I8 | DType::U8 | DType::I16 | DType::U16 | DType::I32 | DType::U32 if exact => {
            let y = through(call, DType::F64, data, updates);
            let y = call.b.cast(y, DType::I64);
            let y = wrapped(call.b, y, dtype)?;
            Some(vec![call.b.cast(y, dtype)])
        }
        DType::I64 if sums => {
            let half = call.b.constant("half", Tensor::scalar(HALF));
            let halves = |call: &mut Call<'_>, x: ValueId| {
                let lower = call.b.op("Mod", &[x, half], Attributes::none());
                let upper = call.b.sub(x, lower);
                (lower, call.b.div(upper, half))
            };
            let (data, updates) = (halves(call, data), halves(call, updates));
            let lower = through(call, DType::F64, data.0, updates.0);
            let upper = through(call, DType::F64, data.1, updates.1);
            let (lower, upper) = (call.b.cast(lower, DType::I64), call.b.cast(upper, DType::I64));
            let upper = call.b.mul(upper, half);
            Some(vec![call.b.add(upper, lower)])
        }
        _ => None,
    }
}

/// Returns int64 numbers as a narrower dtype holds them. Without it ONNX Runtime would make one of the casts before and
/// after, which does not wrap around.
fn wrapped(b: &mut Builder, y: ValueId, dtype: DType) -> Option<ValueId> {
    let range = 1_i64.checked_shl(u32::try_from(dtype.bits()).ok()?)?;
    let least = if matches!(dtype, DType::U8 | DType::U16 | DType::U32) { 0 } else { -range / 2 };
    let (range, least) = (b.constant("range", Tensor::scalar(range)), b.constant("least", Tensor::scalar(least)));
    let moved = b.sub(y, least);
    let moved = b.op("Mod", &[moved, range], Attributes::none());
    Some(b.add(moved, least))
}

pub(super) fn slices(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    let (data, indices, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let reduction = call.node.attributes.text("reduction", "none").ok()?;
    if call.dtype(0)? == DType::BF16 {
        let (data, updates) = (call.b.cast(data, DType::F32), call.b.cast(updates, DType::F32));
        let y = call.again(&[data, indices, updates]);
        return Some(vec![call.b.cast(y, DType::BF16)]);
    }
    let sizes = call.sizes(0)?;
    let depth = usize::try_from(*call.sizes(1)?.last()?).ok()?;
    let (of_index, of_slice) = sizes.split_at_checked(depth)?;
    let row: i64 = of_slice.iter().product();
    let strides: Vec<i64> = (0..depth).map(|at| of_index[at + 1..].iter().product()).collect();
    let b = &mut *call.b;
    let (limits, strides) = (b.ints("limits", of_index), b.ints("strides", &strides));
    let positions = b.op("Mod", &[indices, limits], Attributes::none());
    let positions = b.mul(positions, strides);
    let positions = b.reduce("ReduceSum", positions, &[-1], false);
    let positions = b.reshape(positions, &[-1, 1]);
    let rows = b.reshape(data, &[of_index.iter().product(), row]);
    let updates = b.reshape(updates, &[-1, row]);
    let one = b.ints("row", &[1, row]);
    let positions = b.op("Expand", &[positions, one], Attributes::none());
    let attributes = Attributes::none().with("axis", 0).with("reduction", reduction.as_str());
    let y = b.op("ScatterElements", &[rows, positions, updates], attributes);
    Some(vec![b.reshape(y, &sizes)])
}
