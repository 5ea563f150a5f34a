//! Col2Im
//!
//! Forward:  `y` = blocks added up at their places in an image; what falls on padding is dropped.
//! Backward: `dx` = the blocks of dy: a convolution of each channel by the elements of a block.
//! Shapes:   x `[N, C b.., L]`, y `[N, C, D..]`; N and C may be symbols, image and block are
//!           constant.
//! Opsets:   18 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Col2Im.html>

use super::shared::{Window, float_constant, shaped_like};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = Rule {
    domain: "",
    op: "Col2Im",
    opsets: 18..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant, InputRule::Constant]),
};

/// Most elements of a block.
const LARGEST: usize = 4096;

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x, y) = (ctx.dy()?, ctx.x(0)?, ctx.y(0)?);
    let image = ctx.sizes_from(y, 2)?;
    let block = ctx.constant_ints(2)?.unwrap_or_default();
    let sizes: Vec<usize> = block.iter().filter_map(|size| usize::try_from(*size).ok()).collect();
    let count = sizes.iter().try_fold(1usize, |count, size| count.checked_mul(*size));
    let Some(count) = count.filter(|count| sizes.len() == image.len() && *count <= LARGEST) else {
        return Err(RuleError::Unsupported(format!("a block {block:?} does not fit an image {image:?}")));
    };
    let window = Window::read(ctx.attributes(), block, &image)?;
    let one = |at: usize| if at.is_multiple_of(count + 1) { 1.0 } else { 0.0 };
    let elements: Vec<f64> = (0..count * count).map(one).collect();
    let dtype = ctx.dtype(dy);
    let shape: Vec<usize> = [count, 1].into_iter().chain(sizes).collect();
    let kernel = float_constant(ctx, "kernel", &shape, &elements, dtype);
    let planes: Vec<i64> = [-1, 1].into_iter().chain(image.iter().map(|size| *size as i64)).collect();
    let planes = ctx.b.reshape(dy, &planes);
    let blocks = ctx.b.op("Conv", &[planes, kernel], window.attributes());
    let dx = ctx.b.reshape_like(blocks, x);
    Ok(shaped_like(ctx, dx, x))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let case = |name, x: &[usize], image: &[i64], block: &[i64]| {
            let case = Case::new(name, "Col2Im").linear().input(x).fixed(Tensor::ints(image));
            case.fixed(Tensor::ints(block)).not_embedded("tract has no Col2Im")
        };
        check(&[
            case("apart", &[2, 12, 4], &[4, 6], &[2, 3]).ints("strides", &[2, 3]),
            case("overlapping", &[1, 8, 12], &[4, 5], &[2, 2]),
            case("padded", &[1, 8, 20], &[3, 4], &[2, 2]).ints("pads", &[1, 1, 1, 1]).batch(),
            case("uneven pads", &[1, 8, 15], &[3, 4], &[2, 2]).ints("pads", &[1, 0, 0, 2]),
            case("dilated, strided", &[1, 4, 9], &[6, 7], &[2, 2]).ints("dilations", &[1, 2]).ints("strides", &[2, 2]),
            case("1d", &[2, 6, 4], &[6], &[3]).opset(21),
            case("3d", &[1, 8, 4], &[3, 2, 3], &[2, 2, 2]),
        ]);
    }
}
