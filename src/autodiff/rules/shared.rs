//! What several rules need: un-broadcasting, masks, reductions, window attributes.

use crate::autodiff::rule::axis;
use crate::autodiff::{Ctx, RuleError};
use crate::graph::{Attributes, DType, Dim, Tensor, ValueId};

/// Sums a gradient over the axes along which `input` was broadcast, giving `input`'s shape.
///
/// # Errors
/// A shape is unknown, or two dimensions cannot be compared before the model runs.
pub fn unbroadcast(ctx: &mut Ctx<'_>, grad: ValueId, input: ValueId) -> Result<ValueId, RuleError> {
    let from = ctx.dims(grad)?;
    let to = ctx.dims(input)?;
    let lead = from.len().checked_sub(to.len()).ok_or_else(|| {
        RuleError::Unsupported(format!("\"{}\" has a higher rank than what it is broadcast to", ctx.name(input)))
    })?;
    let mut axes: Vec<i64> = (0..lead as i64).collect();
    for (index, (have, want)) in from[lead..].iter().zip(&to).enumerate() {
        let one = Dim::Known(1);
        if *want == one && *have != one {
            axes.push((lead + index) as i64);
        } else if !(have.same(want) || want.known().is_some()) {
            return Err(RuleError::NoShape {
                value: ctx.name(input),
                dims: index.to_string(),
                found: format!("{} against {}", ctx.b.fact(input), ctx.b.fact(grad)),
            });
        }
    }
    if axes.is_empty() {
        return Ok(grad);
    }
    if axes.len() == lead {
        return Ok(ctx.b.reduce("ReduceSum", grad, &axes, false));
    }
    let summed = ctx.b.reduce("ReduceSum", grad, &axes, true);
    if lead == 0 {
        return Ok(summed);
    }
    let leading: Vec<i64> = (0..lead as i64).collect();
    Ok(ctx.b.squeeze(summed, &leading))
}

/// Returns a gradient where the condition holds and zero elsewhere.
pub fn masked(ctx: &mut Ctx<'_>, condition: ValueId, grad: ValueId) -> ValueId {
    let zero = ctx.b.like(grad, 0.0);
    ctx.b.select(condition, grad, zero)
}

/// Returns the gradient of an operator that is flat in input 0: zeros like it.
///
/// # Errors
/// The node has no input.
pub fn zeros(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let x = ctx.x(0)?;
    let zero = ctx.b.like(x, 0.0);
    Ok(ctx.b.expand_like(zero, x))
}

/// Returns a value in a dtype, casting it where it has another.
pub fn cast_to(ctx: &mut Ctx<'_>, value: ValueId, dtype: DType) -> ValueId {
    if ctx.dtype(value) == dtype { value } else { ctx.b.cast(value, dtype) }
}

/// Returns the number that a value is, where it is constant and has one element.
pub fn constant_number(ctx: &Ctx<'_>, value: ValueId) -> Option<f64> {
    match ctx.b.graph().constant(value)?.to_f64s()?.as_slice() {
        [number] => Some(*number),
        _ => None,
    }
}

/// Expands the gradient of a reduction over the reduced axes, giving the shape of input 0. The
/// axes are read from input 1 or, where the operator has them there, from the attribute.
///
/// # Errors
/// The axes are not fixed, or the rank is unknown.
pub fn expand_reduced(ctx: &mut Ctx<'_>, grad: ValueId) -> Result<ValueId, RuleError> {
    let kept = keep_reduced(ctx, grad)?;
    let x = ctx.x(0)?;
    Ok(ctx.b.expand_like(kept, x))
}

/// Returns a reduction's output or its gradient with the reduced axes kept as size 1.
///
/// # Errors
/// The axes are not fixed, or the rank is unknown.
pub fn keep_reduced(ctx: &mut Ctx<'_>, value: ValueId) -> Result<ValueId, RuleError> {
    let axes = reduced_axes(ctx)?;
    if ctx.attributes().int("keepdims", 1)? == 1 || axes.is_empty() {
        return Ok(value);
    }
    Ok(ctx.b.unsqueeze(value, &axes))
}

/// Returns the axes a reduction reduces, counted from the front.
///
/// # Errors
/// The axes are not fixed, or the rank is unknown.
pub fn reduced_axes(ctx: &Ctx<'_>) -> Result<Vec<i64>, RuleError> {
    let rank = ctx.rank(ctx.x(0)?)?;
    let given = match ctx.constant_ints(1)? {
        Some(axes) => Some(axes),
        None => ctx.attributes().ints("axes")?,
    };
    match given.filter(|axes| !axes.is_empty()) {
        Some(axes) => axes.iter().map(|a| Ok(axis(*a, rank)? as i64)).collect(),
        None if ctx.attributes().int("noop_with_empty_axes", 0)? == 1 => Ok(Vec::new()),
        None => Ok((0..rank as i64).collect()),
    }
}

/// Says that a value which the rule built has the dtype and shape of another.
pub fn shaped_like(ctx: &mut Ctx<'_>, value: ValueId, like: ValueId) -> ValueId {
    let fact = ctx.b.fact(like).clone();
    ctx.b.refine(value, &fact);
    value
}

/// Returns zeros of the dtype and shape of another value.
pub fn zeros_like(ctx: &mut Ctx<'_>, like: ValueId) -> ValueId {
    let zero = ctx.b.like(like, 0.0);
    ctx.b.expand_like(zero, like)
}

/// Divides a value by the number of elements that `over` has along `axes`.
///
/// # Errors
/// The rank of `over` is unknown.
pub fn divide_by_count(ctx: &mut Ctx<'_>, value: ValueId, over: ValueId, axes: &[i64]) -> Result<ValueId, RuleError> {
    let dims = ctx.dims(over)?;
    let mut known = 1.0;
    let mut result = value;
    for axis in axes {
        match dims.get(usize::try_from(*axis).unwrap_or(usize::MAX)).and_then(Dim::known) {
            Some(size) => known *= size as f64,
            None => {
                let part = Attributes::none().with("start", *axis).with("end", axis + 1);
                let size = ctx.b.op("Shape", &[over], part);
                let dtype = ctx.dtype(value);
                let size = ctx.b.cast(size, dtype);
                result = ctx.b.div(result, size);
            }
        }
    }
    Ok(if known == 1.0 { result } else { ctx.b.scale(result, 1.0 / known) })
}

/// A sliding window over the spatial axes: kernel, strides, dilations, and padding at the
/// begin and end of each axis, with `auto_pad` worked out.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Kernel size per spatial axis.
    pub kernel: Vec<i64>,
    /// Step per spatial axis.
    pub strides: Vec<i64>,
    /// Distance of kernel elements per spatial axis.
    pub dilations: Vec<i64>,
    /// Padding before each spatial axis.
    pub begin: Vec<i64>,
    /// Padding after each spatial axis.
    pub end: Vec<i64>,
}

impl Window {
    /// Reads the window of a convolution or pooling over spatial sizes `input`.
    ///
    /// # Errors
    /// An attribute has the wrong type or length, or `auto_pad` an unknown value.
    pub fn read(attributes: &Attributes, kernel: Vec<i64>, input: &[usize]) -> Result<Window, RuleError> {
        let rank = kernel.len();
        let list = |name: &str, default: i64, length: usize| -> Result<Vec<i64>, RuleError> {
            let values = attributes.ints(name)?.unwrap_or_else(|| vec![default; length]);
            if values.len() != length {
                return Err(RuleError::Unsupported(format!(
                    "attribute \"{name}\" has {} entries, {length} were expected",
                    values.len()
                )));
            }
            Ok(values)
        };
        let strides = list("strides", 1, rank)?;
        let dilations = list("dilations", 1, rank)?;
        if let Some(wrong) = strides.iter().chain(&dilations).find(|step| **step < 1) {
            return Err(RuleError::Unsupported(format!("strides and dilations are 1 or more, found {wrong}")));
        }
        let pads = list("pads", 0, 2 * rank)?;
        let (mut begin, mut end) = (pads[..rank].to_vec(), pads[rank..].to_vec());
        match attributes.text("auto_pad", "NOTSET")?.as_str() {
            "NOTSET" => {}
            "VALID" => (begin, end) = (vec![0; rank], vec![0; rank]),
            mode @ ("SAME_UPPER" | "SAME_LOWER") => {
                for axis in 0..rank {
                    let size = *input.get(axis).ok_or_else(|| {
                        RuleError::Unsupported(format!("the input has {} spatial axes, the kernel {rank}", input.len()))
                    })? as i64;
                    let output = (size + strides[axis] - 1) / strides[axis];
                    let extent = dilations[axis] * (kernel[axis] - 1) + 1;
                    let total = ((output - 1) * strides[axis] + extent - size).max(0);
                    let small = total / 2;
                    begin[axis] = if mode == "SAME_UPPER" { small } else { total - small };
                    end[axis] = total - begin[axis];
                }
            }
            other => return Err(RuleError::Unsupported(format!("auto_pad \"{other}\" is not known"))),
        }
        Ok(Window { kernel, strides, dilations, begin, end })
    }

    /// Returns the distance from the first to one past the last element of the kernel.
    pub fn extent(&self, axis: usize) -> i64 {
        self.dilations[axis] * (self.kernel[axis] - 1) + 1
    }

    /// Returns `[begin.., end..]`, as the `pads` attribute has it.
    pub fn pads(&self) -> Vec<i64> {
        [self.begin.clone(), self.end.clone()].concat()
    }

    /// Returns the attributes `kernel_shape`, `strides`, `dilations` and `pads`.
    pub fn attributes(&self) -> Attributes {
        Attributes::none()
            .with("dilations", self.dilations.clone())
            .with("kernel_shape", self.kernel.clone())
            .with("pads", self.pads())
            .with("strides", self.strides.clone())
    }
}

/// Adds a constant of a floating-point dtype.
pub fn float_constant(ctx: &mut Ctx<'_>, part: &str, shape: &[usize], numbers: &[f64], dtype: DType) -> ValueId {
    if dtype == DType::F64 {
        return ctx.b.constant(part, Tensor::from_vec(shape, numbers.to_vec()));
    }
    let single = numbers.iter().map(|number| *number as f32).collect();
    let constant = ctx.b.constant(part, Tensor::from_vec::<f32>(shape, single));
    cast_to(ctx, constant, dtype)
}
