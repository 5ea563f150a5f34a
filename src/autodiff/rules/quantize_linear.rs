//! QuantizeLinear
//!
//! Forward:  `y = clamp(round(x / scale) + zero_point)` in the integers of y's dtype.
//! Backward: rounding counts as the identity (straight-through estimator) and clamping as it is:
//!           `dx = dy / scale` and `dscale = sum(-dy x / scale^2)` where `round(x / scale) + zero_point`
//!           lies in the range of the dtype, else 0. dy is floating-point although y is not; with a
//!           `DequantizeLinear` of the same scale behind it, dx is the gradient behind that one.
//! Shapes:   as `DequantizeLinear`.
//! Opsets:   10 to 24 (per axis from 13, blocks from 21), also in the domain `com.microsoft`; to
//!           integers.
//! At kinks: as PyTorch's fake quantization, also for the scale.
//! <https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html>

use super::shared::{Part, masked, reshape_to, shaped_like};
use crate::autodiff::rule::axis;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, DType, Dim, ValueId};

pub static RULE: Rule = rule("");
pub static MICROSOFT: Rule = rule("com.microsoft");

const fn rule(domain: &'static str) -> Rule {
    Rule {
        domain,
        op: "QuantizeLinear",
        opsets: 10..=24,
        inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Gradient(scale), InputRule::Constant]),
    }
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    ctx.once("dx", |ctx| {
        let (dy, x) = (ctx.dy()?, ctx.x(0)?);
        let inside = inside(ctx)?;
        let scale = scale_for_each(ctx)?;
        let passed = masked(ctx, inside, dy);
        let dx = ctx.b.div(passed, scale);
        Ok(shaped_like(ctx, dx, x))
    })
}

fn scale(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dx, ratio) = (input(ctx)?, ratio(ctx)?);
    let product = ctx.b.mul(dx, ratio);
    let grad = ctx.b.unary("Neg", product);
    sum_for_scale(ctx, grad)
}

fn ratio(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    ctx.once("ratio", |ctx| {
        let (x, scale) = (ctx.x(0)?, scale_for_each(ctx)?);
        Ok(ctx.b.div(x, scale))
    })
}

/// Where no clamping takes place.
fn inside(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let y = ctx.y(0)?;
    let (low, high) = match ctx.b.fact(y).dtype {
        Some(DType::I8) => (-128.0, 127.0),
        Some(DType::U8) => (0.0, 255.0),
        Some(DType::I16) => (-32768.0, 32767.0),
        Some(DType::U16) => (0.0, 65535.0),
        Some(DType::Other(21)) => (0.0, 15.0),
        Some(DType::Other(22)) => (-8.0, 7.0),
        Some(other) => return Err(RuleError::Unsupported(format!("the range of {other} is not that of an integer"))),
        None => return Err(RuleError::Unsupported(format!("the dtype of \"{}\" is unknown", ctx.name(y)))),
    };
    let ratio = ratio(ctx)?;
    let mut level = ctx.b.unary("Round", ratio);
    if let Some(zero) = ctx.node().input(2) {
        let dtype = ctx.dtype(level);
        let zero = ctx.b.cast(zero, dtype);
        let zero = for_each(ctx, zero)?;
        level = ctx.b.add(level, zero);
    }
    let above = ctx.b.compare("GreaterOrEqual", level, low);
    let below = ctx.b.compare("LessOrEqual", level, high);
    Ok(ctx.b.op("And", &[above, below], Attributes::none()))
}

/// What the scales of a node are for.
enum Grain {
    Tensor,
    Axis(usize),
    Blocks(usize, i64),
}

fn grain(ctx: &Ctx<'_>) -> Result<Grain, RuleError> {
    let (x, scale) = (ctx.x(0)?, ctx.x(1)?);
    let block = ctx.attributes().int("block_size", 0)?;
    let dims = ctx.dims(scale)?;
    if dims.is_empty() || (block == 0 && dims == [Dim::Known(1)]) {
        return Ok(Grain::Tensor);
    }
    let along = axis(ctx.attributes().int("axis", 1)?, ctx.rank(x)?)?;
    match block {
        0 if dims.len() == 1 => Ok(Grain::Axis(along)),
        1.. => Ok(Grain::Blocks(along, block)),
        _ => Err(RuleError::Unsupported(format!("block_size {block} with a scale of rank {}", dims.len()))),
    }
}

/// Returns the scale so that it broadcasts to input 0.
///
/// # Errors
/// A rank is unknown; blocks divide a size that is not fixed.
pub fn scale_for_each(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    ctx.once("scale", |ctx| {
        let scale = ctx.x(1)?;
        for_each(ctx, scale)
    })
}

fn for_each(ctx: &mut Ctx<'_>, value: ValueId) -> Result<ValueId, RuleError> {
    let x = ctx.x(0)?;
    Ok(match grain(ctx)? {
        Grain::Tensor => value,
        Grain::Axis(along) => {
            let mut shape = vec![1; ctx.rank(x)?];
            shape[along] = -1;
            ctx.b.reshape(value, &shape)
        }
        Grain::Blocks(along, block) => {
            let places: Vec<i64> = (0..fixed_size(ctx, x, along)?).map(|place| place / block).collect();
            let places = ctx.b.ints("blocks", &places);
            ctx.b.op("Gather", &[value, places], Attributes::none().with("axis", along as i64))
        }
    })
}

/// Returns the sums of a value like input 0 over what each scale is for, in the scale's shape.
///
/// # Errors
/// Those of [`scale_for_each`].
pub fn sum_for_scale(ctx: &mut Ctx<'_>, value: ValueId) -> Result<ValueId, RuleError> {
    let (x, scale) = (ctx.x(0)?, ctx.x(1)?);
    let rank = ctx.rank(x)?;
    let axes = |without: Option<usize>| -> Vec<i64> {
        (0..rank).filter(|axis| Some(*axis) != without).map(|axis| axis as i64).collect()
    };
    let sum = match grain(ctx)? {
        Grain::Tensor => {
            let sum = ctx.b.reduce("ReduceSum", value, &axes(None), false);
            ctx.b.reshape_like(sum, scale)
        }
        Grain::Axis(_) if rank == 1 => value,
        Grain::Axis(along) => ctx.b.reduce("ReduceSum", value, &axes(Some(along)), false),
        Grain::Blocks(along, block) => {
            let size = fixed_size(ctx, x, along)?;
            let count = (size + block - 1) / block;
            let mut value = value;
            if count * block > size {
                let mut pads = vec![0; 2 * rank];
                pads[rank + along] = count * block - size;
                let pads = ctx.b.ints("pads", &pads);
                let zero = ctx.b.like(value, 0.0);
                value = ctx.b.op("Pad", &[value, pads, zero], Attributes::none().with("mode", "constant"));
            }
            let mut parts: Vec<Part> = (0..rank).map(|axis| Part::Axis(x, axis)).collect();
            parts[along] = Part::Fixed(count);
            parts.insert(along + 1, Part::Fixed(block));
            let blocks = reshape_to(ctx, value, &parts)?;
            ctx.b.reduce("ReduceSum", blocks, &[along as i64 + 1], false)
        }
    };
    Ok(shaped_like(ctx, sum, scale))
}

fn fixed_size(ctx: &Ctx<'_>, x: ValueId, along: usize) -> Result<i64, RuleError> {
    let dims = ctx.dims(x)?;
    let size = dims.get(along).and_then(Dim::known).and_then(|size| i64::try_from(size).ok());
    size.ok_or_else(|| RuleError::NoShape {
        value: ctx.name(x),
        dims: along.to_string(),
        found: ctx.b.fact(x).to_string(),
    })
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::gradients;
    use crate::graph::{Attributes, Builder, Fact, Model, OpId, Tensor, ValueId, check};
    use crate::runner::{evaluate, testing};

    /// A value that is quantized and dequantized, and the gradients of `sum(weights * y)`.
    struct Case {
        name: &'static str,
        domain: &'static str,
        opset: i64,
        attributes: Attributes,
        x: Tensor,
        scale: Tensor,
        zero: Option<Tensor>,
        weights: Tensor,
        dx: Vec<f32>,
        dscale: Vec<f32>,
    }

    fn floats(shape: &[usize], values: &[f32]) -> Tensor {
        Tensor::from_vec(shape, values.to_vec())
    }

    fn gradients_of(case: &Case) -> [Vec<f32>; 2] {
        let mut b = Builder::new("pair");
        let x = b.input("x", Fact::fixed(case.x.dtype(), case.x.shape()));
        let scale = b.input("scale", Fact::fixed(case.scale.dtype(), case.scale.shape()));
        let weights = b.initializer("weights", case.weights.clone());
        let zero = case.zero.clone().map(|zero| b.initializer("zero", zero));
        let apply = |b: &mut Builder, name: &str, x: ValueId| {
            let mut inputs = vec![Some(x), Some(scale)];
            inputs.extend(zero.map(Some));
            let op = OpId { domain: case.domain.into(), name: name.into() };
            b.ops(&op, &inputs, case.attributes.clone(), 1)[0]
        };
        let q = apply(&mut b, "QuantizeLinear", x);
        let [start, end, axis] = [0, i64::MAX, -1].map(|number| b.ints("bound", &[number]));
        let q = b.op("Slice", &[q, start, end, axis], Attributes::none());
        let y = apply(&mut b, "DequantizeLinear", q);
        let product = b.mul(y, weights);
        let axes: Vec<i64> = (0..case.x.shape().len() as i64).collect();
        let loss = b.reduce("ReduceSum", product, &axes, false);
        let grads = gradients(&mut b, case.opset, loss, &[x, scale]).unwrap();
        b.output(grads[0].unwrap(), "dx");
        b.output(grads[1].unwrap(), "dscale");
        let graph = b.finish();
        check(&graph).unwrap();
        let opsets = [(String::new(), case.opset), ("com.microsoft".to_string(), 1)].into();
        let model = Model { graph, opsets, ir_version: 10, ..Model::default() };
        let feeds = [("x", &case.x), ("scale", &case.scale)];
        let found = evaluate(&mut testing::onnxruntime(), &model, &feeds).unwrap();
        assert_eq!(found[0].shape(), case.x.shape(), "{}", case.name);
        assert_eq!(found[1].shape(), case.scale.shape(), "{}", case.name);
        [found[0].to_vec().unwrap(), found[1].to_vec().unwrap()]
    }

    #[test]
    fn pairs_are_differentiated_as_pytorch_does() {
        let row = [-1.0, -0.65, -0.64, 0.0, 0.05, 0.33, 0.635, 0.64, 1.0];
        let count = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
        let inside = vec![0.0, 0.0, 3.0, 4.0, 5.0, 6.0, 7.0, 0.0, 0.0];
        let whole = |name, scale: &[usize], zero: Option<Tensor>| Case {
            name,
            domain: "",
            opset: 18,
            attributes: Attributes::none(),
            x: floats(&[9], &row),
            scale: floats(scale, &[0.005]),
            zero,
            weights: floats(&[9], &count),
            dx: inside.clone(),
            dscale: vec![1775.0],
        };
        let rows = |name, domain, opset, axis: i64, turned: bool| {
            let turn = |values: [f32; 6]| match turned {
                true => vec![values[0], values[3], values[1], values[4], values[2], values[5]],
                false => values.to_vec(),
            };
            let shape = if turned { [3, 2] } else { [2, 3] };
            Case {
                name,
                domain,
                opset,
                attributes: Attributes::none().with("axis", axis),
                x: floats(&shape, &turn([-0.4, 0.1, 0.7, 0.2, 2.6, -0.3])),
                scale: floats(&[2], &[0.004, 0.01]),
                zero: Some(Tensor::from_vec(&[2], vec![100_u8, 3])),
                weights: floats(&shape, &turn([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])),
                dx: turn([1.0, 2.0, 0.0, 4.0, 0.0, 0.0]),
                dscale: vec![465.0, 1242.0],
            }
        };
        let cases = [
            whole("whole tensor", &[], Some(Tensor::scalar(0_i8))),
            whole("scale in a list", &[1], Some(Tensor::from_vec(&[1], vec![0_i8]))),
            Case {
                x: floats(&[4], &[-0.1, -0.002, 0.4, 1.3]),
                weights: floats(&[4], &[1.0, 2.0, 3.0, 4.0]),
                dx: vec![0.0, 2.0, 3.0, 0.0],
                dscale: vec![2.0 * 0.4 + 4.0 * 255.0],
                ..whole("no zero point", &[], None)
            },
            rows("per row", "", 18, 0, false),
            rows("per column", "", 19, -1, true),
            rows("domain of ONNX Runtime", "com.microsoft", 18, 0, false),
            Case {
                attributes: Attributes::none().with("axis", 1).with("block_size", 2),
                scale: floats(&[2, 2], &[0.01, 0.02, 0.01, 0.05]),
                zero: Some(Tensor::from_vec(&[2, 2], vec![0_i8; 4])),
                dx: vec![1.0, 2.0, 3.0, 4.0, 0.0, 6.0],
                dscale: vec![0.0, 0.0, 635.0, 0.0],
                ..rows("in blocks", "", 21, 0, false)
            },
        ];
        let mut failures = Vec::new();
        for case in &cases {
            let [dx, dscale] = gradients_of(case);
            let close = |found: &[f32], expected: &[f32]| {
                found.len() == expected.len()
                    && found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-4 * (1.0 + b.abs()))
            };
            if !close(&dx, &case.dx) || !close(&dscale, &case.dscale) {
                failures.push(format!("{}: {dx:?} {dscale:?}", case.name));
            }
        }
        assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    }
}
