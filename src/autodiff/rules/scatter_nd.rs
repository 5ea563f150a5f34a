//! ScatterND
//!
//! Forward:  `y` = data, with the slices `y[indices[q]]` replaced by, or reduced with, `updates[q]`.
//! Backward: none: `ddata` = dy with zeros in these places, `dupdates` = dy gathered from them;
//!           add: `ddata = dy`, the same `dupdates`; mul, min, max: as `ScatterElements`, on views in
//!           which the indexed axes are one.
//! Shapes:   data `[D1, .., Dk, E..]`, indices `[Q.., k]` with k fixed, updates `[Q.., E..]`;
//!           dimensions may be symbols.
//! Opsets:   11 to 24 (reductions from 16, min and max from 18).
//! At kinks: as `ScatterElements`.
//! <https://onnx.ai/onnx/operators/onnx__ScatterND.html>

use super::gather_nd::{Flat, flat};
use super::scatter_elements::{Scatter, reduction};
use super::shared::{reshape_to, shaped_like, zeros_like};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "ScatterND",
    opsets: 11..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(data), InputRule::Constant, InputRule::Gradient(updates)]),
};

fn data(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x, indices, updates) = (ctx.dy()?, ctx.x(0)?, ctx.x(1)?, ctx.x(2)?);
    let reduction = reduction(ctx)?;
    let dx = match reduction.as_str() {
        "add" => dy,
        "none" => {
            let zeros = zeros_like(ctx, updates);
            ctx.b.op("ScatterND", &[dy, indices, zeros], Attributes::none())
        }
        _ => {
            let dx = view(ctx)?.to_data(ctx, &reduction)?;
            ctx.b.reshape_like(dx, x)
        }
    };
    Ok(shaped_like(ctx, dx, x))
}

fn updates(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, indices, updates) = (ctx.dy()?, ctx.x(1)?, ctx.x(2)?);
    let reduction = reduction(ctx)?;
    let grad = match reduction.as_str() {
        "add" | "none" => ctx.b.op("GatherND", &[dy, indices], Attributes::none()),
        _ => {
            let grad = view(ctx)?.to_updates(ctx, &reduction)?;
            ctx.b.reshape_like(grad, updates)
        }
    };
    Ok(shaped_like(ctx, grad, updates))
}

fn view(ctx: &mut Ctx<'_>) -> Result<Scatter, RuleError> {
    let (dy, x, indices, updates, y) = (ctx.dy()?, ctx.x(0)?, ctx.x(1)?, ctx.x(2)?, ctx.y(0)?);
    let Flat { parts, axis, .. } = Flat::parts(ctx, x, indices, 0)?;
    let places = ctx.once("places", |ctx| Ok(flat(ctx, x, indices, updates, 0)?.0))?;
    let data = ctx.once("data", |ctx| reshape_to(ctx, x, &parts))?;
    let y = ctx.once("y", |ctx| reshape_to(ctx, y, &parts))?;
    let dy = ctx.once("dy", |ctx| reshape_to(ctx, dy, &parts))?;
    let updates = ctx.once("updates", |ctx| reshape_to(ctx, updates, &parts))?;
    Ok(Scatter { data, places, updates, y, dy, axis })
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let scatter = |name, reduction: &str| match reduction {
            "none" => Case::new(name, "ScatterND"),
            _ => Case::new(name, "ScatterND").text("reduction", reduction),
        };
        let elements = |low: i64| Tensor::from_vec(&[2, 2, 2], vec![0, 1, 2, low + 3, 1, 0, low + 1, 3]);
        let rows = |low: i64| Tensor::from_vec(&[3, 1], vec![3, 0, low + 1]);
        let mut cases = Vec::new();
        for reduction in ["none", "add", "mul", "min", "max"] {
            let case = |name| scatter(name, reduction).distinct(&[4, 4]);
            let negative = |case: Case| case.not_embedded("tract stops at negative indices");
            cases.push(negative(case("elements").fixed(elements(-4)).range(&[2, 2], -1.0, 1.0)));
            cases.push(negative(case("rows").fixed(rows(-4)).range(&[3, 4], -1.0, 1.0)));
            let symbols = [(0, 0, "a"), (0, 1, "b"), (1, 0, "c"), (2, 0, "c"), (2, 1, "b")];
            cases.push(case("rows, symbols").fed(rows(0)).range(&[3, 4], -1.0, 1.0).symbols(&symbols));
            let symbols = [(0, 0, "a"), (0, 1, "b"), (1, 0, "c"), (1, 1, "d"), (2, 0, "c"), (2, 1, "d")];
            cases.push(case("elements, symbols").fed(elements(0)).range(&[2, 2], -1.0, 1.0).symbols(&symbols));
        }
        check(&cases);
    }

    #[test]
    fn zeros_and_ties_as_in_pytorch() {
        let places = Tensor::from_vec(&[7, 1], vec![0_i64, 0, 2, 3, 3, 1, 0]);
        let scatter = |name, reduction: &str| {
            let case = Case::new(name, "ScatterND").text("reduction", reduction);
            case.values(&[5], &[2.0, 1.0, 3.0, 0.0, 5.0])
                .fixed(places.clone())
                .values(&[7], &[2.0, 2.0, 1.0, 0.0, 4.0, 0.0, -1.0])
        };
        check(&[
            scatter("zeros", "mul")
                .expect(0, &[-4.0, 0.0, 1.0, 0.0, 1.0])
                .expect(2, &[-4.0, -4.0, 3.0, 0.0, 0.0, 1.0, 8.0]),
            scatter("ties", "min")
                .expect(0, &[0.0, 0.0, 0.0, 0.5, 1.0])
                .expect(2, &[0.0, 0.0, 1.0, 0.5, 0.0, 1.0, 1.0]),
        ]);
    }
}
