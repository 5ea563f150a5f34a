//! Where, ArgMax and ArgMin, and OneHot of the types that their CUDA kernels leave out.

use super::Call;
use crate::graph::{Attributes, DType, Tensor, ValueId};

/// Of truth values: `(c and a) or (not c and b)`.
pub(super) fn select(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    let (condition, a, b) = (call.input(0)?, call.input(1)?, call.input(2)?);
    if call.dtype(1)? != DType::Bool {
        return None;
    }
    let yes = call.b.op("And", &[condition, a], Attributes::none());
    let not = call.b.unary("Not", condition);
    let no = call.b.op("And", &[not, b], Attributes::none());
    Some(vec![call.b.op("Or", &[yes, no], Attributes::none())])
}

/// Integers in a floating-point dtype that holds them; of 64 bits where they are equal to the largest. The last of equals
/// is the first from behind.
pub(super) fn argument(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    let (x, axis) = (call.input(0)?, call.axis(0)?);
    let largest = call.node.op.is("ArgMax");
    if call.attribute("select_last_index", 0)? != 0 {
        let size = call.size_along(0, axis)?;
        let turned = call.slice(x, axis, -1, i64::MIN, -1);
        let attributes = call.node.attributes.clone().with("select_last_index", 0);
        let at = call.b.op(&call.node.op.name, &[turned], attributes);
        let last = call.b.shift(size, -1.0);
        return Some(vec![call.b.sub(last, at)]);
    }
    let marked = match call.dtype(0)? {
        DType::I8 | DType::U8 | DType::I16 | DType::U16 => return Some(vec![argument_in(call, x, DType::F32)]),
        DType::I32 | DType::U32 => return Some(vec![argument_in(call, x, DType::F64)]),
        DType::I64 => {
            let best = call.b.reduce(if largest { "ReduceMax" } else { "ReduceMin" }, x, &[axis], true);
            call.b.op("Equal", &[x, best], Attributes::none())
        }
        _ => return None,
    };
    let marked = call.b.cast(marked, DType::F32);
    Some(vec![call.b.op("ArgMax", &[marked], call.node.attributes.clone())])
}

fn argument_in(call: &mut Call<'_>, x: ValueId, dtype: DType) -> ValueId {
    let wide = call.b.cast(x, dtype);
    call.again(&[wide])
}

/// One and zero in int64, then the choice of the two values.
pub(super) fn one_hot(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    let (indices, depth, values) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let in_int64 = |call: &mut Call<'_>, index: usize, value: ValueId| match call.dtype(index) {
        Some(DType::I64) => value,
        _ => call.b.cast(value, DType::I64),
    };
    let (indices, depth) = (in_int64(call, 0, indices), in_int64(call, 1, depth));
    let marks = call.b.ints("marks", &[0, 1]);
    let marked = call.again(&[indices, depth, marks]);
    let marked = call.b.cast(marked, DType::Bool);
    let [off, on] = [0_i64, 1].map(|at| {
        let at = call.b.constant("at", Tensor::scalar(at));
        call.b.op("Gather", &[values, at], Attributes::none())
    });
    Some(vec![call.b.select(marked, on, off)])
}
