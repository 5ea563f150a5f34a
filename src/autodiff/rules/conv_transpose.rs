//! ConvTranspose
//!
//! Forward:  `y` = the gradient to the input of a convolution C with weights w, for an output
//!           gradient x; plus b.
//! Backward: `dx = C(dy)`; `dw` = the gradient to the weights of C for the input dy and the output
//!           gradient x; `db = sum of dy over batch and space`.
//! Shapes:   x `[N, C, D..]`, w `[C, M/group, k..]`, b `[M]`, y `[N, M, O..]`; N may be a symbol, D and O are
//!           fixed.
//! Opsets:   1 to 24; `pads`, `output_padding`, `output_shape` and `auto_pad`.
//! <https://onnx.ai/onnx/operators/onnx__ConvTranspose.html>

use super::conv::{Geometry, bias, weight_gradient};
use super::shared::{Window, shaped_like};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "ConvTranspose",
    opsets: 1..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Gradient(weight), InputRule::Gradient(bias)]),
};

/// The geometry of C, whose input is y and whose output is x.
fn geometry(ctx: &Ctx<'_>) -> Result<Geometry, RuleError> {
    let sizes = |value, from| -> Result<Vec<i64>, RuleError> {
        Ok(ctx.sizes_from(value, from)?.iter().map(|size| *size as i64).collect())
    };
    let (small, large, weight) = (sizes(ctx.x(0)?, 2)?, sizes(ctx.y(0)?, 2)?, sizes(ctx.x(1)?, 0)?);
    if small.len() != large.len() || weight.len() != small.len() + 2 {
        let text = format!("the weight has rank {}, the input {}", weight.len(), small.len() + 2);
        return Err(RuleError::Unsupported(text));
    }
    let attributes = ctx.attributes();
    let mode = attributes.text("auto_pad", "NOTSET")?;
    let mut explicit = attributes.clone();
    explicit.remove("auto_pad");
    let mut window = Window::read(&explicit, weight.get(2..).unwrap_or_default().to_vec(), &[])?;
    if mode == "VALID" {
        window = Window { begin: vec![0; small.len()], end: vec![0; small.len()], ..window };
    } else if mode != "NOTSET" || attributes.ints("output_shape")?.is_some() {
        let more = attributes.ints("output_padding")?.unwrap_or_else(|| vec![0; small.len()]);
        if more.len() != small.len() {
            return Err(RuleError::Unsupported(format!("output_padding has {} entries", more.len())));
        }
        for axis in 0..small.len() {
            let full = window.strides[axis] * (small[axis] - 1) + more[axis] + window.extent(axis);
            let total = (full - large[axis]).max(0);
            window.begin[axis] = if mode == "SAME_UPPER" { total / 2 } else { total - total / 2 };
            window.end[axis] = total - window.begin[axis];
        }
    }
    Ok(Geometry { window, group: attributes.int("group", 1)?, space: large, output: small, weight })
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let g = geometry(ctx)?;
    let (dy, x, w) = (ctx.dy()?, ctx.x(0)?, ctx.x(1)?);
    let attributes = g.window.attributes().with("group", g.group);
    let mut dx = ctx.b.op("Conv", &[dy, w], attributes);
    let beyond = (0..g.space.len()).any(|axis| {
        let padded = g.space[axis] + g.window.begin[axis] + g.window.end[axis];
        (padded - g.window.extent(axis)) / g.window.strides[axis] + 1 != g.output[axis]
    });
    if beyond {
        let rank = g.output.len();
        let starts = ctx.b.ints("starts", &vec![0; rank]);
        let ends = ctx.b.ints("ends", &g.output);
        let axes = ctx.b.ints("axes", &(2..rank as i64 + 2).collect::<Vec<_>>());
        dx = ctx.b.op("Slice", &[dx, starts, ends, axes], Attributes::none());
    }
    Ok(shaped_like(ctx, dx, x))
}

fn weight(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let g = geometry(ctx)?;
    let (dy, x, w) = (ctx.dy()?, ctx.x(0)?, ctx.x(1)?);
    let dw = weight_gradient(ctx, &g, dy, x);
    Ok(shaped_like(ctx, dw, w))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let conv = |name| Case::new(name, "ConvTranspose").linear();
        let square = |name| conv(name).input(&[2, 3, 4, 5]).input(&[3, 2, 3, 3]);
        check(&[
            conv("1d with bias").input(&[2, 3, 5]).input(&[3, 4, 3]).input(&[4]),
            square("plain"),
            square("strided, padded").ints("strides", &[2, 3]).ints("pads", &[1, 0, 1, 2]),
            square("output padding")
                .ints("strides", &[2, 3])
                .ints("pads", &[1, 1, 1, 1])
                .ints("output_padding", &[1, 2]),
            square("dilated").ints("dilations", &[2, 1]).ints("strides", &[1, 2]),
            conv("3d").input(&[1, 2, 2, 3, 2]).input(&[2, 2, 2, 2, 2]).ints("strides", &[1, 2, 1]),
            conv("grouped")
                .input(&[2, 4, 4, 4])
                .input(&[4, 3, 2, 3])
                .input(&[6])
                .int("group", 2)
                .ints("strides", &[2, 1]),
            conv("depthwise").input(&[2, 3, 4, 4]).input(&[3, 1, 2, 2]).int("group", 3).ints("strides", &[2, 2]),
            square("symbolic batch").ints("strides", &[2, 2]).batch(),
            square("output shape")
                .ints("strides", &[2, 2])
                .ints("output_shape", &[8, 9])
                .not_embedded("tract panics: it takes no pads from output_shape"),
            square("same upper")
                .ints("strides", &[2, 2])
                .text("auto_pad", "SAME_UPPER")
                .not_embedded("tract panics: it knows no such padding here"),
            square("same lower")
                .ints("strides", &[2, 2])
                .text("auto_pad", "SAME_LOWER")
                .not_embedded("tract panics: it knows no such padding here"),
            square("valid").ints("strides", &[2, 2]).text("auto_pad", "VALID"),
            square("everything")
                .batch()
                .ints("strides", &[3, 2])
                .ints("dilations", &[2, 3])
                .ints("pads", &[1, 2, 0, 1])
                .ints("output_padding", &[2, 1]),
            conv("3d, grouped, output padding")
                .input(&[2, 4, 2, 3, 2])
                .input(&[4, 1, 2, 1, 3])
                .input(&[2])
                .int("group", 2)
                .ints("strides", &[2, 1, 2])
                .ints("output_padding", &[1, 0, 1])
                .batch(),
            conv("1d, output shape")
                .input(&[1, 2, 5])
                .input(&[2, 3, 4])
                .ints("strides", &[3])
                .ints("output_shape", &[14])
                .not_embedded("tract panics: it takes no pads from output_shape"),
            square("newest").ints("strides", &[2, 2]).opset(21),
        ]);
    }
}
