//! Operators that take some of the elements of a value, or spread them out.

use super::{Call, DType, Dim, Fact, Size, axes_of, axis_of, both, known};

pub(super) fn infer(call: &Call) -> Option<Vec<Fact>> {
    let open = |dtype: Option<DType>, rank: usize| Fact { dtype, shape: Some(vec![Dim::Unknown; rank]) };
    match call.name() {
        "Slice" => call.like(slice(call)),
        "Gather" => call.like(gather(call)),
        "GatherElements" => call.like(call.fact(1).shape.clone()),
        "GatherND" => call.like(gather_nd(call)),
        "OneHot" => call.give([Fact { dtype: call.dtype(2), shape: one_hot(call) }]),
        "TopK" => {
            let shape = top_k(call);
            call.give([Fact { dtype: call.dtype(0), shape: shape.clone() }, Fact { dtype: Some(DType::I64), shape }])
        }
        "NonZero" => {
            let rank = call.rank(0).map_or(Dim::Unknown, Dim::Known);
            call.give([Fact::new(DType::I64, vec![rank, Dim::Unknown])])
        }
        "Compress" => call.like(counted(call)),
        "Unique" => {
            let list = || open(Some(DType::I64), 1);
            call.give([Fact { dtype: call.dtype(0), shape: counted(call) }, list(), list(), list()])
        }
        _ => None,
    }
}

/// Returns the shape of a value of which the elements decide how much of an axis, or of all, is left.
fn counted(call: &Call) -> Option<Vec<Dim>> {
    if call.attributes.get("axis").is_none() {
        return Some(vec![Dim::Unknown]);
    }
    let mut shape = call.shape(0)?.to_vec();
    let axis = axis_of(call.int("axis", 0)?, shape.len())?;
    *shape.get_mut(axis)? = Dim::Unknown;
    Some(shape)
}

fn slice(call: &Call) -> Option<Vec<Dim>> {
    let mut shape = call.shape(0)?.to_vec();
    let rank = shape.len();
    let fixed = |sizes: Vec<i64>| sizes.into_iter().map(|size| Some(Size::from(size))).collect::<Vec<_>>();
    let (starts, ends, axes) = if call.has(1) {
        let axes = if call.has(3) { Some(call.fixed(3)) } else { None };
        (call.sizes(1), call.sizes(2), axes)
    } else {
        (call.ints("starts")?.map(fixed), call.ints("ends")?.map(fixed), call.ints("axes")?.map(Some))
    };
    let axes = match axes {
        Some(Some(axes)) => axes_of(&axes, rank)?,
        // Which axes change is not known, only that the rank stays.
        Some(None) => return Some(vec![Dim::Unknown; rank]),
        None => match starts.as_ref().or(ends.as_ref()) {
            Some(list) => (0..list.len()).collect(),
            None => return Some(vec![Dim::Unknown; rank]),
        },
    };
    let steps = if call.has(4) { call.fixed(4) } else { Some(vec![1; axes.len()]) };
    for (index, axis) in axes.into_iter().enumerate() {
        let at = |list: &Option<Vec<Option<Size>>>| list.as_ref()?.get(index)?.clone();
        let step = steps.as_ref().and_then(|steps| steps.get(index).copied());
        let dim = shape.get_mut(axis)?;
        *dim = match (at(&starts), at(&ends), step) {
            (Some(start), Some(end), Some(step)) => taken(dim, &start, &end, step),
            _ => Dim::Unknown,
        };
    }
    Some(shape)
}

/// Returns the size of a slice of an axis.
fn taken(dim: &Dim, start: &Size, end: &Size, step: i64) -> Dim {
    if let (Some(size), Some(start), Some(end)) = (dim.known(), start.fixed(), end.fixed()) {
        return sliced(size, start, end, step).map_or(Dim::Unknown, |(_, count)| Dim::Known(count));
    }
    let symbolic = || -> Option<Size> {
        let size = dim.size();
        // Where an index lies after counting from the front; `None` where it may be clamped.
        let place = |at: &Size| -> Option<Size> {
            match at.at_least() {
                Some(0..) => match (&size, at.fixed()) {
                    (_, Some(0)) => Some(Size::from(0)),
                    (Some(size), Some(end)) if end >= i64::from(i32::MAX) => Some(size.clone()),
                    (Some(size), _) => size.minus(at)?.at_least().filter(|least| *least >= 0).map(|_| at.clone()),
                    _ => None,
                },
                _ => {
                    let front = size.as_ref()?.plus(at)?;
                    at.fixed()?;
                    front.at_least().filter(|least| *least >= 0).map(|_| front)
                }
            }
        };
        let distance = place(end)?.minus(&place(start)?)?;
        distance.at_least().filter(|least| *least >= 0)?;
        (step > 0).then_some(())?;
        distance.plus(&Size::from(step - 1))?.floor_by(step)
    };
    if (start.fixed(), end.fixed(), step) == (Some(0), Some(i64::MAX), 1) {
        return dim.clone();
    }
    Dim::from(symbolic())
}

/// Returns the first position of a slice of an axis and its number of elements.
pub(crate) fn sliced(size: usize, start: i64, end: i64, step: i64) -> Option<(i64, usize)> {
    if size == 0 {
        return Some((0, 0));
    }
    let size = i64::try_from(size).ok()?;
    let from_front = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
    let (low, high) = if step < 0 { (-1, size - 1) } else { (0, size) };
    let start = from_front(start).clamp(0, high);
    let end = from_front(end).clamp(low, high);
    let (distance, stride) = if step < 0 { (start - end, step.checked_neg()?) } else { (end - start, step) };
    let count = distance.max(0).checked_add(stride.checked_sub(1)?)?.checked_div(stride)?;
    Some((start, usize::try_from(count).ok()?))
}

fn gather(call: &Call) -> Option<Vec<Dim>> {
    let shape = call.shape(0)?;
    let axis = axis_of(call.int("axis", 0)?, shape.len())?;
    Some([&shape[..axis], call.shape(1)?, &shape[axis + 1..]].concat())
}

fn gather_nd(call: &Call) -> Option<Vec<Dim>> {
    let (data, indices) = (call.shape(0)?, call.shape(1)?);
    let batch = usize::try_from(call.int("batch_dims", 0)?).ok()?;
    let (last, rest) = indices.split_last()?;
    let depth = last.known()?;
    let mut shape = rest.to_vec();
    for (slot, dim) in shape.iter_mut().zip(data).take(batch) {
        *slot = both(slot, dim);
    }
    shape.extend_from_slice(data.get(batch.checked_add(depth)?..)?);
    Some(shape)
}

fn one_hot(call: &Call) -> Option<Vec<Dim>> {
    let mut shape = call.shape(0)?.to_vec();
    let axis = axis_of(call.int("axis", -1)?, shape.len() + 1)?;
    let depth = call.reals(1).and_then(|depth| Some(known(*depth.first()? as i64)));
    shape.insert(axis, depth.unwrap_or_else(|| Dim::from(call.scalar(1))));
    Some(shape)
}

fn top_k(call: &Call) -> Option<Vec<Dim>> {
    let mut shape = call.shape(0)?.to_vec();
    let axis = axis_of(call.int("axis", -1)?, shape.len())?;
    let count = if call.has(1) { call.scalar(1) } else { Some(Size::from(call.int("k", -1)?)) };
    *shape.get_mut(axis)? = Dim::from(count);
    Some(shape)
}
