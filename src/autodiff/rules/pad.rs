//! Pad
//!
//! Forward:  `y` = x with elements before and after each axis; negative pads remove some first.
//!           What is added is a number (`constant`), the outermost element (`edge`), or x again
//!           from the end (`reflect`, without repeating the outermost element) or from the other
//!           end (`wrap`).
//! Backward: `dx` = the part of dy that came from x, zeros where elements were removed, plus the
//!           added parts of dy at the elements that they repeat, axis by axis;
//!           `dvalue = sum(dy) - sum(dx)`.
//! Shapes:   x any of known rank. `constant`: any dimension may be a symbol, and pads and axes may
//!           be computed while the model runs. The other modes: pads and axes are constant, and
//!           the padded dimensions are fixed.
//! Opsets:   7 to 24 (from 18 with axes, from 19 with `wrap`).
//! <https://onnx.ai/onnx/operators/onnx__Pad.html>

use super::shared::shaped_like;
use crate::autodiff::rule::axis;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, OpId, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "Pad",
    opsets: 7..=24,
    inputs: Inputs::Fixed(&[
        InputRule::Gradient(input),
        InputRule::Constant,
        InputRule::Gradient(value),
        InputRule::Constant,
    ]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let mode = ctx.attributes().text("mode", "constant")?;
    let fixed = [1, 3].into_iter().all(|index| ctx.constant_ints(index).is_ok());
    match mode.as_str() {
        "constant" if fixed => ctx.once("dx", removed),
        "constant" => ctx.once("dx", computed),
        "edge" | "reflect" | "wrap" => repeated(ctx, &mode),
        other => Err(RuleError::Unsupported(format!("mode \"{other}\" is not known"))),
    }
}

/// Returns the constant pads before and after every axis.
fn pads(ctx: &Ctx<'_>) -> Result<Vec<(i64, i64)>, RuleError> {
    let rank = ctx.rank(ctx.x(0)?)?;
    let given = ctx.constant_ints(1)?.unwrap_or_default();
    let axes = ctx.constant_ints(3)?.unwrap_or_else(|| (0..rank as i64).collect());
    if given.len() != 2 * axes.len() {
        return Err(RuleError::Unsupported(format!("{} pads for {} axes", given.len(), axes.len())));
    }
    let (before, after) = given.split_at(axes.len());
    let mut pads = vec![(0, 0); rank];
    for (at, pad) in axes.iter().zip(before.iter().copied().zip(after.iter().copied())) {
        pads[axis(*at, rank)?] = pad;
    }
    Ok(pads)
}

fn removed(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let pads = pads(ctx)?;
    let (mut dx, x) = (ctx.dy()?, ctx.x(0)?);
    let added: Vec<usize> = (0..pads.len()).filter(|at| pads[*at].0 > 0 || pads[*at].1 > 0).collect();
    if !added.is_empty() {
        let list = |value: &dyn Fn((i64, i64)) -> i64| added.iter().map(|at| value(pads[*at])).collect::<Vec<_>>();
        let starts = ctx.b.ints("starts", &list(&|(before, _)| before.max(0)));
        let ends = ctx.b.ints("ends", &list(&|(_, after)| if after > 0 { -after } else { i64::MAX }));
        let axes = ctx.b.ints("axes", &added.iter().map(|at| *at as i64).collect::<Vec<_>>());
        dx = ctx.b.op("Slice", &[dx, starts, ends, axes], Attributes::none());
    }
    let missing: Vec<i64> = pads.iter().map(|pad| pad.0).chain(pads.iter().map(|pad| pad.1)).collect();
    let missing: Vec<i64> = missing.into_iter().map(|pad| (-pad).max(0)).collect();
    if missing.iter().any(|pad| *pad > 0) {
        dx = zero_padded(ctx, dx, &missing);
    }
    Ok(shaped_like(ctx, dx, x))
}

fn zero_padded(ctx: &mut Ctx<'_>, value: ValueId, pads: &[i64]) -> ValueId {
    let pads = ctx.b.ints("pads", pads);
    let zero = ctx.b.like(value, 0.0);
    ctx.b.op("Pad", &[value, pads, zero], Attributes::none().with("mode", "constant"))
}

/// The gradient for pads that the model computes: padding by their opposites.
fn computed(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x, pads, axes) = (ctx.dy()?, ctx.x(0)?, ctx.x(1)?, ctx.node().input(3));
    let opposite = ctx.b.unary("Neg", pads);
    let zero = ctx.b.like(dy, 0.0);
    let attributes = Attributes::none().with("mode", "constant");
    let mut inputs = vec![Some(dy), Some(opposite), Some(zero)];
    inputs.extend(axes.map(Some));
    let dx = ctx.b.ops(&OpId::standard("Pad"), &inputs, attributes, 1)[0];
    Ok(shaped_like(ctx, dx, x))
}

fn value(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let value = ctx.x(2)?;
    if ctx.attributes().text("mode", "constant")? != "constant" {
        let zero = ctx.b.like(value, 0.0);
        return Ok(ctx.b.expand_like(zero, value));
    }
    let (dy, dx) = (ctx.dy()?, input(ctx)?);
    let axes: Vec<i64> = (0..ctx.rank(dy)? as i64).collect();
    let all = ctx.b.reduce("ReduceSum", dy, &axes, false);
    let inner = ctx.b.reduce("ReduceSum", dx, &axes, false);
    let padding = ctx.b.sub(all, inner);
    Ok(ctx.b.reshape_like(padding, value))
}

fn repeated(ctx: &mut Ctx<'_>, mode: &str) -> Result<ValueId, RuleError> {
    let x = ctx.x(0)?;
    let mut grad = ctx.dy()?;
    for (axis, pad) in pads(ctx)?.into_iter().enumerate().filter(|(_, pad)| *pad != (0, 0)) {
        let size = ctx.dims(x)?.get(axis).and_then(|dim| i64::try_from(dim.known()?).ok());
        let size = size.ok_or_else(|| RuleError::NoShape {
            value: ctx.name(x),
            dims: axis.to_string(),
            found: ctx.b.fact(x).to_string(),
        })?;
        let parts = parts(mode, size, pad)?;
        grad = gathered(ctx, grad, axis, size, &parts)?;
    }
    Ok(shaped_like(ctx, grad, x))
}

/// Consecutive elements of y along an axis, with the elements of x that they are.
#[derive(Debug, PartialEq)]
struct Part {
    /// First element of y.
    from: i64,
    count: i64,
    /// Element of x that the first one is.
    first: i64,
    /// From one element to the next, in x: 1, -1, or 0 for one element again and again.
    step: i64,
}

/// Splits the padded axis into parts.
fn parts(mode: &str, size: i64, (before, after): (i64, i64)) -> Result<Vec<Part>, RuleError> {
    let (skipped, dropped) = ((-before).max(0), (-after).max(0));
    let kept = size.saturating_sub(skipped).saturating_sub(dropped);
    let (before, after) = (before.max(0), after.max(0));
    let length = kept.checked_add(before).and_then(|length| length.checked_add(after));
    let Some(length) = length.filter(|length| kept > 0 && *length <= i64::from(i32::MAX)) else {
        return Err(RuleError::Unsupported(format!("pads {before} and {after} do not fit {kept} elements of {size}")));
    };
    let element = |at: i64| {
        let at = at - before;
        skipped
            + match mode {
                "edge" => at.clamp(0, kept - 1),
                "wrap" => at.rem_euclid(kept),
                _ if kept == 1 => 0,
                _ => {
                    let at = at.rem_euclid(2 * (kept - 1));
                    at.min(2 * (kept - 1) - at)
                }
            }
    };
    let mut parts: Vec<Part> = Vec::new();
    for at in 0..length {
        let here = element(at);
        if let Some(part) = parts.last_mut() {
            let step = here - (part.first + part.step * (part.count - 1));
            if (part.count == 1 && step.abs() <= 1) || (part.count > 1 && step == part.step) {
                (part.step, part.count) = (step, part.count + 1);
                continue;
            }
        }
        parts.push(Part { from: at, count: 1, first: here, step: 1 });
    }
    Ok(parts)
}

/// Adds up the parts of a gradient at the elements that they are.
fn gathered(ctx: &mut Ctx<'_>, grad: ValueId, axis: usize, size: i64, parts: &[Part]) -> Result<ValueId, RuleError> {
    let rank = ctx.rank(grad)?;
    let mut terms = Vec::with_capacity(parts.len());
    for part in parts {
        let last = part.from + part.count - 1;
        let (start, end, step) = match part.step {
            -1 if part.from == 0 => (last, i64::MIN, -1),
            -1 => (last, part.from - 1, -1),
            _ => (part.from, last + 1, 1),
        };
        let [start, end] = [("starts", start), ("ends", end)].map(|(name, at)| ctx.b.ints(name, &[at]));
        let [axes, steps] = [("axes", axis as i64), ("steps", step)].map(|(name, at)| ctx.b.ints(name, &[at]));
        let mut term = ctx.b.op("Slice", &[grad, start, end, axes, steps], Attributes::none());
        if part.step == 0 {
            term = ctx.b.reduce("ReduceSum", term, &[axis as i64], true);
        }
        let (first, count) = match part.step {
            0 => (part.first, 1),
            -1 => (part.first - part.count + 1, part.count),
            _ => (part.first, part.count),
        };
        if count < size {
            let mut pads = vec![0; 2 * rank];
            (pads[axis], pads[rank + axis]) = (first, size - first - count);
            term = zero_padded(ctx, term, &pads);
        }
        terms.push(term);
    }
    Ok(match terms.as_slice() {
        [one] => *one,
        many => ctx.b.op("Sum", many, Attributes::none()),
    })
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    const REFUSED: &str = "tract fails on negative pads";
    const NO_WRAP: &str = "tract has no wrap mode";

    fn pad(name: &'static str, pads: &[i64]) -> Case {
        Case::new(name, "Pad").linear().input(&[2, 4, 5]).fixed(Tensor::ints(pads))
    }

    /// The form of opset 7.
    fn oldest() -> Case {
        let case = Case::new("oldest", "Pad").opset(7).linear().input(&[2, 4]).ints("pads", &[1, 0, 0, 2]);
        case.not_embedded("tested in the newer form")
    }

    fn computed(name: &'static str) -> Case {
        Case::new(name, "Pad").linear().input(&[2, 4, 5]).not_embedded("tract takes only constant pads")
    }

    #[test]
    fn a_number() {
        check(&[
            oldest().float("value", 1.5),
            pad("all sides", &[1, 2, 3, 0, 1, 2]),
            pad("with a trained value", &[0, 2, 1, 1, 0, 2])
                .values(&[], &[0.5])
                .not_embedded("tract takes only a constant value"),
            Case::new("attributes", "Pad")
                .opset(7)
                .linear()
                .input(&[2, 3])
                .ints("pads", &[0, 1, 2, 0])
                .float("value", 0.5),
            pad("some axes", &[1, 0, 2, 1]).missing().fixed(Tensor::ints(&[-1, 1])),
            pad("nothing", &[0, 0, 0, 0, 0, 0]),
            pad("removing", &[0, -1, 1, 0, 0, -2]).not_embedded(REFUSED),
            pad("symbolic batch", &[0, 1, 0, 0, 0, 2]).batch(),
            pad("along a symbol", &[1, 0, 0, 2, 0, 1]).batch(),
            computed("computed pads").fed(Tensor::ints(&[1, 0, 2, 0, -1, 1])),
            computed("computed pads, trained value").fed(Tensor::ints(&[1, 0, 2, 0, 0, 1])).values(&[], &[0.5]),
            computed("computed pads of some axes")
                .fed(Tensor::ints(&[1, 0, 2, -1]))
                .missing()
                .fixed(Tensor::ints(&[2, 0])),
            computed("computed axes").fixed(Tensor::ints(&[1, 0, 2, -1])).missing().fed(Tensor::ints(&[2, 1])).batch(),
        ]);
    }

    #[test]
    fn elements_again() {
        let mut cases = vec![oldest().text("mode", "edge")];
        for mode in ["reflect", "edge", "wrap"] {
            let pad = |name, pads: &[i64]| {
                let case = pad(name, pads).text("mode", mode).opset(19);
                if mode == "wrap" { case.not_embedded(NO_WRAP) } else { case }
            };
            cases.extend([
                pad("all sides", &[1, 2, 3, 0, 3, 4]),
                pad("one side", &[0, 0, 2, 0, 0, 0]).batch(),
                pad("the other side", &[0, 0, 0, 0, 3, 0]).batch(),
                pad("some axes", &[1, 0, 2, 1]).missing().fixed(Tensor::ints(&[-1, 1])),
                pad("removing", &[0, -1, 2, 0, 2, -2]).not_embedded(REFUSED),
                pad("only removing", &[0, -1, 0, 0, -2, -2]).not_embedded(REFUSED),
                pad("one element", &[0, 0, 0, 0, 0, -4]).not_embedded(REFUSED),
            ]);
        }
        cases.push(pad("edge, far", &[7, 0, 9, 0, 8, 6]).text("mode", "edge"));
        let far = pad("wrap, several times", &[3, 0, 9, 0, 8, 17]).text("mode", "wrap").opset(19);
        cases.push(far.not_embedded(NO_WRAP));
        check(&cases);
    }

    #[test]
    fn as_pytorch() {
        let line = |name: &'static str, mode: &str| {
            let case = Case::new(name, "Pad").opset(19).input(&[1, 1, 4]).fixed(Tensor::ints(&[0, 0, 3, 0, 0, 2]));
            case.text("mode", mode)
        };
        check(&[
            line("reflection", "reflect").expect(0, &[1.0, 3.0, 3.0, 2.0]),
            line("replication", "edge").expect(0, &[4.0, 1.0, 1.0, 3.0]),
            line("circular", "wrap").expect(0, &[2.0, 3.0, 2.0, 2.0]).not_embedded(NO_WRAP),
        ]);
    }
}
