//! Operators that rearrange, repeat or join elements.

use super::{Attribute, Call, DType, Dim, Fact, Size, axes_of, axis_of, both, broadcast, product};

pub(super) fn infer(call: &Call) -> Option<Vec<Fact>> {
    match call.name() {
        "Shape" => {
            let length = call
                .rank(0)
                .and_then(|rank| part(call, rank))
                .map_or(Dim::Unknown, |(start, end)| Dim::Known(end.saturating_sub(start)));
            call.give([Fact::new(DType::I64, vec![length])])
        }
        "Size" => call.give([Fact::fixed(DType::I64, &[])]),
        "Constant" => call.give([constant(call)]),
        "ConstantOfShape" => {
            let dtype = match call.attributes.get("value") {
                None => Some(DType::F32),
                Some(Attribute::Tensor(tensor)) => Some(tensor.dtype()),
                Some(_) => None,
            };
            call.give([Fact { dtype, shape: dims(call, 0) }])
        }
        "Reshape" => call.like(reshape(call)),
        "Expand" => {
            let target = dims(call, 1);
            call.like(broadcast(&[call.shape(0), target.as_deref()]))
        }
        "Squeeze" => call.like(squeeze(call)),
        "Unsqueeze" => call.like(unsqueeze(call)),
        "Flatten" => call.like(flatten(call)),
        "Transpose" => call.like(transpose(call)),
        "Concat" => {
            let dtype = call.inputs.iter().flatten().find_map(|fact| fact.dtype);
            call.give([Fact { dtype, shape: concat(call) }])
        }
        "Split" => split(call),
        "Tile" => call.like(tile(call)),
        "Range" => {
            let dtype = call.dtype(0).or(call.dtype(1)).or(call.dtype(2));
            call.give([Fact { dtype, shape: Some(vec![Dim::from(range(call))]) }])
        }
        "Pad" => call.like(pad(call)),
        "DepthToSpace" => call.like(blocks(call, true)),
        "SpaceToDepth" => call.like(blocks(call, false)),
        "CenterCropPad" => call.like(center(call)),
        _ => None,
    }
}

/// Returns the dimensions that the elements of an input say.
fn dims(call: &Call, index: usize) -> Option<Vec<Dim>> {
    if let Some(sizes) = call.sizes(index) {
        return Some(sizes.into_iter().map(Dim::from).collect());
    }
    let [length] = call.shape(index)? else { return None };
    length.known().filter(|length| *length <= 16).map(|length| vec![Dim::Unknown; length])
}

/// Returns the axes that `Shape` gives of a value of some rank.
pub(crate) fn part(call: &Call, rank: usize) -> Option<(usize, usize)> {
    let count = i64::try_from(rank).ok()?;
    let place = |at: i64| usize::try_from(if at < 0 { at.saturating_add(count) } else { at }.clamp(0, count)).ok();
    Some((place(call.int("start", 0)?)?, place(call.int("end", count)?)?))
}

fn constant(call: &Call) -> Fact {
    match call.attributes.iter().next().map(|(_, value)| value) {
        Some(Attribute::Tensor(tensor)) => Fact::fixed(tensor.dtype(), tensor.shape()),
        Some(Attribute::Float(_)) => Fact::fixed(DType::F32, &[]),
        Some(Attribute::Int(_)) => Fact::fixed(DType::I64, &[]),
        Some(Attribute::Floats(values)) => Fact::fixed(DType::F32, &[values.len()]),
        Some(Attribute::Ints(values)) => Fact::fixed(DType::I64, &[values.len()]),
        Some(Attribute::String(_)) => Fact::fixed(DType::String, &[]),
        Some(Attribute::Strings(values)) => Fact::fixed(DType::String, &[values.len()]),
        _ => Fact::default(),
    }
}

fn reshape(call: &Call) -> Option<Vec<Dim>> {
    let Some(target) = call.sizes(1) else { return dims(call, 1) };
    let keep_zero = call.int("allowzero", 0)? == 0;
    let old = call.shape(0);
    let mut rest = None;
    let mut dims = Vec::with_capacity(target.len());
    for (axis, size) in target.iter().enumerate() {
        dims.push(match size.as_ref().map(Size::fixed) {
            Some(Some(0)) if keep_zero => old.and_then(|old| old.get(axis)).cloned().unwrap_or(Dim::Unknown),
            Some(Some(-1)) => {
                rest = Some(axis);
                Dim::Unknown
            }
            _ => Dim::from(size.clone()),
        });
    }
    let open: Vec<usize> = (0..dims.len()).filter(|axis| dims[*axis] == Dim::Unknown).collect();
    // One open dimension follows from the others, whether it is written as -1 or not known.
    if let ([open], Some(old)) = (open.as_slice(), old)
        && rest.is_none_or(|rest| rest == *open)
    {
        dims[*open] = remaining(old, &dims, *open);
    }
    Some(dims)
}

/// Returns what the dimension at `open` must be for the same number of elements.
fn remaining(old: &[Dim], dims: &[Dim], open: usize) -> Dim {
    let mut above: Vec<&Dim> = old.iter().collect();
    let mut below: Vec<&Dim> = Vec::new();
    for dim in dims.iter().enumerate().filter(|(axis, _)| *axis != open).map(|(_, dim)| dim) {
        match above.iter().position(|other| other.same(dim) && **other != Dim::Known(0)) {
            Some(at) => drop(above.remove(at)),
            None => below.push(dim),
        }
    }
    let total = |dims: &[&Dim]| dims.iter().try_fold(Size::from(1), |total, dim| total.times(&dim.size()?));
    let quotient = total(&above).zip(total(&below)).and_then(|(above, below)| above.exactly_by(&below));
    Dim::from(quotient)
}

/// The axes of `Squeeze` and `Unsqueeze`: an input, or an attribute before opset 13.
fn axes(call: &Call) -> Option<Vec<i64>> {
    if call.has(1) { call.fixed(1) } else { call.ints("axes")? }
}

fn squeeze(call: &Call) -> Option<Vec<Dim>> {
    let shape = call.shape(0)?;
    if !call.has(1) && call.ints("axes")?.is_none() {
        call.fact(0).sizes()?;
        return Some(shape.iter().filter(|dim| **dim != Dim::Known(1)).cloned().collect());
    }
    let axes = axes_of(&axes(call)?, shape.len())?;
    Some(shape.iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, dim)| dim.clone()).collect())
}

fn unsqueeze(call: &Call) -> Option<Vec<Dim>> {
    let shape = call.shape(0)?;
    let axes = axes(call)?;
    let rank = shape.len() + axes.len();
    let axes = axes_of(&axes, rank)?;
    let mut rest = shape.iter();
    (0..rank).map(|axis| if axes.contains(&axis) { Some(Dim::Known(1)) } else { rest.next().cloned() }).collect()
}

fn flatten(call: &Call) -> Option<Vec<Dim>> {
    let shape = call.shape(0)?;
    let axis = call.int("axis", 1)?;
    let axis = if axis == shape.len() as i64 { shape.len() } else { axis_of(axis, shape.len())? };
    Some(vec![product(&shape[..axis]), product(&shape[axis..])])
}

fn transpose(call: &Call) -> Option<Vec<Dim>> {
    let shape = call.shape(0)?;
    match call.ints("perm")? {
        None => Some(shape.iter().rev().cloned().collect()),
        Some(perm) if perm.len() != shape.len() => None,
        Some(perm) => axes_of(&perm, shape.len())?.into_iter().map(|axis| shape.get(axis).cloned()).collect(),
    }
}

fn concat(call: &Call) -> Option<Vec<Dim>> {
    let shapes: Vec<Option<&[Dim]>> = (0..call.inputs.len()).map(|index| call.shape(index)).collect();
    join(&shapes, call.int("axis", 1)?)
}

/// Returns the shape of values joined along an axis that they have; `None` when no rank is known.
pub(crate) fn join(shapes: &[Option<&[Dim]>], axis: i64) -> Option<Vec<Dim>> {
    let rank = shapes.iter().flatten().next()?.len();
    let axis = axis_of(axis, rank)?;
    let mut joined = vec![Dim::Unknown; rank];
    let mut sum = Some(Size::from(0));
    for shape in shapes {
        let Some(shape) = shape.filter(|shape| shape.len() == rank) else {
            sum = None;
            continue;
        };
        joined.iter_mut().zip(shape).for_each(|(slot, dim)| *slot = both(slot, dim));
        sum = sum.zip(shape[axis].size()).and_then(|(sum, size)| sum.plus(&size));
    }
    joined[axis] = Dim::from(sum);
    Some(joined)
}

fn split(call: &Call) -> Option<Vec<Fact>> {
    let sizes = if call.has(1) {
        Some(call.sizes(1))
    } else {
        call.ints("split")?.map(|sizes| Some(sizes.into_iter().map(|size| Some(Size::from(size))).collect()))
    };
    let Some(shape) = call.shape(0) else {
        return call.give(vec![Fact { dtype: call.dtype(0), shape: None }; call.outputs]);
    };
    let axis = axis_of(call.int("axis", 0)?, shape.len())?;
    let count = i64::try_from(call.outputs).ok()?;
    let part = |index: usize| -> Option<Size> {
        if let Some(sizes) = &sizes {
            return sizes.as_ref()?.get(index)?.clone();
        }
        let whole = shape[axis].size()?;
        match whole.fixed() {
            Some(whole) => {
                let part = whole.checked_add(count - 1)? / count;
                Some(Size::from(part.min((whole - part * i64::try_from(index).ok()?).max(0))))
            }
            None => whole.exactly_by(&Size::from(count)),
        }
    };
    call.give((0..call.outputs).map(|index| {
        let mut shape = shape.to_vec();
        shape[axis] = Dim::from(part(index));
        Fact { dtype: call.dtype(0), shape: Some(shape) }
    }))
}

fn tile(call: &Call) -> Option<Vec<Dim>> {
    let shape = call.shape(0)?;
    let Some(repeats) = call.sizes(1) else { return Some(vec![Dim::Unknown; shape.len()]) };
    let tiled = |(dim, repeat): (&Dim, &Option<Size>)| {
        Dim::from(dim.size().zip(repeat.clone()).and_then(|(size, repeat)| size.times(&repeat)))
    };
    (repeats.len() == shape.len()).then(|| shape.iter().zip(&repeats).map(tiled).collect())
}

/// Returns `max(ceil((limit - start) / step), 0)`.
fn range(call: &Call) -> Option<Size> {
    if let Some([start, limit, step]) = (0..3).map(|index| call.reals(index)).collect::<Option<Vec<_>>>().as_deref() {
        let (start, limit, step) = (start.first()?, limit.first()?, step.first()?);
        let count = ((limit - start) / step).ceil().max(0.0);
        return (count.is_finite() && count < 1e15).then(|| Size::from(count as i64));
    }
    let (start, limit, step) = (call.scalar(0)?, call.scalar(1)?, call.scalar(2)?.fixed()?);
    let distance = limit.minus(&start)?;
    distance.at_least().filter(|least| *least >= 0)?;
    distance.plus(&Size::from(step.checked_sub(1)?))?.floor_by(step)
}

fn pad(call: &Call) -> Option<Vec<Dim>> {
    let shape = call.shape(0)?;
    let rank = shape.len();
    let pads: Vec<Option<Size>> = if call.has(1) {
        match call.sizes(1) {
            Some(pads) => pads,
            None => return Some(vec![Dim::Unknown; rank]),
        }
    } else {
        let pads = match call.ints("pads")? {
            Some(pads) => pads,
            None => call.ints("paddings")??,
        };
        pads.into_iter().map(|pad| Some(Size::from(pad))).collect()
    };
    let axes = if call.has(3) { axes_of(&call.fixed(3)?, rank)? } else { (0..rank).collect() };
    if pads.len() != 2 * axes.len() {
        return None;
    }
    let mut padded = shape.to_vec();
    for (index, axis) in axes.iter().enumerate() {
        let more = pads[index].as_ref().zip(pads[axes.len() + index].as_ref()).and_then(|(a, b)| a.plus(b));
        let dim = padded.get_mut(*axis)?;
        *dim = match more {
            Some(more) if more == Size::from(0) => continue,
            more => Dim::from(dim.size().zip(more).and_then(|(size, more)| size.plus(&more))),
        };
    }
    Some(padded)
}

fn blocks(call: &Call, to_space: bool) -> Option<Vec<Dim>> {
    let [batch, channels, height, width] = call.shape(0)? else { return None };
    let block = call.int("blocksize", 0).filter(|block| *block > 0)?;
    let square = Size::from(block.checked_mul(block)?);
    let scale = |dim: &Dim, by: &Size, up: bool| {
        Dim::from(dim.size().and_then(|size| if up { size.times(by) } else { size.exactly_by(by) }))
    };
    let block = Size::from(block);
    let side = |dim: &Dim| scale(dim, &block, to_space);
    Some(vec![batch.clone(), scale(channels, &square, !to_space), side(height), side(width)])
}

fn center(call: &Call) -> Option<Vec<Dim>> {
    let mut shape = call.shape(0)?.to_vec();
    let axes = match call.ints("axes")? {
        Some(axes) => axes_of(&axes, shape.len())?,
        None => (0..shape.len()).collect(),
    };
    let target = dims(call, 1).unwrap_or_else(|| vec![Dim::Unknown; axes.len()]);
    for (axis, dim) in axes.iter().zip(target) {
        *shape.get_mut(*axis)? = dim;
    }
    Some(shape)
}
