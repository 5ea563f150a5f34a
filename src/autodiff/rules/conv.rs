//! Conv
//!
//! Forward:  `y = x (*) w + b`, over 1, 2 or 3 spatial axes.
//! Backward: `dx = ConvTranspose(dy, w)`; `dw` = convolution of the inputs, with batch and channels
//!           exchanged, by `dy` (strides and dilations exchanged, cropped to the kernel);
//!           `db = sum of dy over batch and space`.
//! Shapes:   x `[N, C, D..]`, w `[M, C/group, k..]`, b `[M]`, y `[N, M, O..]`; N may be a symbol, D and O are
//!           fixed.
//! Opsets:   1 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Conv.html>

use super::shared::{Window, shaped_like};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "Conv",
    opsets: 1..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Gradient(weight), InputRule::Gradient(bias)]),
};

/// A convolution with every size fixed but the batch.
pub(super) struct Geometry {
    pub window: Window,
    pub group: i64,
    /// Spatial sizes of the input.
    pub space: Vec<i64>,
    /// Spatial sizes of the output.
    pub output: Vec<i64>,
    /// Shape of the weights.
    pub weight: Vec<i64>,
}

/// Returns the window of a convolution, its groups, and the spatial sizes of its input.
///
/// # Errors
/// A size or an attribute is not known.
pub fn window(ctx: &Ctx<'_>) -> Result<(Window, i64, Vec<i64>), RuleError> {
    let geometry = geometry(ctx)?;
    Ok((geometry.window, geometry.group, geometry.space))
}

fn geometry(ctx: &Ctx<'_>) -> Result<Geometry, RuleError> {
    let (x, w) = (ctx.x(0)?, ctx.x(1)?);
    let space = ctx.sizes_from(x, 2)?;
    let weight: Vec<i64> = ctx.sizes_from(w, 0)?.iter().map(|size| *size as i64).collect();
    if weight.len() != space.len() + 2 {
        let text = format!("the weight has rank {}, the input {}", weight.len(), space.len() + 2);
        return Err(RuleError::Unsupported(text));
    }
    let window = Window::read(ctx.attributes(), weight.get(2..).unwrap_or_default().to_vec(), &space)?;
    let output = (0..space.len())
        .map(|axis| {
            let padded = space[axis] as i64 + window.begin[axis] + window.end[axis];
            (padded - window.extent(axis)) / window.strides[axis] + 1
        })
        .collect();
    let space = space.iter().map(|size| *size as i64).collect();
    Ok(Geometry { window, group: ctx.attributes().int("group", 1)?, space, output, weight })
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let g = geometry(ctx)?;
    let (dy, w) = (ctx.dy()?, ctx.x(1)?);
    let window = &g.window;
    let output_padding: Vec<i64> = (0..g.space.len())
        .map(|axis| {
            let padded = g.space[axis] + window.begin[axis] + window.end[axis];
            (padded - window.extent(axis)) % window.strides[axis]
        })
        .collect();
    let attributes = window.attributes().with("group", g.group).with("output_padding", output_padding);
    let dx = ctx.b.op("ConvTranspose", &[dy, w], attributes);
    let x = ctx.x(0)?;
    Ok(shaped_like(ctx, dx, x))
}

fn weight(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let g = geometry(ctx)?;
    let (dy, x, w) = (ctx.dy()?, ctx.x(0)?, ctx.x(1)?);
    let dw = weight_gradient(ctx, &g, x, dy);
    Ok(shaped_like(ctx, dw, w))
}

/// The gradient to the weights of a convolution of `x` whose output has the gradient `dy`.
pub(super) fn weight_gradient(ctx: &mut Ctx<'_>, g: &Geometry, x: ValueId, dy: ValueId) -> ValueId {
    let rank = g.space.len();
    let mut swap: Vec<i64> = (0..rank as i64 + 2).collect();
    swap.swap(0, 1);
    let per_group = g.weight[1];
    let inputs = if g.group == 1 {
        ctx.b.transpose(x, &swap)
    } else {
        // [N, g, C/g, D..] -> [C/g, g, N, D..] -> [C/g, g*N, D..]
        let split = ctx.b.reshape(x, &[&[0, g.group, per_group], g.space.as_slice()].concat());
        let mut perm: Vec<i64> = (0..rank as i64 + 3).collect();
        perm.swap(0, 2);
        let moved = ctx.b.transpose(split, &perm);
        ctx.b.reshape(moved, &[&[per_group, -1], g.space.as_slice()].concat())
    };
    let kernels = ctx.b.transpose(dy, &swap);
    let attributes = Attributes::none()
        .with("dilations", g.window.strides.clone())
        .with("group", g.group)
        .with("kernel_shape", g.output.clone())
        .with("pads", g.window.pads())
        .with("strides", g.window.dilations.clone());
    let mut dw = ctx.b.op("Conv", &[inputs, kernels], attributes);
    let exact = (0..rank).all(|axis| {
        let reach = (g.output[axis] - 1) * g.window.strides[axis] + 1;
        let padded = g.space[axis] + g.window.begin[axis] + g.window.end[axis];
        (padded - reach) / g.window.dilations[axis] + 1 == g.window.kernel[axis]
    });
    if !exact {
        let starts = ctx.b.ints("starts", &vec![0; rank]);
        let ends = ctx.b.ints("ends", &g.window.kernel);
        let axes = ctx.b.ints("axes", &(2..rank as i64 + 2).collect::<Vec<_>>());
        dw = ctx.b.op("Slice", &[dw, starts, ends, axes], Attributes::none());
    }
    ctx.b.transpose(dw, &swap)
}

/// The sum of dy over batch and space.
pub fn bias(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let dy = ctx.dy()?;
    let rank = ctx.rank(dy)? as i64;
    let axes: Vec<i64> = (0..rank).filter(|axis| *axis != 1).collect();
    Ok(ctx.b.reduce("ReduceSum", dy, &axes, false))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let conv = |name| Case::new(name, "Conv").linear();
        check(&[
            conv("1d with bias").input(&[2, 3, 7]).input(&[4, 3, 3]).input(&[4]),
            conv("2d padded").input(&[2, 3, 5, 6]).input(&[4, 3, 3, 3]).ints("pads", &[1, 1, 1, 1]),
            conv("strided, remainder").input(&[2, 2, 6, 7]).input(&[3, 2, 3, 2]).ints("strides", &[2, 3]),
            conv("dilated, uneven pads")
                .input(&[1, 2, 7, 8])
                .input(&[2, 2, 2, 3])
                .ints("dilations", &[2, 3])
                .ints("pads", &[0, 1, 2, 3]),
            conv("grouped").input(&[2, 4, 5, 5]).input(&[6, 2, 3, 3]).int("group", 2).input(&[6]),
            conv("depthwise, strided")
                .input(&[2, 3, 6, 6])
                .input(&[3, 1, 3, 3])
                .int("group", 3)
                .ints("strides", &[2, 2])
                .ints("pads", &[1, 1, 1, 1]),
            conv("1x1, stride 2").input(&[2, 3, 5, 5]).input(&[2, 3, 1, 1]).ints("strides", &[2, 2]),
            conv("3d").input(&[1, 2, 4, 5, 4]).input(&[2, 2, 2, 2, 2]).ints("strides", &[1, 2, 1]),
            conv("same upper")
                .input(&[1, 2, 5, 6])
                .input(&[2, 2, 3, 3])
                .text("auto_pad", "SAME_UPPER")
                .ints("strides", &[2, 2]),
            conv("same lower").input(&[1, 2, 6, 6]).input(&[2, 2, 4, 4]).text("auto_pad", "SAME_LOWER"),
            conv("valid").input(&[1, 2, 6, 6]).input(&[2, 2, 4, 4]).text("auto_pad", "VALID"),
            conv("symbolic batch")
                .input(&[3, 4, 7, 6])
                .input(&[6, 2, 3, 2])
                .input(&[6])
                .int("group", 2)
                .ints("strides", &[3, 2])
                .ints("dilations", &[1, 2])
                .ints("pads", &[1, 0, 2, 1])
                .batch(),
            conv("3d, depthwise, dilated")
                .input(&[2, 2, 4, 5, 4])
                .input(&[4, 1, 2, 2, 3])
                .int("group", 2)
                .ints("dilations", &[1, 2, 1])
                .ints("strides", &[2, 1, 1])
                .ints("pads", &[1, 0, 1, 0, 1, 1])
                .batch(),
            conv("1d, as PyTorch")
                .opset(21)
                .values(&[1, 1, 5], &[1.0, -2.0, 3.0, 0.5, 4.0])
                .values(&[1, 1, 2], &[0.5, -1.5])
                .ints("strides", &[2])
                .ints("pads", &[1, 0])
                .expect(0, &[-1.5, 0.5, -1.5, 0.5, -1.5])
                .expect(1, &[-1.5, 8.0]),
        ]);
    }
}
