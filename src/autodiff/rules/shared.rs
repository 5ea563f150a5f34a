//! What several rules need: un-broadcasting, masks, reductions, window attributes.

use crate::autodiff::rule::axis;
use crate::autodiff::{Ctx, RuleError};
use crate::graph::{Attributes, DType, Dim, Fact, Tensor, ValueId};

/// Sums a gradient over the axes along which `input` was broadcast, giving `input`'s shape. Where two
/// dimensions cannot be compared before the model runs, the axes are found while it runs.
///
/// # Errors
/// A rank is unknown.
pub fn unbroadcast(ctx: &mut Ctx<'_>, grad: ValueId, input: ValueId) -> Result<ValueId, RuleError> {
    let from = ctx.dims(grad)?;
    let to = ctx.dims(input)?;
    let lead = from.len().checked_sub(to.len()).ok_or_else(|| {
        RuleError::Unsupported(format!("\"{}\" has a higher rank than what it is broadcast to", ctx.name(input)))
    })?;
    let one = Dim::Known(1);
    let mut axes: Vec<i64> = (0..lead as i64).collect();
    for (index, (have, want)) in from[lead..].iter().zip(&to).enumerate() {
        if *want == one && *have != one {
            axes.push((lead + index) as i64);
        } else if !(have.same(want) || want.known().is_some() || *have == one) {
            return Ok(unbroadcast_while_running(ctx, grad, input, lead));
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

fn unbroadcast_while_running(ctx: &mut Ctx<'_>, grad: ValueId, input: ValueId, lead: usize) -> ValueId {
    let leading: Vec<i64> = (0..lead as i64).collect();
    let grad = if lead == 0 { grad } else { ctx.b.reduce("ReduceSum", grad, &leading, false) };
    let (have, want) = (ctx.b.unary("Shape", grad), ctx.b.unary("Shape", input));
    let same = ctx.b.op("Equal", &[have, want], Attributes::none());
    let broadcast = ctx.b.unary("Not", same);
    let places = ctx.b.unary("NonZero", broadcast);
    let axes = ctx.b.reshape(places, &[-1]);
    let attributes = Attributes::none().with("keepdims", 1).with("noop_with_empty_axes", 1);
    let summed = ctx.b.op("ReduceSum", &[grad, axes], attributes);
    shaped_like(ctx, summed, input)
}

/// One size of a shape that a rule puts together.
#[derive(Clone, Copy)]
pub enum Part {
    /// A number; for `Reshape`, -1 once for the rest, and 0 for the size that the axis has.
    Fixed(i64),
    /// The size of an axis of a value.
    Axis(ValueId, usize),
}

/// Returns sizes as an int64 vector: a constant where all of them are fixed, or where the only one
/// that is not can be the -1 of a `Reshape`.
pub fn shape_of_parts(ctx: &mut Ctx<'_>, parts: &[Part]) -> Result<ValueId, RuleError> {
    let mut sizes = Vec::with_capacity(parts.len());
    for part in parts {
        sizes.push(match *part {
            Part::Fixed(size) => Some(size),
            Part::Axis(value, axis) => ctx.dims(value)?.get(axis).and_then(Dim::known).map(|size| size as i64),
        });
    }
    let open = sizes.iter().filter(|size| size.is_none()).count();
    if open == 0 || (open == 1 && !sizes.iter().any(|size| matches!(size, Some(-1 | 0)))) {
        let sizes: Vec<i64> = sizes.into_iter().map(|size| size.unwrap_or(-1)).collect();
        return Ok(ctx.b.ints("shape", &sizes));
    }
    let mut pieces = Vec::new();
    let mut index = 0;
    while let (Some(size), Some(part)) = (sizes.get(index), parts.get(index)) {
        match (size, *part) {
            (None, Part::Axis(value, axis)) => {
                let next = |ahead: usize| match (sizes.get(index + ahead), parts.get(index + ahead)) {
                    (Some(None), Some(Part::Axis(other, at))) => *other == value && *at == axis + ahead,
                    _ => false,
                };
                let run = (1..).find(|ahead| !next(*ahead)).unwrap_or(1);
                pieces.push(sizes_of(ctx, value, axis, axis + run));
                index += run;
            }
            _ => {
                let fixed: Vec<i64> = sizes[index..].iter().map_while(|size| *size).collect();
                pieces.push(ctx.b.ints("sizes", &fixed));
                index += fixed.len();
            }
        }
    }
    Ok(match pieces.as_slice() {
        [one] => *one,
        many => ctx.b.op("Concat", many, Attributes::none().with("axis", 0)),
    })
}

/// Returns the sizes of the axes `start..end` of a value as an int64 vector, read while the model runs.
pub fn sizes_of(ctx: &mut Ctx<'_>, value: ValueId, start: usize, end: usize) -> ValueId {
    let part = Attributes::none().with("start", start as i64).with("end", end as i64);
    ctx.b.op("Shape", &[value], part)
}

/// Returns the size of an axis as an int64 vector of one element: a constant where it is fixed.
///
/// # Errors
/// The rank is unknown.
pub fn size_along(ctx: &mut Ctx<'_>, value: ValueId, axis: usize) -> Result<ValueId, RuleError> {
    Ok(match ctx.dims(value)?.get(axis).and_then(Dim::known) {
        Some(size) => ctx.b.ints("size", &[size as i64]),
        None => sizes_of(ctx, value, axis, axis + 1),
    })
}

/// Returns a value in the shape that the parts say.
pub fn reshape_to(ctx: &mut Ctx<'_>, value: ValueId, parts: &[Part]) -> Result<ValueId, RuleError> {
    let shape = shape_of_parts(ctx, parts)?;
    let result = ctx.b.op("Reshape", &[value, shape], Attributes::none());
    let mut dims = Vec::with_capacity(parts.len());
    for part in parts {
        dims.push(match *part {
            Part::Fixed(size) => usize::try_from(size).ok().filter(|size| *size > 0).map_or(Dim::Unknown, Dim::Known),
            Part::Axis(of, axis) => ctx.dims(of)?.get(axis).cloned().unwrap_or(Dim::Unknown),
        });
    }
    let fact = Fact { dtype: None, shape: Some(dims) };
    ctx.b.refine(result, &fact);
    Ok(result)
}

/// Returns zeros of `size` (an int64 vector of one element) along an axis, with the slices of `values`
/// at the given places. The places are an int64 vector of distinct non-negative numbers, one for each
/// slice.
///
/// # Errors
/// The rank of `values` is unknown.
pub fn spread(
    ctx: &mut Ctx<'_>,
    values: ValueId,
    places: ValueId,
    along: usize,
    size: ValueId,
) -> Result<ValueId, RuleError> {
    let rank = ctx.rank(values)?;
    let count = size_along(ctx, values, along)?;
    let nowhere = ctx.b.op("Expand", &[count, size], Attributes::none());
    let numbers = counted(ctx, count);
    let map = ctx.b.op("ScatterElements", &[nowhere, places, numbers], Attributes::none().with("axis", 0));
    let mut pads = vec![0; 2 * rank];
    pads[rank + along] = 1;
    let pads = ctx.b.ints("pads", &pads);
    let zero = ctx.b.like(values, 0.0);
    let padded = ctx.b.op("Pad", &[values, pads, zero], Attributes::none().with("mode", "constant"));
    Ok(ctx.b.op("Gather", &[padded, map], Attributes::none().with("axis", along as i64)))
}

/// Returns the gradient of an input of which the output is the slices along the attribute `axis`, or
/// without it the elements, at the given places; see [`spread`].
///
/// # Errors
/// The rank of input 0 is unknown, or the attribute lies outside it.
pub fn spread_out(ctx: &mut Ctx<'_>, places: ValueId) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    if ctx.attributes().get("axis").is_none() {
        let size = ctx.b.unary("Size", x);
        let size = ctx.b.unsqueeze(size, &[0]);
        let dx = spread(ctx, dy, places, 0, size)?;
        return Ok(ctx.b.reshape_like(dx, x));
    }
    let along = axis(ctx.attributes().int("axis", 0)?, ctx.rank(x)?)?;
    let size = size_along(ctx, x, along)?;
    let dx = spread(ctx, dy, places, along, size)?;
    Ok(shaped_like(ctx, dx, x))
}

/// Returns `0, 1, .., count - 1` for an int64 vector of one element.
pub fn counted(ctx: &mut Ctx<'_>, count: ValueId) -> ValueId {
    let count = ctx.b.squeeze(count, &[0]);
    let (zero, one) = (ctx.b.scalar(DType::I64, 0.0), ctx.b.scalar(DType::I64, 1.0));
    ctx.b.op("Range", &[zero, count, one], Attributes::none())
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
