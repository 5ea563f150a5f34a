//! AffineGrid
//!
//! Forward:  `y[n, p] = theta[n] (base[p], 1)` for every place p of an image, the base running from
//!           -1 to 1 along each axis, the last axis first. With `align_corners` the only place of
//!           an axis of size 1 is at 1, as in ONNX Runtime (PyTorch has 0 there).
//! Backward: `dtheta[n] = dy[n]^T (base, 1)`.
//! Shapes:   theta `[N, d, d+1]`, y `[N, D.., d]`, d 2 or 3; N may be a symbol, D is fixed.
//! Opsets:   20 to 24.
//! <https://onnx.ai/onnx/operators/onnx__AffineGrid.html>

use super::shared::{float_constant, shaped_like};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "AffineGrid",
    opsets: 20..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(theta), InputRule::Constant]),
};

/// Most places of an image.
const LARGEST: usize = 1 << 26;

fn theta(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, theta, y) = (ctx.dy()?, ctx.x(0)?, ctx.y(0)?);
    let mut sizes = ctx.sizes_from(y, 1)?;
    let axes = sizes.pop().unwrap_or(0);
    let count = sizes.iter().try_fold(1usize, |count, size| count.checked_mul(*size));
    let Some(count) = count.filter(|count| sizes.len() == axes && *count <= LARGEST) else {
        return Err(RuleError::Unsupported(format!("{axes} coordinates do not fit an image {sizes:?}")));
    };
    let corners = ctx.attributes().int("align_corners", 0)? == 1;
    let mut base = Vec::with_capacity(count * (axes + 1));
    for place in 0..count {
        let mut rest = place;
        for size in sizes.iter().rev() {
            base.push(coordinate(rest % size, *size, corners));
            rest /= size;
        }
        base.push(1.0);
    }
    let dtype = ctx.dtype(dy);
    let base = float_constant(ctx, "base", &[count, axes + 1], &base, dtype);
    let places = ctx.b.reshape(dy, &[0, count as i64, axes as i64]);
    let places = ctx.b.transpose(places, &[0, 2, 1]);
    let dtheta = ctx.b.op("MatMul", &[places, base], Attributes::none());
    Ok(shaped_like(ctx, dtheta, theta))
}

fn coordinate(at: usize, size: usize, corners: bool) -> f64 {
    match (corners, size) {
        (true, 1) => 1.0,
        (true, size) => 2.0 * at as f64 / (size - 1) as f64 - 1.0,
        (false, size) => (2 * at + 1) as f64 / size as f64 - 1.0,
    }
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let grid = |name, axes: usize, size: &[i64]| {
            let case = Case::new(name, "AffineGrid").opset(20).linear().input(&[size[0] as usize, axes, axes + 1]);
            case.fixed(Tensor::ints(size)).not_embedded("tract has no AffineGrid")
        };
        check(&[
            grid("2d", 2, &[2, 3, 4, 5]),
            grid("2d, corners", 2, &[2, 3, 4, 5]).int("align_corners", 1),
            grid("3d", 3, &[2, 1, 2, 3, 4]),
            grid("3d, corners", 3, &[2, 1, 2, 3, 4]).int("align_corners", 1).opset(21),
            grid("one place", 2, &[1, 1, 1, 3]),
            grid("one place, corners", 2, &[1, 1, 1, 3]).int("align_corners", 1),
            grid("symbolic batch", 2, &[2, 3, 4, 5]).batch(),
        ]);
    }
}
