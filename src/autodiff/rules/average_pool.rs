//! AveragePool
//!
//! Forward:  `y[o] = sum of x over window o / count(o)`.
//! Backward: `dx = ConvTranspose(dy / count, ones)` on a `[N C, 1, O..]` view; where every window
//!           has the same count, it is part of the kernel.
//! Shapes:   x `[N, C, D..]`, y `[N, C, O..]`; N and C may be symbols, D and O are fixed.
//! Opsets:   7 to 24 (`ceil_mode` from 10, `dilations` from 19).
//! Counts:   without `count_include_pad` the elements of x in the window, with it also the
//!           padding, but never what `ceil_mode` lets hang over the padding, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__AveragePool.html>

use super::shared::{Window, float_constant, shaped_like};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Tensor, ValueId};

pub static RULE: Rule =
    Rule { domain: "", op: "AveragePool", opsets: 7..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x, y) = (ctx.dy()?, ctx.x(0)?, ctx.y(0)?);
    let plane = ctx.sizes_from(x, 2)?;
    let pooled: Vec<i64> = ctx.sizes_from(y, 2)?.iter().map(|size| *size as i64).collect();
    let window = super::max_pool::window(ctx)?;
    let padded = ctx.attributes().int("count_include_pad", 0)? == 1;
    let counts = counts(&window, &plane, &pooled, padded);
    let even = counts.iter().all(|count| *count == counts[0]);
    let mut weight = 1.0;
    let mut grads = dy;
    if even {
        weight = 1.0 / counts[0].max(1) as f64;
    } else {
        let shape: Vec<usize> = [1, 1].into_iter().chain(pooled.iter().map(|size| *size as usize)).collect();
        let inverse: Vec<f64> = counts.iter().map(|count| 1.0 / (*count).max(1) as f64).collect();
        let dtype = ctx.dtype(dy);
        let inverse = float_constant(ctx, "inverse_count", &shape, &inverse, dtype);
        grads = ctx.b.mul(grads, inverse);
    }
    let dx = spread(ctx, grads, &window, &plane, &pooled, weight);
    let dx = ctx.b.reshape_like(dx, x);
    Ok(shaped_like(ctx, dx, x))
}

/// Adds every element of `grads`, times `weight`, to all elements of its window in planes of sizes
/// `plane`. The result is `[N C, 1, D..]`.
pub(super) fn spread(
    ctx: &mut Ctx<'_>,
    grads: ValueId,
    window: &Window,
    plane: &[usize],
    pooled: &[i64],
    weight: f64,
) -> ValueId {
    let dtype = ctx.dtype(grads);
    let grads = ctx.b.reshape(grads, &[&[-1, 1], pooled].concat());
    let shape: Vec<usize> = [1, 1].into_iter().chain(window.kernel.iter().map(|size| *size as usize)).collect();
    let kernel = ctx.b.constant("kernel", Tensor::float_full(dtype, &shape, weight));
    let mut end = Vec::new();
    let mut output_padding = Vec::new();
    for (axis, size) in plane.iter().enumerate() {
        let reach = window.strides[axis] * (pooled[axis] - 1) + window.extent(axis);
        let beyond = reach - window.begin[axis] - *size as i64;
        end.push(beyond.max(0));
        output_padding.push((-beyond).max(0));
    }
    let attributes =
        Window { end, ..window.clone() }.attributes().with("group", 1).with("output_padding", output_padding);
    ctx.b.op("ConvTranspose", &[grads, kernel], attributes)
}

/// The number of elements that each window is divided by, in row-major order.
fn counts(window: &Window, plane: &[usize], pooled: &[i64], padded: bool) -> Vec<i64> {
    let mut all = vec![1];
    for (axis, size) in plane.iter().enumerate() {
        let size = *size as i64;
        let (low, high) = if padded { (-window.begin[axis], size + window.end[axis]) } else { (0, size) };
        let along = (0..pooled[axis]).map(|output| {
            let first = output * window.strides[axis] - window.begin[axis];
            let positions = (0..window.kernel[axis]).map(|tap| first + tap * window.dilations[axis]);
            positions.filter(|position| (low..high).contains(position)).count() as i64
        });
        let along: Vec<i64> = along.collect();
        all = all.iter().flat_map(|before| along.iter().map(move |count| before * count)).collect();
    }
    all
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let pool = |name, kernel: &[i64]| Case::new(name, "AveragePool").linear().ints("kernel_shape", kernel);
        let ceil = |name, kernel: &[i64]| pool(name, kernel).int("ceil_mode", 1).ints("strides", &[2, 3]);
        check(&[
            pool("1d", &[2]).input(&[2, 3, 7]).ints("strides", &[2]),
            pool("2d", &[2, 2]).input(&[2, 3, 4, 6]).ints("strides", &[2, 2]),
            pool("3d", &[2, 1, 2]).input(&[1, 2, 4, 3, 4]).ints("strides", &[2, 1, 1]),
            pool("padded", &[3, 3]).input(&[2, 2, 6, 7]).ints("strides", &[2, 2]).ints("pads", &[1, 1, 1, 1]),
            pool("counting pads", &[3, 2])
                .input(&[2, 2, 6, 7])
                .ints("pads", &[1, 0, 2, 1])
                .ints("strides", &[2, 1])
                .int("count_include_pad", 1),
            pool("dilated", &[2, 3])
                .opset(19)
                .input(&[2, 2, 6, 8])
                .ints("dilations", &[3, 2])
                .ints("pads", &[1, 1, 1, 1]),
            pool("dilated, counting pads", &[2, 3])
                .opset(19)
                .input(&[2, 2, 6, 8])
                .ints("dilations", &[3, 2])
                .ints("pads", &[1, 1, 1, 1])
                .int("count_include_pad", 1),
            ceil("ceil", &[3, 3]).input(&[2, 2, 6, 8]),
            ceil("ceil, padded", &[3, 3]).input(&[2, 2, 6, 8]).ints("pads", &[1, 1, 1, 1]),
            ceil("ceil, counting pads", &[3, 3])
                .input(&[2, 2, 6, 8])
                .ints("pads", &[1, 1, 1, 1])
                .int("count_include_pad", 1),
            pool("same upper", &[3, 2]).input(&[1, 2, 5, 6]).ints("strides", &[2, 1]).text("auto_pad", "SAME_UPPER"),
            pool("same lower", &[2, 2]).input(&[1, 2, 5, 6]).text("auto_pad", "SAME_LOWER"),
            pool("valid", &[2, 2]).input(&[1, 2, 5, 7]).ints("strides", &[2, 2]).text("auto_pad", "VALID"),
            pool("symbolic batch", &[2, 2]).input(&[5, 3, 4, 6]).batch(),
            pool("3d, ceil, uneven pads", &[2, 3, 2])
                .opset(21)
                .input(&[1, 2, 4, 5, 6])
                .ints("strides", &[2, 2, 3])
                .ints("pads", &[1, 0, 1, 0, 1, 0])
                .int("count_include_pad", 1)
                .int("ceil_mode", 1),
            pool("more left over than a stride", &[2]).input(&[1, 1, 9]).ints("strides", &[5]),
            pool("as PyTorch", &[3])
                .input(&[1, 1, 6])
                .ints("strides", &[2])
                .ints("pads", &[1, 1])
                .int("ceil_mode", 1)
                .int("count_include_pad", 1)
                .expect(0, &[1.0 / 3.0, 2.0 / 3.0, 1.0 / 3.0, 2.0 / 3.0, 1.0 / 3.0, 5.0 / 6.0]),
        ]);
    }
}
