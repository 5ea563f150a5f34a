//! LpPool
//!
//! Forward:  `y[o] = (sum of |x|^p over window o)^(1/p)`.
//! Backward: `dx = sign(x) |x|^(p-1) (dy y^(1-p) added to all elements of its window)`.
//! Shapes:   x `[N, C, D..]`, y `[N, C, O..]`; N and C may be symbols, D and O are fixed.
//! Opsets:   7 to 24 (`dilations` and `ceil_mode` from 18).
//! At kinks: 0 where a window holds only zeros, and for p = 1 where x is 0.
//! <https://onnx.ai/onnx/operators/onnx__LpPool.html>

use super::average_pool::spread;
use super::shared::{Window, shaped_like};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule =
    Rule { domain: "", op: "LpPool", opsets: 7..=24, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (x, y) = (ctx.x(0)?, ctx.y(0)?);
    let plane = ctx.sizes_from(x, 2)?;
    let pooled: Vec<i64> = ctx.sizes_from(y, 2)?.iter().map(|size| *size as i64).collect();
    let kernel = ctx.attributes().ints("kernel_shape")?.unwrap_or_default();
    if kernel.len() != plane.len() {
        let reason = format!("kernel_shape has {} entries for {} spatial axes", kernel.len(), plane.len());
        return Err(RuleError::Unsupported(reason));
    }
    let window = Window::read(ctx.attributes(), kernel, &plane)?;
    let share = share(ctx)?;
    let spread = spread(ctx, share, &window, &plane, &pooled, 1.0);
    let spread = ctx.b.reshape_like(spread, x);
    let slope = slope(ctx)?;
    let dx = ctx.b.mul(slope, spread);
    Ok(shaped_like(ctx, dx, x))
}

/// Returns `dy y^(1-p)`, and dy where y is 0.
pub(super) fn share(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, y) = (ctx.dy()?, ctx.y(0)?);
    let power = match order(ctx)? {
        1 => return Ok(dy),
        2 => y,
        3 => ctx.b.mul(y, y),
        p => {
            let exponent = ctx.b.like(y, (p - 1) as f64);
            ctx.b.op("Pow", &[y, exponent], Attributes::none())
        }
    };
    let nothing = ctx.b.compare("Equal", power, 0.0);
    let one = ctx.b.like(power, 1.0);
    let power = ctx.b.select(nothing, one, power);
    Ok(ctx.b.div(dy, power))
}

/// Returns `sign(x) |x|^(p-1)`.
pub(super) fn slope(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let x = ctx.x(0)?;
    let p = order(ctx)?;
    if p == 2 {
        return Ok(x);
    }
    if p == 1 {
        return Ok(ctx.b.unary("Sign", x));
    }
    let size = ctx.b.unary("Abs", x);
    if p == 3 {
        return Ok(ctx.b.mul(x, size));
    }
    let exponent = ctx.b.like(x, (p - 2) as f64);
    let power = ctx.b.op("Pow", &[size, exponent], Attributes::none());
    Ok(ctx.b.mul(x, power))
}

fn order(ctx: &Ctx<'_>) -> Result<i64, RuleError> {
    match ctx.attributes().int("p", 2)? {
        p if (1..=64).contains(&p) => Ok(p),
        p => Err(RuleError::Unsupported(format!("the norm of order {p} is not known, 1 to 64 are"))),
    }
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    const LACKING: &str = "tract has no LpPool";

    #[test]
    fn gradients() {
        let pool = |name, kernel: &[i64]| {
            Case::new(name, "LpPool").away_from_zero_for(kernel).ints("kernel_shape", kernel).not_embedded(LACKING)
        };
        check(&[
            pool("1d", &[2]).ints("strides", &[2]),
            pool("2d", &[2, 3]).ints("strides", &[2, 1]),
            pool("3d", &[2, 1, 2]).ints("strides", &[2, 1, 1]),
            pool("sums of sizes", &[3, 3]).int("p", 1).ints("pads", &[1, 0, 2, 1]),
            pool("cubes", &[3, 2]).int("p", 3).ints("pads", &[1, 0, 2, 1]),
            pool("of order 5", &[3, 2]).int("p", 5).ints("strides", &[1, 2]),
            pool("dilated", &[2, 2]).ints("dilations", &[3, 2]),
            pool("ceil", &[3, 3]).ints("strides", &[2, 2]).int("ceil_mode", 1),
            pool("ceil, padded", &[2, 3]).ints("strides", &[2, 3]).int("ceil_mode", 1).ints("pads", &[1, 1, 0, 1]),
            pool("same upper", &[3, 2]).ints("strides", &[2, 1]).text("auto_pad", "SAME_UPPER"),
            pool("same lower", &[2, 2]).text("auto_pad", "SAME_LOWER"),
            pool("valid", &[2, 2]).ints("strides", &[2, 2]).text("auto_pad", "VALID"),
            pool("symbolic batch", &[2, 2]).batch(),
            pool("newest", &[2, 2]).opset(21).int("p", 3),
        ]);
    }

    #[test]
    fn special_values() {
        let line = |name, p: i64, values: &[f32; 4]| {
            let case = Case::new(name, "LpPool").values(&[1, 1, 4], values).int("p", p);
            case.ints("kernel_shape", &[2]).not_embedded(LACKING)
        };
        check(&[
            line("as PyTorch, 1", 1, &[1.0, -2.0, 3.0, 0.5]).expect(0, &[1.0, -2.0, 2.0, 1.0]),
            line("as PyTorch, 2", 2, &[1.0, -2.0, 3.0, 0.5])
                .expect(0, &[0.447_213_6, -1.449_127_4, 1.818_452_2, 0.164_398_98]),
            line("as PyTorch, 3", 3, &[1.0, -2.0, 3.0, 0.5])
                .expect(0, &[0.231_120_44, -1.298_317_9, 1.838_056_8, 0.027_692_374]),
            line("only zeros", 2, &[0.0, 0.0, 0.0, 2.0]).expect(0, &[0.0, 0.0, 0.0, 1.0]),
            line("only zeros, 1", 1, &[0.0, 0.0, 0.0, 2.0]).expect(0, &[0.0, 0.0, 0.0, 1.0]),
        ]);
    }

    impl Case {
        fn away_from_zero_for(self, kernel: &[i64]) -> Case {
            let shape: &[usize] = match kernel.len() {
                1 => &[2, 3, 7],
                2 => &[2, 2, 6, 7],
                _ => &[1, 2, 4, 3, 4],
            };
            self.away_from_zero(shape, 0.2)
        }
    }
}
