//! Resize
//!
//! Forward:  `y = W_a x` along every resized axis a, one after another; `W_a` is `[output, input]`.
//! Backward: `dx = W_a^T dy` along every resized axis; for nearest pixels repeated a whole number
//!           of times the sum over each block, as an AveragePool times the size of the block.
//! Shapes:   x any of known rank; the resized axes are fixed, except where pixels are repeated;
//!           scales are constant, sizes may be computed where x and y say how they differ.
//! Opsets:   10 to 24; the matrices are those of ONNX Runtime (`matrix.rs`).
//! At kinks: linear in x; rounding of positions is ONNX Runtime's, in single precision.
//! <https://onnx.ai/onnx/operators/onnx__Resize.html>

mod matrix;

use super::shared::{float_constant, shaped_like};
use crate::autodiff::rule::axis;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, DType, Dim, ValueId};
use matrix::{Axis, Method};

pub static RULE: Rule =
    Rule { domain: "", op: "Resize", opsets: 10..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

/// One axis that changes.
struct Change {
    axis: usize,
    scale: f32,
    region: (f32, f32),
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let (from, to) = (ctx.dims(x)?, ctx.dims(ctx.y(0)?)?);
    if from.len() != to.len() || from.is_empty() {
        return Err(RuleError::Unsupported(format!("rank {} becomes rank {}", from.len(), to.len())));
    }
    if from.iter().zip(&to).all(|(from, to)| from.same(to)) {
        return Ok(dy);
    }
    let method = Method::read(ctx.attributes())?;
    let changes = changes(ctx, &method, &from, &to)?;
    let dx = match blocks(ctx, &method, &changes, from.len()) {
        Some(kernel) => block_sums(ctx, dy, &kernel),
        None => transposed(ctx, dy, &method, &changes, (&from, &to))?,
    };
    Ok(shaped_like(ctx, dx, x))
}

fn changes(ctx: &Ctx<'_>, method: &Method, from: &[Dim], to: &[Dim]) -> Result<Vec<Change>, RuleError> {
    let rank = from.len();
    let axes: Vec<usize> = match ctx.attributes().ints("axes")? {
        Some(axes) => axes.iter().map(|at| axis(*at, rank)).collect::<Result<_, _>>()?,
        None => (0..rank).collect(),
    };
    let scales = scales(ctx, &axes, from, to)?;
    let regions = regions(ctx, method, axes.len())?;
    let all = axes.into_iter().zip(scales).zip(regions);
    Ok(all.map(|((axis, scale), region)| Change { axis, scale, region }).filter(|change| change.scale != 1.0).collect())
}

/// Returns the scale of every axis, as ONNX Runtime has it.
fn scales(ctx: &Ctx<'_>, axes: &[usize], from: &[Dim], to: &[Dim]) -> Result<Vec<f32>, RuleError> {
    let policy = ctx.attributes().text("keep_aspect_ratio_policy", "stretch")?;
    if ctx.node().input(3).is_none() {
        let scales = floats(ctx, 2)?.unwrap_or_default();
        return match scales.len() == axes.len() {
            true => Ok(scales),
            false => Err(RuleError::Unsupported(format!("{} scales for {} axes", scales.len(), axes.len()))),
        };
    }
    let unknown = |axis: usize| RuleError::NoShape {
        value: ctx.node().input(0).map_or(String::new(), |x| ctx.name(x)),
        dims: axis.to_string(),
        found: format!("{} becomes {}", from[axis], to[axis]),
    };
    let ratio = |axis: usize, to: &Dim| match (from[axis].known(), to.known()) {
        _ if from[axis].same(to) => Ok(1.0),
        (Some(from), Some(to)) if from > 0 => Ok(to as f32 / from as f32),
        _ => Err(unknown(axis)),
    };
    if policy == "stretch" {
        return axes.iter().map(|axis| ratio(*axis, &to[*axis])).collect();
    }
    let sizes = ctx.constant_ints(3)?.unwrap_or_default();
    let asked = axes
        .iter()
        .zip(sizes)
        .map(|(axis, size)| ratio(*axis, &usize::try_from(size).map_or(Dim::Unknown, Dim::Known)));
    let asked = asked.collect::<Result<Vec<f32>, RuleError>>()?;
    let common = asked.into_iter().reduce(match policy.as_str() {
        "not_larger" => f32::min,
        "not_smaller" => f32::max,
        other => return Err(RuleError::Unsupported(format!("keep_aspect_ratio_policy \"{other}\" is not known"))),
    });
    Ok(vec![common.unwrap_or(1.0); axes.len()])
}

/// Returns the start and end of the region of every axis, where the method reads one.
fn regions(ctx: &Ctx<'_>, method: &Method, count: usize) -> Result<Vec<(f32, f32)>, RuleError> {
    let whole = vec![(0.0, 1.0); count];
    if !method.crops() {
        return Ok(whole);
    }
    match floats(ctx, 1)?.filter(|region| !region.is_empty()) {
        None => Ok(whole),
        Some(region) if region.len() == 2 * count => {
            let (starts, ends) = region.split_at(count);
            Ok(starts.iter().copied().zip(ends.iter().copied()).collect())
        }
        Some(region) => Err(RuleError::Unsupported(format!("a region of {} numbers for {count} axes", region.len()))),
    }
}

fn floats(ctx: &Ctx<'_>, index: usize) -> Result<Option<Vec<f32>>, RuleError> {
    let Some(value) = ctx.node().input(index) else { return Ok(None) };
    let numbers = ctx.b.graph().constant(value).and_then(|tensor| tensor.to_f64s());
    let numbers = numbers.ok_or_else(|| RuleError::NotConstant { value: ctx.name(value) })?;
    Ok(Some(numbers.into_iter().map(|number| number as f32).collect()))
}

/// Returns the size of the blocks of equal pixels along every spatial axis, where y has nothing
/// but those and AveragePool takes its dtype and rank.
fn blocks(ctx: &Ctx<'_>, method: &Method, changes: &[Change], rank: usize) -> Option<Vec<i64>> {
    let fits = (3..=5).contains(&rank) && ctx.dtype(ctx.node().output(0)?) != DType::F64;
    let mut kernel = vec![1; rank.checked_sub(2)?];
    for change in changes {
        let spatial = kernel.get_mut(change.axis.checked_sub(2)?)?;
        *spatial = method.repeats(change.scale)?;
    }
    fits.then_some(kernel)
}

fn block_sums(ctx: &mut Ctx<'_>, dy: ValueId, kernel: &[i64]) -> ValueId {
    let attributes = Attributes::none().with("kernel_shape", kernel).with("strides", kernel);
    let mean = ctx.b.op("AveragePool", &[dy], attributes);
    ctx.b.scale(mean, kernel.iter().map(|size| *size as f64).product())
}

fn transposed(
    ctx: &mut Ctx<'_>,
    dy: ValueId,
    method: &Method,
    changes: &[Change],
    (from, to): (&[Dim], &[Dim]),
) -> Result<ValueId, RuleError> {
    let mut grad = dy;
    for change in changes.iter().rev() {
        let size = |dims: &[Dim]| dims[change.axis].known().filter(|size| *size > 0);
        let (Some(input), Some(output)) = (size(from), size(to)) else {
            return Err(RuleError::NoShape {
                value: ctx.name(ctx.x(0)?),
                dims: change.axis.to_string(),
                found: ctx.b.fact(ctx.x(0)?).to_string(),
            });
        };
        let along = Axis { input, output, scale: change.scale, region: change.region };
        grad = along_axis(ctx, grad, &method.matrix(&along)?, &along, change.axis)?;
    }
    Ok(grad)
}

/// Multiplies a gradient by the transposed matrix along an axis.
fn along_axis(
    ctx: &mut Ctx<'_>,
    grad: ValueId,
    matrix: &[f64],
    along: &Axis,
    axis: usize,
) -> Result<ValueId, RuleError> {
    let (input, output) = (along.input, along.output);
    let dims = ctx.dims(grad)?;
    let dtype = ctx.dtype(grad);
    let behind = dims.get(axis + 1..).unwrap_or_default();
    if behind.is_empty() {
        let matrix = float_constant(ctx, "weights", &[output, input], matrix, dtype);
        return Ok(ctx.b.op("MatMul", &[grad, matrix], Attributes::none()));
    }
    let turned: Vec<f64> = (0..input).flat_map(|i| (0..output).map(move |o| matrix[o * input + i])).collect();
    let turned = float_constant(ctx, "weights", &[input, output], &turned, dtype);
    if behind.len() == 1 {
        return Ok(ctx.b.op("MatMul", &[turned, grad], Attributes::none()));
    }
    let mut flat = vec![0; axis];
    flat.extend([output as i64, -1]);
    let flat = ctx.b.reshape(grad, &flat);
    let product = ctx.b.op("MatMul", &[turned, flat], Attributes::none());
    let mut shape = vec![0; axis];
    shape.push(input as i64);
    for (index, dim) in behind.iter().enumerate() {
        shape.push(match dim.known() {
            Some(size) => size as i64,
            None if !shape.contains(&-1) => -1,
            None => {
                return Err(RuleError::NoShape {
                    value: ctx.name(ctx.x(0)?),
                    dims: (axis + 1 + index).to_string(),
                    found: ctx.b.fact(ctx.x(0)?).to_string(),
                });
            }
        });
    }
    Ok(ctx.b.reshape(product, &shape))
}

#[cfg(all(test, feature = "runner"))]
mod tests;
