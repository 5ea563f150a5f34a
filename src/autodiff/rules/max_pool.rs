//! MaxPool
//!
//! Forward:  `y[o]` = maximum of x over window o; padding never wins.
//! Backward: `dx[argmax(o)] += dy[o]`, the positions from the Indices output, which the
//!           node gets, modulo the plane (engines count from the tensor's or the plane's start).
//! Shapes:   x `[N, C, D..]`, y `[N, C, O..]`; N and C may be symbols, D and O are fixed.
//! Opsets:   7 to 24.
//! At kinks: the first maximum of a window takes all, as PyTorch.
//! <https://onnx.ai/onnx/operators/onnx__MaxPool.html>

use super::shared::{Window, shaped_like};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, DType, Dim, Fact, OpId, ValueId};

pub static RULE: Rule =
    Rule { domain: "", op: "MaxPool", opsets: 7..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

/// Returns the window of a pooling.
///
/// # Errors
/// A size or an attribute is not known.
pub fn window(ctx: &Ctx<'_>) -> Result<Window, RuleError> {
    let plane = ctx.sizes_from(ctx.x(0)?, 2)?;
    let kernel = ctx.attributes().ints("kernel_shape")?.unwrap_or_default();
    if kernel.len() != plane.len() {
        let reason = format!("kernel_shape has {} entries for {} spatial axes", kernel.len(), plane.len());
        return Err(RuleError::Unsupported(reason));
    }
    Window::read(ctx.attributes(), kernel, &plane)
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x, y) = (ctx.dy()?, ctx.x(0)?, ctx.y(0)?);
    let plane = ctx.sizes_from(x, 2)?;
    let window = window(ctx)?;
    let found = match ctx.attributes().int("storage_order", 0)? {
        0 => ctx.exposed(1, Fact { dtype: Some(DType::I64), shape: ctx.b.fact(y).shape.clone() }),
        _ => by_row(ctx, x)?,
    };
    let (inputs, outputs) = (count(&plane), count(&ctx.sizes_from(y, 2)?));
    let size = ctx.b.ints("plane", &[inputs]);
    let positions = ctx.b.op("Mod", &[found, size], Attributes::none());
    let positions = ctx.b.reshape(positions, &[-1, outputs]);
    let updates = ctx.b.reshape(dy, &[-1, outputs]);
    let zeros = zeros(ctx, updates, inputs);
    let overlap = (0..window.kernel.len()).any(|axis| window.strides[axis] < window.extent(axis));
    let reduction = if overlap { "add" } else { "none" };
    let attributes = Attributes::none().with("axis", 1).with("reduction", reduction);
    let scattered = ctx.b.op("ScatterElements", &[zeros, positions, updates], attributes);
    let dx = ctx.b.reshape_like(scattered, x);
    Ok(shaped_like(ctx, dx, x))
}

/// Zeros of as many rows as a matrix has.
fn zeros(ctx: &mut Ctx<'_>, like: ValueId, columns: i64) -> ValueId {
    let rows = ctx.b.fact(like).dim(0).and_then(Dim::known).map(|rows| rows as i64);
    let shape = match rows {
        Some(rows) => ctx.b.ints("shape", &[rows, columns]),
        None => {
            let rows = ctx.b.op("Shape", &[like], Attributes::none().with("start", 0).with("end", 1));
            let columns = ctx.b.ints("columns", &[columns]);
            ctx.b.op("Concat", &[rows, columns], Attributes::none().with("axis", 0))
        }
    };
    let zero = ctx.b.like(like, 0.0);
    ctx.b.op("Expand", &[zero, shape], Attributes::none())
}

/// Positions counted along rows, from a second MaxPool: the node counts its own along columns.
fn by_row(ctx: &mut Ctx<'_>, x: ValueId) -> Result<ValueId, RuleError> {
    let mut attributes = ctx.attributes().clone();
    attributes.remove("storage_order");
    Ok(ctx.b.ops(&OpId::standard("MaxPool"), &[Some(x)], attributes, 2)[1])
}

fn count(sizes: &[usize]) -> i64 {
    sizes.iter().map(|size| *size as i64).product()
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let pool = |name, kernel: &[i64]| Case::new(name, "MaxPool").ints("kernel_shape", kernel);
        check(&[
            pool("1d", &[2]).distinct(&[2, 3, 7]).ints("strides", &[2]),
            pool("2d", &[2, 2]).distinct(&[2, 3, 4, 6]).ints("strides", &[2, 2]),
            pool("3d", &[2, 1, 2]).distinct(&[1, 2, 4, 3, 4]).ints("strides", &[2, 1, 1]),
            pool("overlapping, padded", &[3, 3])
                .distinct(&[2, 2, 6, 7])
                .ints("strides", &[2, 2])
                .ints("pads", &[1, 1, 1, 1]),
            pool("uneven pads", &[3, 2]).distinct(&[1, 2, 5, 5]).ints("pads", &[2, 0, 1, 1]),
            pool("dilated", &[2, 3]).distinct(&[2, 2, 6, 7]).ints("dilations", &[3, 2]),
            pool("ceil", &[3, 3]).distinct(&[2, 2, 6, 8]).ints("strides", &[2, 2]).int("ceil_mode", 1),
            pool("ceil, padded", &[2, 2])
                .distinct(&[1, 2, 5, 6])
                .ints("strides", &[2, 3])
                .ints("pads", &[1, 0, 0, 1])
                .int("ceil_mode", 1),
            pool("same upper", &[3, 2]).distinct(&[1, 2, 5, 6]).ints("strides", &[2, 1]).text("auto_pad", "SAME_UPPER"),
            pool("same lower", &[2, 2]).distinct(&[1, 2, 5, 6]).text("auto_pad", "SAME_LOWER"),
            pool("valid", &[2, 2]).distinct(&[1, 2, 5, 6]).ints("strides", &[2, 2]).text("auto_pad", "VALID"),
            pool("symbolic batch", &[2, 2]).distinct(&[5, 3, 4, 6]).batch(),
            pool("with indices", &[3, 3]).distinct(&[2, 2, 6, 7]).ints("strides", &[2, 2]).outputs(2).batch(),
            pool("with indices by columns", &[2, 3])
                .distinct(&[2, 2, 6, 7])
                .outputs(2)
                .int("storage_order", 1)
                .not_embedded("tract knows no other order"),
            pool("newest", &[2, 2]).opset(21).distinct(&[2, 3, 4, 6]).ints("dilations", &[2, 1]).int("ceil_mode", 1),
            pool("a kernel wider than x", &[5, 3]).distinct(&[1, 2, 4, 4]).ints("pads", &[2, 1, 2, 1]),
            pool("by column", &[2, 2]).distinct(&[1, 2, 4, 6]).int("storage_order", 1),
            pool("ties", &[1, 3])
                .values(&[1, 2, 1, 4], &[1.0, 1.0, 1.0, 0.0, -1.0, 2.0, 2.0, 2.0])
                .expect(0, &[1.0, 1.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0]),
        ]);
    }
}
