//! Slice
//!
//! Forward:  `y` = the elements of x from `starts` to `ends` by `steps`, along `axes`.
//! Backward: step 1: `dx` = dy padded with zeros. Other steps: dy gets one slice of zeros, and a
//!           constant Gather takes each element of dx from its place in dy or from that slice.
//! Shapes:   x any; starts, ends, axes and steps are constant. A sliced axis may be a symbol with
//!           step 1 when one of its bounds is a constant distance from its end of the axis.
//! Opsets:   10 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Slice.html>

use super::shared::shaped_like;
use crate::autodiff::rule::axis;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, Tensor, ValueId, sliced};

pub static RULE: Rule = Rule {
    domain: "",
    op: "Slice",
    opsets: 10..=24,
    inputs: Inputs::Fixed(&[
        InputRule::Gradient(input),
        InputRule::Constant,
        InputRule::Constant,
        InputRule::Constant,
        InputRule::Constant,
    ]),
};

/// Bounds at or beyond this say "to the end".
const FAR: i64 = i32::MAX as i64;

/// What is in front of and behind the slice of one axis; one may be open until the model runs.
#[derive(Clone, Copy)]
struct Margin {
    front: Option<i64>,
    back: Option<i64>,
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let x = ctx.x(0)?;
    let dims = ctx.dims(x)?;
    let rank = dims.len();
    let starts = ctx.constant_ints(1)?.unwrap_or_default();
    let ends = ctx.constant_ints(2)?.unwrap_or_default();
    let axes = ctx.constant_ints(3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = ctx.constant_ints(4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()].iter().any(|length| *length != starts.len()) {
        return Err(RuleError::Unsupported("starts, ends, axes and steps differ in length".into()));
    }
    let mut margins = vec![Margin { front: Some(0), back: Some(0) }; rank];
    let mut maps = Vec::new();
    for (index, given) in axes.iter().enumerate() {
        let along = axis(*given, rank)?;
        let (start, end, step) = (starts[index], ends[index], steps[index]);
        let known = dims[along].known().and_then(|size| Some((size, sliced(size, start, end, step)?)));
        margins[along] = match (known, step) {
            (Some((size, (first, count))), 1) => {
                Margin { front: Some(first), back: Some(size as i64 - first - count as i64) }
            }
            (Some((size, (first, count))), _) => {
                let mut map = vec![count as i64; size];
                (0..count).for_each(|place| map[(first + place as i64 * step) as usize] = place as i64);
                maps.push((along, map));
                Margin { front: Some(0), back: Some(1) }
            }
            (None, 1) => open_margin(start, end),
            (None, _) => return Err(no_shape(ctx, x, along)),
        };
        if margins[along].front.is_none() && margins[along].back.is_none() {
            return Err(no_shape(ctx, x, along));
        }
    }
    let mut dx = pad(ctx, x, &margins)?;
    for (along, map) in maps {
        let places = ctx.b.constant("places", Tensor::ints(&map));
        dx = ctx.b.op("Gather", &[dx, places], Attributes::none().with("axis", along as i64));
    }
    Ok(shaped_like(ctx, dx, x))
}

fn open_margin(start: i64, end: i64) -> Margin {
    let back = if end >= FAR { Some(0) } else { (end < 0).then_some(-end) };
    Margin { front: (start >= 0).then_some(start), back }
}

fn no_shape(ctx: &Ctx<'_>, x: ValueId, along: usize) -> RuleError {
    RuleError::NoShape { value: ctx.name(x), dims: along.to_string(), found: ctx.b.fact(x).to_string() }
}

fn pad(ctx: &mut Ctx<'_>, x: ValueId, margins: &[Margin]) -> Result<ValueId, RuleError> {
    let dy = ctx.dy()?;
    if margins.iter().all(|margin| margin.front == Some(0) && margin.back == Some(0)) {
        return Ok(dy);
    }
    let constant: Option<Vec<i64>> =
        margins.iter().map(|margin| margin.front).chain(margins.iter().map(|margin| margin.back)).collect();
    let pads = match constant {
        Some(pads) => ctx.b.ints("pads", &pads),
        None => {
            let (mut front, mut back) = (Vec::new(), Vec::new());
            for (along, margin) in margins.iter().enumerate() {
                match (margin.front, margin.back) {
                    (Some(known), None) => {
                        front.push(ctx.b.ints("front", &[known]));
                        back.push(rest(ctx, x, dy, along, known));
                    }
                    (None, Some(known)) => {
                        front.push(rest(ctx, x, dy, along, known));
                        back.push(ctx.b.ints("back", &[known]));
                    }
                    (one, other) => {
                        front.push(ctx.b.ints("front", &[one.unwrap_or(0)]));
                        back.push(ctx.b.ints("back", &[other.unwrap_or(0)]));
                    }
                }
            }
            front.extend(back);
            ctx.b.op("Concat", &front, Attributes::none().with("axis", 0))
        }
    };
    let zero = ctx.b.like(dy, 0.0);
    Ok(ctx.b.op("Pad", &[dy, pads, zero], Attributes::none().with("mode", "constant")))
}

/// What an axis of x has beyond dy and `known` elements.
fn rest(ctx: &mut Ctx<'_>, x: ValueId, dy: ValueId, along: usize, known: i64) -> ValueId {
    let part = Attributes::none().with("start", along as i64).with("end", along as i64 + 1);
    let all = ctx.b.op("Shape", &[x], part.clone());
    let kept = ctx.b.op("Shape", &[dy], part);
    let known = ctx.b.ints("known", &[known]);
    let others = ctx.b.sub(all, kept);
    ctx.b.sub(others, known)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let slice = |name, lists: &[&[i64]]| {
            let case = Case::new(name, "Slice").linear().input(&[3, 6, 7]);
            lists.iter().fold(case, |case, list| case.fixed(Tensor::ints(list)))
        };
        check(&[
            slice("leading axes", &[&[1, 2], &[3, 5]]),
            slice("negative, clamped", &[&[-3, -100], &[-1, 100], &[1, -1]]),
            slice("everything", &[&[0], &[i64::MAX], &[1]]),
            slice("strided", &[&[1, 0], &[6, 7], &[1, 2], &[2, 3]]),
            slice("strided and not", &[&[1, 2], &[6, 5], &[1, 2], &[2, 1]]),
            slice("reversed", &[&[-1], &[i64::MIN], &[1], &[-1]]),
            slice("backwards by 2", &[&[4, -1], &[0, 1], &[1, 2], &[-2, -3]]),
            slice("symbolic batch", &[&[1], &[4], &[1]]).batch(),
            slice("symbolic axis to the end", &[&[1], &[i64::MAX], &[0]]).batch(),
            slice("symbolic axis before the end", &[&[1], &[-1], &[0]]).batch(),
            slice("symbolic axis from the front", &[&[1], &[2], &[0]]).batch(),
            slice("symbolic axis, last", &[&[-2], &[i64::MAX], &[0]]).batch(),
        ]);
    }
}
