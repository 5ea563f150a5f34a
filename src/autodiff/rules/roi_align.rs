//! RoiAlign, mode `avg`
//!
//! Forward:  `y[r, c] = A[r] x[batch(r), c] B[r]^T`: the means of samples between pixels in the cells
//!           of region r, whose rows A `[oh, H]` and columns B `[ow, W]` are independent.
//! Backward: `dx[n, c] = sum over r in n of A[r]^T dy[r, c] B[r]`, one product over all regions.
//! Shapes:   x `[N, C, H, W]`, regions `[R, 4]`, y `[R, C, oh, ow]`; H and W are fixed, N and R may be
//!           symbols.
//! Opsets:   10 to 24.
//! At kinks: regions have no gradient, as in torchvision.
//! <https://onnx.ai/onnx/operators/onnx__RoiAlign.html>

use super::shared::{cast_to, float_constant, shaped_like};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, DType, Tensor, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "RoiAlign",
    opsets: 10..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant, InputRule::Constant]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let mode = ctx.attributes().text("mode", "avg")?;
    if mode != "avg" {
        let text = format!("mode \"{mode}\" has no gradient (which sample won is not known), \"avg\" has");
        return Err(RuleError::Unsupported(text));
    }
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let space = ctx.sizes_from(x, 2)?;
    let [height, width] = space.as_slice() else {
        return Err(RuleError::Unsupported(format!("rank {} has no gradient, 4 has", space.len() + 2)));
    };
    let rows = cells(ctx, 1, "output_height", *height)?;
    let columns = cells(ctx, 0, "output_width", *width)?;
    let columns = ctx.b.unsqueeze(columns, &[1]);
    let along = ctx.b.op("MatMul", &[dy, columns], Attributes::none());
    let along = ctx.b.transpose(along, &[1, 0, 2, 3]);
    let along = ctx.b.reshape(along, &[0, -1, *width as i64]);
    let owners = owners(ctx)?;
    let rows = ctx.b.mul(rows, owners);
    let rows = ctx.b.reshape(rows, &[0, -1, *height as i64]);
    let rows = ctx.b.transpose(rows, &[0, 2, 1]);
    let rows = ctx.b.unsqueeze(rows, &[1]);
    let dx = ctx.b.op("MatMul", &[rows, along], Attributes::none());
    Ok(shaped_like(ctx, dx, x))
}

/// `[N, R, 1, 1]`: 1 where region r lies in image n.
fn owners(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (x, of) = (ctx.x(0)?, ctx.x(2)?);
    let images = match ctx.dims(x)?.first().and_then(|dim| dim.known()) {
        Some(count) => ctx.b.ints("images", &(0..count as i64).collect::<Vec<_>>()),
        None => {
            let count = ctx.b.op("Shape", &[x], Attributes::none().with("start", 0).with("end", 1));
            let count = ctx.b.squeeze(count, &[0]);
            numbers_below(ctx, count)
        }
    };
    let images = ctx.b.unsqueeze(images, &[1, 2, 3]);
    let of = cast_to(ctx, of, DType::I64);
    let of = ctx.b.unsqueeze(of, &[1, 2]);
    let same = ctx.b.op("Equal", &[images, of], Attributes::none());
    let dtype = ctx.dtype(x);
    Ok(ctx.b.cast(same, dtype))
}

fn numbers_below(ctx: &mut Ctx<'_>, count: ValueId) -> ValueId {
    let [zero, one] = [0, 1].map(|number: i64| ctx.b.constant("const", Tensor::scalar(number)));
    ctx.b.op("Range", &[zero, count, one], Attributes::none())
}

/// The weights `[R, cells, size]` of the pixels along an axis, 0 for the width and 1 for the height.
fn cells(ctx: &mut Ctx<'_>, axis: i64, cells: &str, size: usize) -> Result<ValueId, RuleError> {
    let (count, ratio) = (ctx.attributes().int(cells, 1)?, ctx.attributes().int("sampling_ratio", 0)?);
    let count = usize::try_from(count).ok().filter(|count| (1..=1 << 16).contains(count));
    let count = count.ok_or_else(|| RuleError::Unsupported(format!("{cells} is not 1 or more")))?;
    let half = match ctx.attributes().text("coordinate_transformation_mode", "half_pixel")?.as_str() {
        "half_pixel" => true,
        "output_half_pixel" => false,
        other => {
            return Err(RuleError::Unsupported(format!("coordinate_transformation_mode \"{other}\" is not known")));
        }
    };
    let scale = f64::from(ctx.attributes().float("spatial_scale", 1.0)?);
    let x = ctx.x(0)?;
    let dtype = ctx.dtype(x);
    let edge = |ctx: &mut Ctx<'_>, column: i64| -> Result<ValueId, RuleError> {
        let at = ctx.b.ints("column", &[column]);
        let regions = ctx.x(1)?;
        let edge = ctx.b.op("Gather", &[regions, at], Attributes::none().with("axis", 1));
        let edge = cast_to(ctx, edge, dtype);
        let edge = ctx.b.unsqueeze(edge, &[2]);
        let scaled = if scale == 1.0 { edge } else { ctx.b.scale(edge, scale) };
        Ok(if half { ctx.b.shift(scaled, -0.5) } else { scaled })
    };
    let (start, end) = (edge(ctx, axis)?, edge(ctx, axis + 2)?);
    let mut length = ctx.b.sub(end, start);
    if !half {
        let one = ctx.b.like(length, 1.0);
        length = ctx.b.op("Max", &[length, one], Attributes::none());
    }
    let cell = ctx.b.scale(length, 1.0 / count as f64);
    let (samples, numbers) = if ratio > 0 {
        let numbers: Vec<f64> = (0..ratio).map(|number| number as f64).collect();
        let numbers = float_constant(ctx, "samples", &[1, 1, numbers.len()], &numbers, dtype);
        (ctx.b.like(cell, ratio as f64), numbers)
    } else {
        let samples = ctx.b.unary("Ceil", cell);
        let most = ctx.b.op("ReduceMax", &[samples], Attributes::none().with("keepdims", 0));
        let most = ctx.b.cast(most, DType::I64);
        let numbers = numbers_below(ctx, most);
        let numbers = ctx.b.unsqueeze(numbers, &[0, 1]);
        (samples, ctx.b.cast(numbers, dtype))
    };
    let one = ctx.b.like(samples, 1.0);
    let divisor = ctx.b.op("Max", &[samples, one], Attributes::none());
    // [R, cells, samples] places along the axis.
    let middle = ctx.b.shift(numbers, 0.5);
    let step = ctx.b.div(cell, divisor);
    let within = ctx.b.mul(middle, step);
    let firsts: Vec<f64> = (0..count).map(|number| number as f64).collect();
    let firsts = float_constant(ctx, "cells", &[1, count, 1], &firsts, dtype);
    let firsts = ctx.b.mul(firsts, cell);
    let firsts = ctx.b.add(firsts, start);
    let places = ctx.b.add(firsts, within);
    let valid = valid(ctx, places, numbers, samples, size);
    let [zero, last] = [0.0, size as f64 - 1.0].map(|number| ctx.b.like(places, number));
    let places = ctx.b.op("Max", &[places, zero], Attributes::none());
    let places = ctx.b.op("Min", &[places, last], Attributes::none());
    let places = ctx.b.unsqueeze(places, &[3]);
    let pixels: Vec<f64> = (0..size).map(|number| number as f64).collect();
    let pixels = float_constant(ctx, "pixels", &[size], &pixels, dtype);
    let distance = ctx.b.sub(places, pixels);
    let distance = ctx.b.unary("Abs", distance);
    let near = ctx.b.op("Sub", &[one, distance], Attributes::none());
    let near = ctx.b.unary("Relu", near);
    let valid = ctx.b.unsqueeze(valid, &[3]);
    let near = ctx.b.mul(near, valid);
    let sums = ctx.b.reduce("ReduceSum", near, &[2], false);
    Ok(ctx.b.div(sums, divisor))
}

/// 1 for the samples that there are and that lie not further than a pixel outside.
fn valid(ctx: &mut Ctx<'_>, places: ValueId, numbers: ValueId, samples: ValueId, size: usize) -> ValueId {
    let above = ctx.b.compare("GreaterOrEqual", places, -1.0);
    let below = ctx.b.compare("LessOrEqual", places, size as f64);
    let there = ctx.b.op("Less", &[numbers, samples], Attributes::none());
    let inside = ctx.b.op("And", &[above, below], Attributes::none());
    let valid = ctx.b.op("And", &[inside, there], Attributes::none());
    let dtype = ctx.dtype(places);
    ctx.b.cast(valid, dtype)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let regions = [[0.3, 0.6, 4.2, 3.9], [-2.5, 1.2, 3.1, 8.4], [1.0, 1.0, 1.4, 1.3], [2.7, 0.1, 9.0, 5.0]];
        let align = |name, images: &[i64; 4]| {
            let regions: Vec<f32> = regions.iter().flatten().copied().collect();
            let case = Case::new(name, "RoiAlign").linear().input(&[2, 3, 5, 6]);
            let case = case.fixed(Tensor::from_vec(&[4, 4], regions)).fixed(Tensor::ints(images));
            case.not_embedded("tract has no RoiAlign").int("output_height", 2).int("output_width", 3)
        };
        check(&[
            align("two samples", &[0, 1, 1, 0]).int("sampling_ratio", 2),
            align("scaled", &[0, 1, 0, 0]).int("sampling_ratio", 3).float("spatial_scale", 0.5),
            align("as many samples as pixels", &[1, 1, 0, 0]),
            align("without half pixels", &[1, 0, 1, 0])
                .int("sampling_ratio", 2)
                .text("coordinate_transformation_mode", "output_half_pixel"),
            align("many samples, without half pixels", &[1, 0, 1, 0])
                .text("coordinate_transformation_mode", "output_half_pixel")
                .opset(21),
            align("symbolic batch", &[0, 1, 1, 0]).int("sampling_ratio", 2).batch(),
        ]);
    }
}
