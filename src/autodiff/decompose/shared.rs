//! What several decompositions are made of.

use super::Parts;
use crate::autodiff::RuleError;
use crate::autodiff::internal::rms_norm_node;
use crate::graph::{Attribute, Attributes, DType, Dim, Fact, OpId, ValueId};

/// Returns the size of a dimension, which must be fixed.
///
/// # Errors
/// It is a symbol or unknown.
pub fn size(parts: &Parts<'_>, value: ValueId, axis: usize) -> Result<i64, RuleError> {
    let dims = parts.dims(value)?;
    let size = dims.get(axis).and_then(Dim::known).and_then(|size| i64::try_from(size).ok());
    size.ok_or_else(|| RuleError::NoShape {
        value: parts.b.graph().value_name(value).to_string(),
        dims: axis.to_string(),
        found: parts.b.fact(value).to_string(),
    })
}

/// Splits a value along an axis into consecutive parts.
pub fn split(parts: &mut Parts<'_>, value: ValueId, axis: i64, sizes: &[i64]) -> Vec<ValueId> {
    let lengths = parts.b.ints("sizes", sizes);
    let attributes = Attributes::none().with("axis", axis);
    parts.b.ops(&OpId::standard("Split"), &[Some(value), Some(lengths)], attributes, sizes.len())
}

/// Joins values along an axis.
pub fn concat(parts: &mut Parts<'_>, values: &[ValueId], axis: i64) -> ValueId {
    parts.b.op("Concat", values, Attributes::none().with("axis", axis))
}

/// Passes a value on under a new name: an input that becomes an output.
pub fn copy(parts: &mut Parts<'_>, value: ValueId) -> ValueId {
    parts.b.unary("Identity", value)
}

/// Returns one dimension of a value as an int64 vector of one element.
pub fn length(parts: &mut Parts<'_>, value: ValueId, axis: usize) -> Result<ValueId, RuleError> {
    if let Ok(size) = size(parts, value, axis) {
        return Ok(parts.b.ints("length", &[size]));
    }
    let (start, rank) = (axis as i64, parts.rank(value)?);
    if axis >= rank {
        return Err(RuleError::Unsupported(format!("dimension {axis} lies outside rank {rank}")));
    }
    Ok(parts.b.op("Shape", &[value], Attributes::none().with("start", start).with("end", start + 1)))
}

/// Returns `0, 1, ..` up to the size of a dimension, int64.
pub fn positions(parts: &mut Parts<'_>, value: ValueId, axis: usize) -> Result<ValueId, RuleError> {
    if let Ok(size) = size(parts, value, axis) {
        let all: Vec<i64> = (0..size).collect();
        return Ok(parts.b.ints("positions", &all));
    }
    let count = length(parts, value, axis)?;
    let count = parts.b.squeeze(count, &[0]);
    let (zero, one) = (parts.b.scalar(DType::I64, 0.0), parts.b.scalar(DType::I64, 1.0));
    let range = parts.b.op("Range", &[zero, count, one], Attributes::none());
    let dim = parts.dims(value)?[axis].clone();
    parts.b.refine(range, &Fact::new(DType::I64, vec![dim]));
    Ok(range)
}

/// `y = x * inv_rms * scale` with `inv_rms = 1 / sqrt(mean(x^2) + epsilon)` over the axes from
/// `axis` on; returns y and inv_rms, the latter in float32 where x is of half precision.
///
/// # Errors
/// The rank of x is unknown, or the axis lies outside it.
pub fn rms_normalization(
    parts: &mut Parts<'_>,
    x: ValueId,
    scale: ValueId,
    axis: i64,
    epsilon: f32,
) -> Result<[ValueId; 2], RuleError> {
    let first = crate::autodiff::rule::axis(axis, parts.rank(x)?)? as i64;
    let dtype = parts.dtype(x);
    if !matches!(dtype, DType::F16 | DType::BF16) {
        return Ok(rms_norm_node(parts.b, x, Some(scale), first, epsilon));
    }
    let wide = parts.b.cast(x, DType::F32);
    let [normal, inverse] = rms_norm_node(parts.b, wide, None, first, epsilon);
    let normal = parts.b.cast(normal, dtype);
    Ok([parts.b.mul(normal, scale), inverse])
}

/// Returns a list of floats; empty where the attribute is absent.
///
/// # Errors
/// The attribute has another type.
pub fn floats(parts: &Parts<'_>, name: &str) -> Result<Vec<f32>, RuleError> {
    match parts.attributes().get(name) {
        None => Ok(Vec::new()),
        Some(Attribute::Floats(values)) => Ok(values.clone()),
        Some(_) => Err(RuleError::Unsupported(format!("attribute \"{name}\" is no list of floats"))),
    }
}

/// Applies the activation that a fused operator names; `numbers` are its alpha, beta and gamma.
///
/// # Errors
/// The activation is not known.
pub fn activate(parts: &mut Parts<'_>, x: ValueId, name: &str, numbers: &[f32]) -> Result<ValueId, RuleError> {
    let number = |index: usize, default: f32| numbers.get(index).copied().unwrap_or(default);
    let one = |default: f32| Attributes::none().with("alpha", number(0, default));
    Ok(match name {
        "" => x,
        "Relu" | "Tanh" | "Sigmoid" | "Softplus" | "Softsign" => parts.b.unary(name, x),
        "LeakyRelu" => parts.b.op(name, &[x], one(0.01)),
        "Elu" => parts.b.op(name, &[x], one(1.0)),
        "HardSigmoid" => parts.b.op(name, &[x], one(0.2).with("beta", number(1, 0.5))),
        "HardSwish" => {
            let slope = Attributes::none().with("alpha", number(0, 1.0 / 6.0)).with("beta", number(1, 0.5));
            let gate = parts.b.op("HardSigmoid", &[x], slope);
            parts.b.mul(x, gate)
        }
        "Clip" => {
            let low = parts.b.like(x, f64::from(number(0, f32::MIN)));
            let high = parts.b.like(x, f64::from(number(1, f32::MAX)));
            parts.b.op("Clip", &[x, low, high], Attributes::none())
        }
        other => return Err(RuleError::Unsupported(format!("the activation \"{other}\" is not known"))),
    })
}
