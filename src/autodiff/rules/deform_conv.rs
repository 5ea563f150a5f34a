//! DeformConv
//!
//! Forward:  `y = W columns + b`, `columns[c, k, p] = mask[k, p] x[c, place(k, p) + offset[k, p]]`, x
//!           read between pixels as GridSample does, zeros outside.
//! Backward: `dcolumns = W^T dy`; `dW = dy columns^T`; dx and doffset = those of GridSample for
//!           `mask dcolumns`; `dmask = sum over c of dcolumns x[..]`; `db = sum of dy over batch and
//!           space`.
//! Shapes:   x `[N, C, H, W]`, W `[M, C/group, h, w]`, offset `[N, 2 G h w, O..]`, b `[M]`,
//!           mask `[N, G h w, O..]`; N may be a symbol.
//! Opsets:   19 to 24; two spatial axes.
//! At kinks: at a pixel the slope to the next one.
//! <https://onnx.ai/onnx/operators/onnx__DeformConv.html>

use super::conv::bias;
use super::grid_sample::samples::{Filter, Padding, Samples, Unit};
use super::shared::{Window, float_constant, shaped_like};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "DeformConv",
    opsets: 19..=24,
    inputs: Inputs::Fixed(&[
        InputRule::Gradient(input),
        InputRule::Gradient(weight),
        InputRule::Gradient(offset),
        InputRule::Gradient(bias),
        InputRule::Gradient(mask),
    ]),
};

/// Most coordinates of the places that x is read at.
const LARGEST: i64 = 1 << 26;

struct Geometry {
    window: Window,
    /// Sizes of x and of y.
    space: [i64; 2],
    output: [i64; 2],
    channels: i64,
    /// Channels of y.
    filters: i64,
    group: i64,
    offset_group: i64,
}

impl Geometry {
    fn taps(&self) -> i64 {
        self.window.kernel.iter().product()
    }

    fn places(&self) -> i64 {
        self.output[0] * self.output[1]
    }
}

fn geometry(ctx: &Ctx<'_>) -> Result<Geometry, RuleError> {
    let sizes = |value, from| -> Result<Vec<i64>, RuleError> {
        Ok(ctx.sizes_from(value, from)?.iter().map(|size| *size as i64).collect())
    };
    let (x, w, y) = (sizes(ctx.x(0)?, 1)?, sizes(ctx.x(1)?, 0)?, sizes(ctx.y(0)?, 2)?);
    let ([channels, height, width], [filters, _, kernel @ ..], [down, across]) = (&x[..], &w[..], &y[..]) else {
        return Err(RuleError::Unsupported(format!("rank {} has no gradient, 4 has", x.len() + 1)));
    };
    let space = [*height, *width];
    let plane: Vec<usize> = ctx.sizes_from(ctx.x(0)?, 2)?;
    let window = Window::read(ctx.attributes(), kernel.to_vec(), &plane)?;
    let (group, offset_group) = (ctx.attributes().int("group", 1)?, ctx.attributes().int("offset_group", 1)?);
    if kernel.len() != 2 || group < 1 || offset_group < 1 || channels % group != 0 || channels % offset_group != 0 {
        let text = format!("{channels} channels in {group} groups and {offset_group} offset groups");
        return Err(RuleError::Unsupported(text));
    }
    let output = [*down, *across];
    let count = kernel.iter().chain(&output).try_fold(2i64, |count, size| count.checked_mul(*size));
    if count.is_none_or(|count| count > LARGEST) {
        return Err(RuleError::Unsupported(format!("a kernel {kernel:?} at {output:?} places is too large")));
    }
    Ok(Geometry { window, space, output, channels: *channels, filters: *filters, group, offset_group })
}

/// Where x is read, in pixels, the last axis first: `[N G, h w O.., 2]`.
fn grid(ctx: &mut Ctx<'_>, g: &Geometry) -> Result<ValueId, RuleError> {
    ctx.once("grid", |ctx| {
        let offset = ctx.x(2)?;
        let mut base = Vec::new();
        for tap in 0..g.taps() {
            for axis in 0..2 {
                let tap = if axis == 0 { tap / g.window.kernel[1] } else { tap % g.window.kernel[1] };
                for place in 0..g.places() {
                    let place = if axis == 0 { place / g.output[1] } else { place % g.output[1] };
                    let at = place * g.window.strides[axis] + tap * g.window.dilations[axis] - g.window.begin[axis];
                    base.push(at as f64);
                }
            }
        }
        let dtype = ctx.dtype(offset);
        let shape = [1, g.taps() as usize, 2, g.places() as usize];
        let base = float_constant(ctx, "base", &shape, &base, dtype);
        let offset = ctx.b.reshape(offset, &[-1, g.taps(), 2, g.places()]);
        let places = ctx.b.add(offset, base);
        let last = ctx.b.transpose(places, &[0, 1, 3, 2]);
        let flat = ctx.b.reshape(last, &[0, -1, 2]);
        Ok(swapped(ctx, flat))
    })
}

/// Returns `[.., .., 2]` with the two numbers exchanged.
fn swapped(ctx: &mut Ctx<'_>, value: ValueId) -> ValueId {
    let order = ctx.b.ints("order", &[1, 0]);
    ctx.b.op("Gather", &[value, order], Attributes::none().with("axis", 2))
}

fn samples(ctx: &mut Ctx<'_>, g: &Geometry) -> Result<Samples, RuleError> {
    let grid = grid(ctx, g)?;
    let image = ctx.once("image", |ctx| {
        let x = ctx.x(0)?;
        Ok(ctx.b.reshape(x, &[-1, g.channels / g.offset_group, g.space[0], g.space[1]]))
    })?;
    let sizes = g.space.to_vec();
    Ok(Samples { image, grid, sizes, filter: Filter::Linear, padding: Padding::Zeros, unit: Unit::Pixels })
}

/// The elements of x that the columns are made of, without the mask: `[N G, C/G, h w O..]`.
fn picked(ctx: &mut Ctx<'_>, g: &Geometry) -> Result<ValueId, RuleError> {
    ctx.once("picked", |ctx| {
        let samples = samples(ctx, g)?;
        samples.values(ctx)
    })
}

/// The mask as `[N G, 1, h w O..]`.
fn factors(ctx: &mut Ctx<'_>, g: &Geometry) -> Result<Option<ValueId>, RuleError> {
    let Some(mask) = ctx.node().input(4) else { return Ok(None) };
    ctx.once("mask", |ctx| Ok(ctx.b.reshape(mask, &[-1, 1, g.taps() * g.places()]))).map(Some)
}

/// The gradient of y as `[N, group, M/group, O..]`.
fn grouped(ctx: &mut Ctx<'_>, g: &Geometry) -> Result<ValueId, RuleError> {
    ctx.once("dy", |ctx| {
        let dy = ctx.dy()?;
        Ok(ctx.b.reshape(dy, &[-1, g.group, g.filters / g.group, g.places()]))
    })
}

/// The gradient of the columns as `[N G, C/G, h w O..]`.
fn columns_gradient(ctx: &mut Ctx<'_>, g: &Geometry) -> Result<ValueId, RuleError> {
    ctx.once("dcolumns", |ctx| {
        let (dy, w) = (grouped(ctx, g)?, ctx.x(1)?);
        let w = ctx.b.reshape(w, &[g.group, g.filters / g.group, -1]);
        let turned = ctx.b.transpose(w, &[0, 2, 1]);
        let columns = ctx.b.op("MatMul", &[turned, dy], Attributes::none());
        Ok(ctx.b.reshape(columns, &[-1, g.channels / g.offset_group, g.taps() * g.places()]))
    })
}

/// The gradient of what is picked from x.
fn picked_gradient(ctx: &mut Ctx<'_>, g: &Geometry) -> Result<ValueId, RuleError> {
    ctx.once("dpicked", |ctx| {
        let columns = columns_gradient(ctx, g)?;
        Ok(match factors(ctx, g)? {
            Some(factors) => ctx.b.mul(columns, factors),
            None => columns,
        })
    })
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let g = geometry(ctx)?;
    let (samples, grad, x) = (samples(ctx, &g)?, picked_gradient(ctx, &g)?, ctx.x(0)?);
    let dx = samples.image_gradient(ctx, grad)?;
    let dx = ctx.b.reshape_like(dx, x);
    Ok(shaped_like(ctx, dx, x))
}

fn weight(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let g = geometry(ctx)?;
    let (dy, w, mut columns) = (grouped(ctx, &g)?, ctx.x(1)?, picked(ctx, &g)?);
    if let Some(factors) = factors(ctx, &g)? {
        columns = ctx.b.mul(columns, factors);
    }
    let columns = ctx.b.reshape(columns, &[-1, g.group, g.channels / g.group * g.taps(), g.places()]);
    let turned = ctx.b.transpose(columns, &[0, 1, 3, 2]);
    let each = ctx.b.op("MatMul", &[dy, turned], Attributes::none());
    let dw = ctx.b.reduce("ReduceSum", each, &[0], false);
    let dw = ctx.b.reshape_like(dw, w);
    Ok(shaped_like(ctx, dw, w))
}

fn offset(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let g = geometry(ctx)?;
    let (samples, grad, offset) = (samples(ctx, &g)?, picked_gradient(ctx, &g)?, ctx.x(2)?);
    let dgrid = samples.grid_gradient(ctx, grad)?;
    let first = swapped(ctx, dgrid);
    let split = ctx.b.reshape(first, &[-1, g.taps(), g.places(), 2]);
    let moved = ctx.b.transpose(split, &[0, 1, 3, 2]);
    let doffset = ctx.b.reshape_like(moved, offset);
    Ok(shaped_like(ctx, doffset, offset))
}

fn mask(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let g = geometry(ctx)?;
    let (columns, picked, mask) = (columns_gradient(ctx, &g)?, picked(ctx, &g)?, ctx.x(4)?);
    let product = ctx.b.mul(columns, picked);
    let dmask = ctx.b.reduce("ReduceSum", product, &[1], false);
    let dmask = ctx.b.reshape_like(dmask, mask);
    Ok(shaped_like(ctx, dmask, mask))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::{DType, Tensor};

    #[test]
    fn gradients() {
        let conv = |name| {
            Case::new(name, "DeformConv").opset(19).not_embedded("tract has no DeformConv").only_float32("GridSample")
        };
        check(&[
            conv("plain").input(&[2, 2, 4, 5]).input(&[3, 2, 2, 2]).range(&[2, 8, 3, 4], 0.1, 0.9),
            conv("bias and mask")
                .input(&[2, 2, 4, 5])
                .input(&[3, 2, 2, 2])
                .range(&[2, 8, 3, 4], -0.9, -0.1)
                .input(&[3])
                .input(&[2, 4, 3, 4]),
            conv("padded, strided, dilated")
                .input(&[1, 2, 6, 7])
                .input(&[2, 2, 3, 2])
                .range(&[1, 12, 4, 2], 0.1, 0.9)
                .ints("pads", &[1, 0, 2, 1])
                .ints("strides", &[2, 3])
                .ints("dilations", &[1, 2]),
            conv("groups")
                .input(&[2, 4, 4, 4])
                .input(&[6, 2, 3, 3])
                .range(&[2, 18, 2, 2], 0.1, 0.9)
                .missing()
                .input(&[2, 9, 2, 2])
                .int("group", 2),
            conv("offset groups")
                .input(&[2, 4, 4, 4])
                .input(&[2, 4, 2, 2])
                .range(&[2, 16, 3, 3], 0.1, 0.9)
                .input(&[2])
                .input(&[2, 8, 3, 3])
                .int("offset_group", 2),
            conv("both groups, symbolic batch")
                .input(&[2, 4, 4, 4])
                .input(&[4, 1, 2, 2])
                .range(&[2, 16, 3, 3], 0.1, 0.9)
                .int("group", 4)
                .int("offset_group", 2)
                .batch(),
            conv("far outside").input(&[1, 2, 3, 3]).input(&[2, 2, 2, 2]).range(&[1, 8, 2, 2], 2.1, 2.9),
            conv("nothing moved")
                .opset(21)
                .input(&[1, 2, 4, 4])
                .input(&[2, 2, 3, 3])
                .fixed(Tensor::zeros(DType::F32, &[1, 18, 4, 4]))
                .ints("pads", &[1, 1, 1, 1]),
        ]);
    }
}
