//! MatMulNBits
//!
//! Forward:  `y = a w^T + bias` with a frozen `w [N, K]` of 2, 4 or 8 bits, quantized in blocks of
//!           `block_size` along K: `w = (q - zero_point) * scale`, one of each for a block.
//! Backward: `da = dy w`, `dbias = sum_to(bias, dy)`. w is unpacked to one byte an element, which ONNX
//!           Runtime does once, and scaled by a DequantizeLinear, which it does not do in advance: no
//!           floating-point copy of the weight outlives a step.
//! Shapes:   a `[.., K]`; leading dimensions may be symbols.
//! Opsets:   14 to 24, in the domain `com.microsoft`.
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits>

use super::shared::{shaped_like, unbroadcast};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, DType, Tensor, ValueId};

const FROZEN: &str = "the weight is quantized; what is trained beside it must be a parameter of its own";

pub static RULE: Rule = Rule {
    domain: "com.microsoft",
    op: "MatMulNBits",
    opsets: 14..=24,
    inputs: Inputs::Fixed(&[
        InputRule::Gradient(input),
        InputRule::Constant,
        InputRule::Missing(FROZEN),
        InputRule::Missing(FROZEN),
        InputRule::Constant,
        InputRule::Gradient(bias),
    ]),
};

/// The sizes that the attributes say.
struct Packed {
    rows: i64,
    columns: i64,
    bits: i64,
    block: i64,
    /// Blocks of a row.
    blocks: i64,
}

fn packed(ctx: &Ctx<'_>) -> Result<Packed, RuleError> {
    let number = |name: &str, default: i64| ctx.attributes().int(name, default);
    let (rows, columns) = (number("N", 0)?, number("K", 0)?);
    let (bits, block) = (number("bits", 4)?, number("block_size", 0)?);
    if rows < 1 || columns < 1 || block < 1 || !matches!(bits, 2 | 4 | 8) {
        return Err(RuleError::Unsupported(format!("N {rows}, K {columns}, {bits} bits in blocks of {block}")));
    }
    if ctx.node().input(4).is_some() {
        return Err(RuleError::Unsupported("the groups of \"g_idx\" are not followed".into()));
    }
    Ok(Packed { rows, columns, bits, block, blocks: (columns - 1) / block + 1 })
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let Packed { rows, columns, bits, block, blocks } = packed(ctx)?;
    let (dy, a, b, scales) = (ctx.dy()?, ctx.x(0)?, ctx.x(1)?, ctx.x(2)?);
    let levels = unpacked(ctx, b, bits);
    let levels = ctx.b.reshape(levels, &[-1, block]);
    let scales = ctx.b.reshape(scales, &[-1]);
    let scales = ctx.b.cast(scales, DType::F32);
    let zero_points = ctx.node().input(3);
    let whole = zero_points.is_none_or(|zero| ctx.dtype(zero) == DType::U8);
    let zero = match zero_points {
        Some(zero) if whole => {
            let zero = unpacked(ctx, zero, bits);
            let per_row = (blocks * bits + 7) / 8 * 8 / bits;
            let zero = ctx.b.reshape(zero, &[rows, per_row]);
            let zero = cut(ctx, zero, blocks, per_row);
            ctx.b.reshape(zero, &[-1])
        }
        _ => {
            let middle = if whole { 1_u8 << (bits - 1) } else { 0 };
            let count = usize::try_from(rows * blocks).unwrap_or_default();
            ctx.b.constant("zero", Tensor::from_vec(&[count], vec![middle; count]))
        }
    };
    let inputs = [levels, scales, zero];
    let mut weight = ctx.b.op("DequantizeLinear", &inputs, Attributes::none().with("axis", 0));
    if let Some(zero) = zero_points.filter(|_| !whole) {
        let zero = ctx.b.cast(zero, DType::F32);
        let zero = ctx.b.reshape(zero, &[-1]);
        let shift = ctx.b.mul(zero, scales);
        let shift = ctx.b.unsqueeze(shift, &[1]);
        weight = ctx.b.sub(weight, shift);
    }
    let weight = ctx.b.reshape(weight, &[rows, blocks * block]);
    let weight = cut(ctx, weight, columns, blocks * block);
    let dtype = ctx.dtype(dy);
    let weight = if dtype == DType::F32 { weight } else { ctx.b.cast(weight, dtype) };
    let da = ctx.b.op("MatMul", &[dy, weight], Attributes::none());
    Ok(shaped_like(ctx, da, a))
}

/// The numbers that are packed into bytes, the lowest bits first, along a new last axis.
fn unpacked(ctx: &mut Ctx<'_>, bytes: ValueId, bits: i64) -> ValueId {
    if bits == 8 {
        return bytes;
    }
    let mask = ctx.b.constant("mask", Tensor::scalar((1_u8 << bits) - 1));
    let mut parts = Vec::new();
    for place in 0..8 / bits {
        let part = if place == 0 {
            bytes
        } else {
            let by = ctx.b.constant("by", Tensor::scalar((place * bits) as u8));
            ctx.b.op("BitShift", &[bytes, by], Attributes::none().with("direction", "RIGHT"))
        };
        let part = ctx.b.op("BitwiseAnd", &[part, mask], Attributes::none());
        parts.push(ctx.b.unsqueeze(part, &[-1]));
    }
    ctx.b.op("Concat", &parts, Attributes::none().with("axis", -1))
}

/// The first `keep` of `all` columns.
fn cut(ctx: &mut Ctx<'_>, value: ValueId, keep: i64, all: i64) -> ValueId {
    if keep == all {
        return value;
    }
    let [start, end, axis] = [0, keep, 1].map(|number| ctx.b.ints("bound", &[number]));
    ctx.b.op("Slice", &[value, start, end, axis], Attributes::none())
}

fn bias(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, bias) = (ctx.dy()?, ctx.x(5)?);
    unbroadcast(ctx, dy, bias)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    fn bytes(shape: &[usize]) -> Tensor {
        let count: usize = shape.iter().product();
        Tensor::from_vec(shape, (0..count).map(|index| (index * 97 % 251) as u8).collect::<Vec<u8>>())
    }

    fn scales(shape: &[usize]) -> Tensor {
        let count: usize = shape.iter().product();
        Tensor::from_vec(shape, (0..count).map(|index| 0.01 + 0.003 * index as f32).collect::<Vec<f32>>())
    }

    /// A product with `w [3, 40]` in blocks of 16, the last of which is half empty.
    fn product(name: &'static str, bits: i64, shape: &[usize]) -> Case {
        let case = Case::new(name, "MatMulNBits").domain("com.microsoft").linear().input(shape);
        let case = case.int("N", 3).int("K", 40).int("bits", bits).int("block_size", 16);
        let case = case.fixed(bytes(&[3, 3, 2 * bits as usize]));
        if bits == 8 { case.not_embedded("tract takes 2 and 4 bits") } else { case }
    }

    #[test]
    fn gradients() {
        let floats = Tensor::from_vec(&[3, 3], vec![7.5_f32, 8.0, 3.25, 1.0, 15.0, 0.0, 9.5, 8.0, 6.0]);
        check(&[
            product("4 bits", 4, &[2, 40]).fixed(scales(&[9])),
            product("4 bits, zero points", 4, &[2, 40]).fixed(scales(&[9])).fixed(bytes(&[6])),
            product("4 bits, real zero points", 4, &[2, 40])
                .fixed(scales(&[3, 3]))
                .fixed(floats)
                .not_embedded("tract takes only packed zero points"),
            product("8 bits", 8, &[2, 40]).fixed(scales(&[9])),
            product("8 bits, zero points", 8, &[2, 40]).fixed(scales(&[9])).fixed(bytes(&[9])),
            product("2 bits", 2, &[2, 40]).fixed(scales(&[9])),
            product("symbols", 4, &[2, 5, 40]).fixed(scales(&[9])).symbols(&[(0, 0, "batch"), (0, 1, "tokens")]),
            product("symbolic batch, bias", 4, &[2, 5, 40])
                .fixed(scales(&[9]))
                .fixed(bytes(&[6]))
                .missing()
                .input(&[3])
                .batch(),
        ]);
    }
}
