//! Computes in a wider dtype what has a kernel only there.
//!
//! Narrow floating-point numbers are computed with in float32. Integers and truth values are moved to a dtype that holds
//! every one of them, for operators whose result is then the same ([`EXACT`]): sums and products that leave the range of
//! the narrow dtype come back to it as they would have wrapped around.

use super::Call;
use crate::graph::{Attribute, DType, Fact, Node, ValueId};
use crate::runner::placement::{kernels, refused};

#[rustfmt::skip]
const EXACT: &[&str] = &[
    "Abs", "Add", "Clip", "CumSum", "Equal", "GatherND", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min",
    "Mul", "ReduceMax", "ReduceMin", "ReduceSum", "Sign", "Sub", "Tile", "TopK", "Where",
];

pub(super) fn widened(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    let attributes = &call.node.attributes;
    if !call.node.op.domain.is_empty() || attributes.iter().any(|(_, value)| matches!(value, Attribute::Graph(_))) {
        return None;
    }
    let exact = EXACT.contains(&call.node.op.name.as_str());
    let narrow = call.inputs.iter().flatten().filter_map(|id| call.b.fact(*id).dtype);
    let narrow: Vec<DType> = narrow.filter(|dtype| !wider(*dtype, exact).is_empty()).collect();
    let (narrow, wide) = narrow.into_iter().find_map(|narrow| {
        let found = wider(narrow, exact).iter().find(|wide| serves(call, narrow, **wide));
        found.map(|wide| (narrow, *wide))
    })?;
    let is_narrow = |call: &Call<'_>, id: ValueId| call.b.fact(id).dtype == Some(narrow);
    let inputs: Vec<Option<ValueId>> = call
        .inputs
        .iter()
        .map(|input| input.map(|id| if is_narrow(call, id) { call.b.cast(id, wide) } else { id }))
        .collect();
    let outputs = call.b.ops(&call.node.op, &inputs, call.node.attributes.clone(), call.node.outputs.len());
    let outputs = outputs.into_iter().map(|id| match call.b.fact(id).dtype {
        Some(dtype) if dtype == wide => call.b.cast(id, narrow),
        _ => id,
    });
    Some(outputs.collect())
}

/// Gives Resize its regions in float32, as its kernel reads them.
pub(super) fn resize(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    let regions = call.input(1)?;
    let mut inputs = call.inputs.to_vec();
    *inputs.get_mut(1)? = Some(call.b.cast(regions, DType::F32));
    Some(call.b.ops(&call.node.op, &inputs, call.node.attributes.clone(), 1))
}

fn wider(dtype: DType, exact: bool) -> &'static [DType] {
    match dtype {
        DType::F16 | DType::BF16 => &[DType::F32],
        DType::Bool if exact => &[DType::U8, DType::I32],
        DType::I8 | DType::U8 | DType::I16 | DType::U16 if exact => &[DType::I32, DType::I64],
        DType::I32 | DType::U32 if exact => &[DType::I64],
        _ => &[],
    }
}

/// Returns true where the operator has a kernel with one dtype in another's place.
fn serves(call: &Call<'_>, narrow: DType, wide: DType) -> bool {
    let moved = |fact: &Fact| fact.dtype.map(|dtype| if dtype == narrow { wide } else { dtype });
    let inputs: Vec<Option<DType>> =
        call.inputs.iter().map(|input| input.and_then(|id| moved(call.b.fact(id)))).collect();
    let node: &Node = call.node;
    let found = kernels::find(&node.op, call.opset, &inputs, &[]);
    found.is_ok() && refused::why(node, &inputs).is_none()
}
