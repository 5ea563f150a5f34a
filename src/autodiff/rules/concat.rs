//! Concat
//!
//! Forward:  `y` = the inputs, one after the other along `axis`.
//! Backward: `dx_i` = the slice of dy that came from x_i.
//! Shapes:   equal but for `axis`; where the sizes along it are symbols, a bound is counted from
//!           whichever end is fixed, and only else read while the model runs.
//! Opsets:   4 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Concat.html>

use super::shared::shaped_like;
use crate::autodiff::rule::axis;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, Dim, ValueId};

pub static RULE: Rule =
    Rule { domain: "", op: "Concat", opsets: 4..=24, inputs: Inputs::Variadic(InputRule::Each(gradient)) };

fn gradient(ctx: &mut Ctx<'_>, index: usize) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(index)?);
    let along = axis(ctx.attributes().int("axis", 0)?, ctx.rank(x)?)?;
    let count = ctx.node().inputs.len();
    if count == 1 {
        return Ok(dy);
    }
    let mut sizes = Vec::with_capacity(count);
    for position in 0..count {
        let dims = ctx.dims(ctx.x(position)?)?;
        sizes.push(dims.get(along).and_then(Dim::known).map(|size| size as i64));
    }
    let starts = bound(ctx, &sizes, index, along)?;
    let ends = if index + 1 == count { ctx.b.ints("end", &[i64::MAX]) } else { bound(ctx, &sizes, index + 1, along)? };
    let axes = ctx.b.ints("axes", &[along as i64]);
    let dx = ctx.b.op("Slice", &[dy, starts, ends, axes], Attributes::none());
    Ok(shaped_like(ctx, dx, x))
}

/// Where input `index` begins along the axis, as a vector of one element.
fn bound(ctx: &mut Ctx<'_>, sizes: &[Option<i64>], index: usize, along: usize) -> Result<ValueId, RuleError> {
    let (before, after) = sizes.split_at(index);
    if let Some(total) = before.iter().copied().sum::<Option<i64>>() {
        return Ok(ctx.b.ints("bound", &[total]));
    }
    if let Some(total) = after.iter().copied().sum::<Option<i64>>().filter(|total| *total > 0) {
        return Ok(ctx.b.ints("bound", &[-total]));
    }
    let mut total = None;
    for position in 0..index {
        let x = ctx.x(position)?;
        let part = Attributes::none().with("start", along as i64).with("end", along as i64 + 1);
        let size = ctx.b.op("Shape", &[x], part);
        total = Some(match total {
            Some(total) => ctx.b.add(total, size),
            None => size,
        });
    }
    total.ok_or_else(|| RuleError::Unsupported("the first input begins at 0".into()))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::{Attributes, Builder, DType, Dim, Fact, Model, Tensor};
    use crate::runner::{evaluate, testing};

    #[test]
    fn gradients() {
        let concat = |name, axis| Case::new(name, "Concat").linear().int("axis", axis);
        check(&[
            concat("one", 0).input(&[2, 3]),
            concat("channels", 1).input(&[2, 3, 4]).input(&[2, 1, 4]).input(&[2, 2, 4]),
            concat("from the end", -1).input(&[2, 3]).input(&[2, 4]),
            concat("symbolic batch", 1).input(&[2, 3]).input(&[2, 4]).batch(),
            concat("symbols", 1).input(&[2, 3, 4]).input(&[2, 1, 4]).input(&[2, 2, 4]).symbols(&[
                (0, 0, "a"),
                (0, 1, "b"),
                (1, 0, "a"),
                (1, 1, "c"),
                (2, 1, "d"),
                (2, 2, "e"),
            ]),
            concat("along a symbol", 0).input(&[2, 3]).input(&[4, 3]).input(&[1, 3]).batch(),
        ]);
    }

    #[test]
    fn bounds_between_symbols_are_read_while_the_model_runs() {
        let fact = |name: &str| Fact::new(DType::F32, vec![Dim::Symbol(name.into())]);
        let mut b = Builder::new("concat");
        let parts = [b.input("a", fact("A")), b.input("b", fact("B")), b.input("c", fact("C"))];
        let joined = b.op("Concat", &parts, Attributes::none().with("axis", 0));
        b.refine(joined, &fact("all"));
        let square = b.mul(joined, joined);
        let loss = b.reduce("ReduceSum", square, &[0], false);
        let grads = crate::autodiff::gradients(&mut b, 18, loss, &parts).unwrap();
        for (grad, name) in grads.iter().zip(["da", "db", "dc"]) {
            b.output(grad.unwrap(), name);
        }
        let model =
            Model { graph: b.finish(), opsets: [(String::new(), 18)].into(), ir_version: 8, ..Model::default() };
        let vector = |values: &[f32]| Tensor::from_vec(&[values.len()], values.to_vec());
        let (a, b, c) = (vector(&[1.0, 2.0]), vector(&[3.0]), vector(&[4.0, 5.0, 6.0]));
        let found = evaluate(&mut testing::onnxruntime(), &model, &[("a", &a), ("b", &b), ("c", &c)]).unwrap();
        assert_eq!(found, [vector(&[2.0, 4.0]), vector(&[6.0]), vector(&[8.0, 10.0, 12.0])]);
    }
}
