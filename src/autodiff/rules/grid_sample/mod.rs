//! GridSample
//!
//! Forward:  `y[n, c, p] = sum over taps t of w_t(grid[n, p]) x[n, c, pixel_t]`.
//! Backward: `dx` = `w dy` added up at the pixels;
//!           `dgrid = sum over c and t of dw_t/dgrid x[n, c, pixel_t] dy[n, c, p]`.
//! Shapes:   x `[N, C, D..]`, grid `[N, O.., d]`, y `[N, C, O..]`, d 2 or 3; D is fixed, for the
//!           gradient of the grid also C; N and O may be symbols.
//! Opsets:   16 to 24 (modes `bilinear` and `bicubic` to 19, `linear`, `cubic` and 5-d from 20).
//! At kinks: as PyTorch: at a pixel the slope to the next one; with padding by pixels 0 at an
//!           outermost pixel and beyond it; the grid's gradient is 0 in mode `nearest`.
//! <https://onnx.ai/onnx/operators/onnx__GridSample.html>

pub(super) mod samples;

use super::shared::shaped_like;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;
use samples::{Filter, Padding, Samples, Unit};

pub static RULE: Rule = Rule {
    domain: "",
    op: "GridSample",
    opsets: 16..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Gradient(grid)]),
};

fn samples(ctx: &mut Ctx<'_>) -> Result<Samples, RuleError> {
    let unknown = |name: &str, value: &str| RuleError::Unsupported(format!("{name} \"{value}\" is not known"));
    let (image, grid) = (ctx.x(0)?, ctx.x(1)?);
    let sizes: Vec<i64> = ctx.sizes_from(image, 2)?.iter().map(|size| *size as i64).collect();
    let filter = match ctx.attributes().text("mode", "linear")?.as_str() {
        "nearest" => Filter::Nearest,
        "linear" | "bilinear" => Filter::Linear,
        "cubic" | "bicubic" => Filter::Cubic,
        other => return Err(unknown("mode", other)),
    };
    let padding = match ctx.attributes().text("padding_mode", "zeros")?.as_str() {
        "zeros" => Padding::Zeros,
        "border" => Padding::Border,
        "reflection" => Padding::Reflection,
        other => return Err(unknown("padding_mode", other)),
    };
    let count = sizes.iter().try_fold(1i64, |count, size| count.checked_mul(*size));
    if !(1..=3).contains(&sizes.len()) || count.is_none_or(|count| count == 0) {
        return Err(RuleError::Unsupported(format!("an image of sizes {sizes:?}")));
    }
    let unit = if ctx.attributes().int("align_corners", 0)? == 1 { Unit::Corners } else { Unit::Edges };
    let places = [0, -1, sizes.len() as i64];
    let grid = ctx.once("grid", |ctx| Ok(ctx.b.reshape(grid, &places)))?;
    Ok(Samples { image, grid, sizes, filter, padding, unit })
}

/// The gradient of y as `[N, C, P]`.
fn flat_gradient(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    ctx.once("dy", |ctx| {
        let dy = ctx.dy()?;
        Ok(ctx.b.reshape(dy, &[0, 0, -1]))
    })
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (samples, dy, x) = (samples(ctx)?, flat_gradient(ctx)?, ctx.x(0)?);
    let dx = samples.image_gradient(ctx, dy)?;
    let dx = ctx.b.reshape_like(dx, x);
    Ok(shaped_like(ctx, dx, x))
}

fn grid(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (samples, dy, grid) = (samples(ctx)?, flat_gradient(ctx)?, ctx.x(1)?);
    let dgrid = samples.grid_gradient(ctx, dy)?;
    let dgrid = ctx.b.reshape_like(dgrid, grid);
    Ok(shaped_like(ctx, dgrid, grid))
}

#[cfg(all(test, feature = "runner"))]
mod tests;
