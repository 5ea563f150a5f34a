//! Slice
//!
//! Forward:  `y` = the elements of x from `starts` to `ends` by `steps`, along `axes`.
//! Backward: step 1: `dx` = dy padded with zeros. Other steps: dy gets one slice of zeros, and a
//!           constant Gather takes each element of dx from its place in dy or from that slice.
//!           Where bounds or sizes are known only while the model runs, the same with places that are
//!           the slice of `0, 1, ..`; with step 1 and one bound a constant distance from its end of
//!           the axis, padding suffices.
//!           Where not even the axes are known, the places of all elements are such a slice.
//! Shapes:   x any of known rank, dimensions may be symbols.
//! Opsets:   10 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Slice.html>

use super::shared::{counted, shaped_like, size_along, spread};
use crate::autodiff::rule::axis;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, Dim, Tensor, ValueId, sliced};

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

/// What a slice does to one axis.
struct Cut {
    along: usize,
    /// Position in the lists of bounds.
    index: usize,
    start: Option<i64>,
    end: Option<i64>,
    step: Option<i64>,
}

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let x = ctx.x(0)?;
    let dims = ctx.dims(x)?;
    let rank = dims.len();
    let Some(cuts) = cuts(ctx, rank)? else { return by_numbers(ctx) };
    let mut margins = vec![Margin { front: Some(0), back: Some(0) }; rank];
    let mut maps = Vec::new();
    let mut computed = Vec::new();
    for cut in &cuts {
        let Cut { along, start, end, step, .. } = *cut;
        let bounds = start.zip(end).zip(step);
        let known = dims[along].known().zip(bounds).and_then(|(size, ((start, end), step))| {
            let (first, count) = sliced(size, start, end, step)?;
            Some((size, first, count, step))
        });
        margins[along] = match known {
            Some((size, first, count, 1)) => {
                Margin { front: Some(first), back: Some(size as i64 - first - count as i64) }
            }
            Some((size, first, count, step)) => {
                let mut map = vec![count as i64; size];
                (0..count).for_each(|place| map[(first + place as i64 * step) as usize] = place as i64);
                maps.push((along, map));
                Margin { front: Some(0), back: Some(1) }
            }
            None => match open_margin(start, end, step) {
                Some(margin) => margin,
                None => {
                    computed.push(cut);
                    Margin { front: Some(0), back: Some(0) }
                }
            },
        };
    }
    let mut dx = ctx.dy()?;
    for cut in &computed {
        dx = spread_cut(ctx, dx, cut)?;
    }
    dx = pad(ctx, x, dx, &margins)?;
    for (along, map) in maps {
        let places = ctx.b.constant("places", Tensor::ints(&map));
        dx = ctx.b.op("Gather", &[dx, places], Attributes::none().with("axis", along as i64));
    }
    Ok(shaped_like(ctx, dx, x))
}

/// `None` where it is not known which axes are cut.
fn cuts(ctx: &Ctx<'_>, rank: usize) -> Result<Option<Vec<Cut>>, RuleError> {
    let list = |index: usize| ctx.constant_ints(index).ok().flatten();
    let (starts, ends, steps) = (list(1), list(2), list(4));
    let length = |index: usize| ctx.dims(ctx.x(index)?).map(|dims| dims.first().and_then(Dim::known));
    let (Some(count), Ok(axes)) = (length(1)?.or(length(2)?), ctx.constant_ints(3)) else { return Ok(None) };
    let axes = axes.unwrap_or_else(|| (0..count as i64).collect());
    let given = [&starts, &ends, &steps].into_iter().flatten();
    if given.map(Vec::len).chain([axes.len()]).any(|length| length != count) {
        return Err(RuleError::Unsupported("starts, ends, axes and steps differ in length".into()));
    }
    let at = |list: &Option<Vec<i64>>, index: usize| list.as_ref().and_then(|list| list.get(index).copied());
    let no_steps = ctx.node().input(4).is_none();
    let cut = |(index, along): (usize, &i64)| {
        let step = if no_steps { Some(1) } else { at(&steps, index) };
        let (start, end) = (at(&starts, index), at(&ends, index));
        Ok(Cut { along: axis(*along, rank)?, index, start, end, step })
    };
    axes.iter().enumerate().map(cut).collect::<Result<_, _>>().map(Some)
}

/// Puts the elements of dy where they came from, as the same slice of the numbers of x's elements says.
fn by_numbers(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let size = ctx.b.unary("Size", x);
    let size = ctx.b.unsqueeze(size, &[0]);
    let numbers = counted(ctx, size);
    let numbers = ctx.b.reshape_like(numbers, x);
    let inputs: Vec<Option<ValueId>> =
        [Some(numbers)].into_iter().chain(ctx.node().inputs.iter().skip(1).copied()).collect();
    let places = ctx.b.ops(&ctx.node().op, &inputs, Attributes::none(), 1)[0];
    let places = ctx.b.reshape(places, &[-1]);
    let flat = ctx.b.reshape(dy, &[-1]);
    let dx = spread(ctx, flat, places, 0, size)?;
    Ok(ctx.b.reshape_like(dx, x))
}

/// Puts dy's slices along one axis where they came from, as the slice of `0, 1, ..` says.
fn spread_cut(ctx: &mut Ctx<'_>, dy: ValueId, cut: &Cut) -> Result<ValueId, RuleError> {
    let x = ctx.x(0)?;
    let size = size_along(ctx, x, cut.along)?;
    let numbers = counted(ctx, size);
    let mut inputs = vec![numbers];
    for index in [1, 2] {
        let list = ctx.x(index)?;
        inputs.push(element(ctx, list, cut.index)?);
    }
    inputs.push(first_axis(ctx, inputs[1]));
    if let Some(steps) = ctx.node().input(4) {
        inputs.push(element(ctx, steps, cut.index)?);
    }
    let places = ctx.b.op("Slice", &inputs, Attributes::none());
    let size = size_along(ctx, x, cut.along)?;
    spread(ctx, dy, places, cut.along, size)
}

/// One element of a list, as a list.
fn element(ctx: &mut Ctx<'_>, list: ValueId, index: usize) -> Result<ValueId, RuleError> {
    if ctx.dims(list)?.first() == Some(&Dim::Known(1)) {
        return Ok(list);
    }
    let [start, end, axis] = [index as i64, index as i64 + 1, 0].map(|number| ctx.b.ints("bound", &[number]));
    Ok(ctx.b.op("Slice", &[list, start, end, axis], Attributes::none()))
}

/// `[0]` in the dtype that the bounds have.
fn first_axis(ctx: &mut Ctx<'_>, bound: ValueId) -> ValueId {
    let zero = Tensor::float_full(ctx.dtype(bound), &[1], 0.0);
    ctx.b.constant("axes", zero)
}

/// What is in front of or behind a slice of which not all is known; `None` where neither is.
fn open_margin(start: Option<i64>, end: Option<i64>, step: Option<i64>) -> Option<Margin> {
    step.filter(|step| *step == 1)?;
    let back = end.and_then(|end| if end >= FAR { Some(0) } else { (end < 0).then_some(-end) });
    let front = start.filter(|start| *start >= 0);
    (front.is_some() || back.is_some()).then_some(Margin { front, back })
}

fn pad(ctx: &mut Ctx<'_>, x: ValueId, dy: ValueId, margins: &[Margin]) -> Result<ValueId, RuleError> {
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

    #[test]
    fn bounds_known_while_the_model_runs() {
        let slice = |name, lists: &[&[i64]]| {
            let case = Case::new(name, "Slice").linear().input(&[3, 6, 7]);
            let case = case.fed(Tensor::ints(lists[0])).fed(Tensor::ints(lists[1])).fixed(Tensor::ints(lists[2]));
            let case = if let Some(steps) = lists.get(3) { case.fed(Tensor::ints(steps)) } else { case };
            case.not_embedded("tract checks computed bounds instead of clamping them, and takes no computed step")
        };
        let symbols = [(0, 0, "batch"), (0, 1, "tokens"), (0, 2, "width")];
        let half = |name, start: &[i64], end: i64| {
            let case = Case::new(name, "Slice").linear().input(&[3, 6, 7]);
            case.fixed(Tensor::ints(start)).fed(Tensor::ints(&[end])).fixed(Tensor::ints(&[1]))
        };
        check(&[
            slice("two axes", &[&[1, -3], &[4, 100], &[1, 2]]),
            slice("two axes, symbols", &[&[1, -3], &[4, 100], &[1, 2]]).symbols(&symbols),
            slice("backwards", &[&[5, -1], &[0, 1], &[1, 2], &[-2, -3]]).symbols(&symbols),
            slice("nothing taken", &[&[4], &[2], &[1]]),
            half("from the front to a computed end", &[0], 4)
                .not_embedded("tract checks computed bounds instead of clamping them, and takes no computed step"),
            half("from 2 to a computed end", &[2], -1)
                .not_embedded("tract checks computed bounds instead of clamping them, and takes no computed step"),
            half("from beyond the end", &[9], 11)
                .symbols(&symbols)
                .not_embedded("tract checks computed bounds instead of clamping them, and takes no computed step"),
            Case::new("strides along a symbol", "Slice")
                .linear()
                .input(&[3, 6, 7])
                .fixed(Tensor::ints(&[-1, 1]))
                .fixed(Tensor::ints(&[i64::MIN, -1]))
                .fixed(Tensor::ints(&[1, 2]))
                .fixed(Tensor::ints(&[-2, 3]))
                .symbols(&symbols)
                .not_embedded("tract wants the size of every input"),
            Case::new("computed axes", "Slice")
                .linear()
                .input(&[3, 6, 7])
                .fed(Tensor::ints(&[1, -3]))
                .fed(Tensor::ints(&[5, 100]))
                .fed(Tensor::ints(&[-2, 2]))
                .fed(Tensor::ints(&[2, 1]))
                .symbols(&symbols)
                .not_embedded("tract takes only constant axes"),
            Case::new("int32 bounds", "Slice")
                .linear()
                .input(&[3, 6])
                .fed(Tensor::from_vec(&[2], vec![-2_i32, 1]))
                .fed(Tensor::from_vec(&[2], vec![9_i32, 5]))
                .not_embedded("tract checks computed bounds instead of clamping them, and takes no computed step"),
            Case::new("middle of a symbolic axis", "Slice")
                .linear()
                .input(&[6, 2])
                .fixed(Tensor::ints(&[-4]))
                .fixed(Tensor::ints(&[5]))
                .batch(),
        ]);
    }
}
