//! Celu, Hardmax, Mean and MeanVarianceNormalization.

use super::Call;
use crate::graph::{Attributes, DType, Tensor, ValueId};

/// Added to the deviation by MeanVarianceNormalization.
const EPSILON: f64 = 1e-9;

/// `max(x, 0) + alpha elu(min(x, 0) / alpha)`
pub(super) fn celu(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    let x = call.input(0)?;
    let alpha = f64::from(call.node.attributes.float("alpha", 1.0).ok()?);
    let b = &mut *call.b;
    let positive = b.unary("Relu", x);
    let zero = b.like(x, 0.0);
    let negative = b.op("Min", &[x, zero], Attributes::none());
    let scaled = b.scale(negative, 1.0 / alpha);
    let elu = b.unary("Elu", scaled);
    let elu = b.scale(elu, alpha);
    Some(vec![b.add(positive, elu)])
}

/// One at the first of the largest, by its position.
pub(super) fn hardmax(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    let (x, dtype, axis) = (call.input(0)?, call.dtype(0)?, call.axis(-1)?);
    let depth = call.size_along(0, axis)?;
    let b = &mut *call.b;
    let attributes = Attributes::none().with("axis", axis).with("keepdims", 0);
    let first = b.op("ArgMax", &[x], attributes);
    let depth = b.squeeze(depth, &[0]);
    let values = b.constant("values", Tensor::from_vec(&[2], vec![0_f32, 1.0]));
    let y = b.op("OneHot", &[first, depth, values], Attributes::none().with("axis", axis));
    Some(vec![if dtype == DType::F32 { y } else { b.cast(y, dtype) }])
}

/// `sum / count`
pub(super) fn mean(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    let inputs: Vec<ValueId> = call.inputs.iter().copied().collect::<Option<_>>()?;
    let sum = call.b.op("Sum", &inputs, Attributes::none());
    let count = call.b.like(sum, inputs.len() as f64);
    Some(vec![call.b.div(sum, count)])
}

/// `(x - mean) / (sqrt(variance) + epsilon)`
pub(super) fn mean_variance(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    let x = call.input(0)?;
    let axes = call.node.attributes.ints("axes").ok()?.unwrap_or_else(|| vec![0, 2, 3]);
    let b = &mut *call.b;
    let mean = b.reduce("ReduceMean", x, &axes, true);
    let centered = b.sub(x, mean);
    let square = b.mul(centered, centered);
    let variance = b.reduce("ReduceMean", square, &axes, true);
    let deviation = b.unary("Sqrt", variance);
    let deviation = b.shift(deviation, EPSILON);
    Some(vec![b.div(centered, deviation)])
}
