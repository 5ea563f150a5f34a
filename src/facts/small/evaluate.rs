//! The operators of shape arithmetic on small values.

use super::element::{binary, cast, unary};
use super::moves::axis_of;
use super::{Small, broadcast};
use crate::graph::{Attribute, DType, Fact, Node, Number, Size};

/// A node with what is known of its inputs.
pub(in crate::facts) struct Question<'a> {
    pub node: &'a Node,
    /// Facts of the inputs by position.
    pub facts: &'a dyn Fn(usize) -> &'a Fact,
    /// Facts of the outputs by position.
    pub outputs: &'a [Fact],
    /// True when the elements of an input can be had.
    pub has: &'a dyn Fn(usize) -> bool,
    /// The elements of an input.
    pub small: &'a dyn Fn(usize) -> Option<Small>,
}

/// Returns the elements of the outputs; `None` when nothing is known of any.
pub(in crate::facts) fn evaluate(question: &Question) -> Option<Vec<Option<Small>>> {
    let node = question.node;
    if !node.op.domain.is_empty() || node.outputs.is_empty() {
        return None;
    }
    if node.op.is("Split") {
        return split(question);
    }
    let small = one(question)?;
    (small.data.len() <= Small::limit(question.outputs.first()?.dtype)).then(|| vec![Some(small)])
}

fn one(question: &Question) -> Option<Small> {
    let Question { node, .. } = question;
    let attributes = &node.attributes;
    let name = node.op.name.as_str();
    let input = |index: usize| (question.small)(index);
    let known = |count: usize| (0..count).all(|index| (question.has)(index)).then_some(());
    let dtype = || question.outputs.first()?.dtype;
    let fixed = |index: usize| input(index)?.data.iter().map(Number::fixed).collect::<Option<Vec<i64>>>();
    let sizes = |index: usize| -> Option<Vec<usize>> {
        fixed(index)?.into_iter().map(|size| usize::try_from(size).ok()).collect()
    };
    match name {
        "Shape" => shape(question),
        "Size" => {
            let dims = (question.facts)(0).shape.as_ref()?;
            let size = dims.iter().try_fold(Size::from(1), |size, dim| size.times(&dim.size()?))?;
            Some(Small::scalar(Number::Size(size)))
        }
        "Constant" => match attributes.iter().next()?.1 {
            Attribute::Tensor(tensor) => Small::of(tensor),
            Attribute::Int(value) => Some(Small::scalar(Number::Size(Size::from(*value)))),
            Attribute::Float(value) => Some(Small::scalar(Number::of_real(f64::from(*value)))),
            Attribute::Ints(values) => {
                Some(Small::list(values.iter().map(|value| Number::Size(Size::from(*value))).collect()))
            }
            Attribute::Floats(values) => {
                Some(Small::list(values.iter().map(|value| Number::of_real(f64::from(*value))).collect()))
            }
            _ => None,
        },
        "Identity" => input(0),
        "Cast" | "CastLike" => {
            let to = dtype()?;
            let small = input(0)?;
            Some(Small { data: small.data.iter().map(|number| cast(number, to)).collect(), shape: small.shape })
        }
        "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" => {
            known(1)?;
            input(0)?.reshaped(question.outputs.first()?.sizes()?)
        }
        "Gather" => {
            known(2)?;
            input(0)?.gather(&input(1)?, attributes.int("axis", 0).ok()?)
        }
        "Concat" => {
            known(node.inputs.len())?;
            let parts: Vec<Small> = (0..node.inputs.len()).map(input).collect::<Option<_>>()?;
            Small::join(&parts, attributes.int("axis", 0).ok()?)
        }
        "Slice" => slice(question),
        "Transpose" => input(0)?.transpose(attributes.ints("perm").ok()?),
        "Expand" => {
            known(2)?;
            input(0)?.expand(&sizes(1)?)
        }
        "Tile" => {
            known(2)?;
            input(0)?.tile(&sizes(1)?)
        }
        "ConstantOfShape" => {
            let value = match attributes.get("value") {
                Some(Attribute::Tensor(tensor)) => Small::of(tensor)?.data.first()?.clone(),
                Some(_) => return None,
                None => Number::Size(Size::from(0)),
            };
            Small::build(sizes(0)?, |_| Some(value.clone()))
        }
        "Range" => {
            known(3)?;
            range([input(0)?, input(1)?, input(2)?], dtype()?)
        }
        "Where" => {
            known(3)?;
            let (condition, a, b) = (input(0)?, input(1)?, input(2)?);
            let shape = broadcast(&[&condition.shape, &a.shape, &b.shape])?;
            Small::build(shape, |index| {
                let (a, b) = (a.spread(index)?, b.spread(index)?);
                Some(match condition.spread(index)?.fixed() {
                    Some(0) => b.clone(),
                    Some(_) => a.clone(),
                    None if a == b => a.clone(),
                    None => Number::Unknown,
                })
            })
        }
        "ReduceProd" | "ReduceSum" | "ReduceMax" | "ReduceMin" => reduce(question),
        "CumSum" => {
            known(2)?;
            cumulate(question, fixed(1)?.first().copied()?)
        }
        "OneHot" => {
            known(3)?;
            one_hot(question)
        }
        "Trilu" => {
            let diagonal = if node.input(1).is_some() { *fixed(1)?.first()? } else { 0 };
            input(0)?.trilu(attributes.int("upper", 1).ok()? == 1, diagonal)
        }
        "NonZero" => input(0)?.non_zero(),
        "Max" | "Min" | "Sum" if node.inputs.len() != 2 => {
            known(node.inputs.len())?;
            let parts: Vec<Small> = (0..node.inputs.len()).map(input).collect::<Option<_>>()?;
            let op = if name == "Sum" { "Add" } else { name };
            parts.into_iter().map(Some).reduce(|a, b| pairwise(op, &a?, &b?, dtype()?, true))?
        }
        _ if node.inputs.len() == 1 => {
            known(1)?;
            unary(name, &Number::Unknown, DType::I64)?;
            let (small, dtype) = (input(0)?, dtype()?);
            let data = small.data.iter().map(|number| unary(name, number, dtype)).collect::<Option<_>>()?;
            Some(Small { shape: small.shape, data })
        }
        _ if node.inputs.len() == 2 => {
            known(2)?;
            binary(name, &Number::Unknown, &Number::Unknown, DType::I64, true)?;
            // Comparisons compute in the dtype of what they compare.
            let dtype = match dtype()? {
                DType::Bool => (question.facts)(0).dtype?,
                dtype => dtype,
            };
            pairwise(name, &input(0)?, &input(1)?, dtype, attributes.int("fmod", 0).ok()? == 0)
        }
        _ => None,
    }
}

fn pairwise(op: &str, a: &Small, b: &Small, dtype: DType, floor: bool) -> Option<Small> {
    let shape = broadcast(&[&a.shape, &b.shape])?;
    Small::build(shape, |index| binary(op, a.spread(index)?, b.spread(index)?, dtype, floor))
}

fn shape(question: &Question) -> Option<Small> {
    let dims = (question.facts)(0).shape.as_ref()?;
    let count = i64::try_from(dims.len()).ok()?;
    let place = |name: &str, default: i64| -> Option<usize> {
        let at = question.node.attributes.int(name, default).ok()?;
        usize::try_from(if at < 0 { at.saturating_add(count) } else { at }.clamp(0, count)).ok()
    };
    let (start, end) = (place("start", 0)?, place("end", count)?);
    let number = |dim: &crate::graph::Dim| dim.size().map_or(Number::Unknown, Number::Size);
    Some(Small::list(dims.get(start..end.max(start))?.iter().map(number).collect()))
}

fn slice(question: &Question) -> Option<Small> {
    let node = question.node;
    (question.has)(0).then_some(())?;
    let list = |index: usize, name: &str| -> Option<Option<Vec<i64>>> {
        if node.input(index).is_some() {
            return Some(Some((question.small)(index)?.data.iter().map(Number::fixed).collect::<Option<Vec<i64>>>()?));
        }
        node.attributes.ints(name).ok()
    };
    let (starts, ends) = (list(1, "starts")??, list(2, "ends")??);
    let data = (question.small)(0)?;
    let axes = list(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = list(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
    let range = |(index, axis): (usize, &i64)| {
        let axis = axis_of(*axis, data.shape.len())?;
        Some((axis, *starts.get(index)?, *ends.get(index)?, *steps.get(index)?))
    };
    data.slice(&axes.iter().enumerate().map(range).collect::<Option<Vec<_>>>()?)
}

fn split(question: &Question) -> Option<Vec<Option<Small>>> {
    (question.has)(0).then_some(())?;
    let data = (question.small)(0)?;
    let axis = axis_of(question.node.attributes.int("axis", 0).ok()?, data.shape.len())?;
    let mut start = 0;
    let mut parts = Vec::with_capacity(question.outputs.len());
    for output in question.outputs {
        let size = output.shape.as_ref()?.get(axis)?.known()?;
        parts.push(Some(data.take(axis, &(start..start + size).collect::<Vec<_>>())?));
        start += size;
    }
    (start == data.shape[axis]).then_some(parts)
}

fn range([start, limit, step]: [Small; 3], dtype: DType) -> Option<Small> {
    let first = |small: &Small| small.data.first()?.real();
    let (start, limit, step) = (first(&start)?, first(&limit)?, first(&step)?);
    let count = ((limit - start) / step).ceil().max(0.0);
    if !count.is_finite() || count > Small::limit(Some(dtype)) as f64 {
        return None;
    }
    Small::build(vec![count as usize], |index| Some(cast(&Number::of_real(start + index[0] as f64 * step), dtype)))
}

fn reduce(question: &Question) -> Option<Small> {
    let node = question.node;
    let op = match node.op.name.as_str() {
        "ReduceProd" => "Mul",
        "ReduceSum" => "Add",
        "ReduceMax" => "Max",
        _ => "Min",
    };
    (question.has)(0).then_some(())?;
    let data = (question.small)(0)?;
    let dtype = question.outputs.first()?.dtype?;
    let axes = if node.input(1).is_some() {
        (question.small)(1)?.data.iter().map(Number::fixed).collect::<Option<Vec<i64>>>()?
    } else {
        node.attributes.ints("axes").ok()?.unwrap_or_default()
    };
    let rank = data.shape.len();
    let axes: Vec<usize> = axes.into_iter().map(|axis| axis_of(axis, rank)).collect::<Option<_>>()?;
    if axes.is_empty() && node.attributes.int("noop_with_empty_axes", 0).ok()? == 1 {
        return Some(data);
    }
    let gone = |axis: usize| axes.is_empty() || axes.contains(&axis);
    let start = match op {
        "Mul" => Some(Number::Size(Size::from(1))),
        "Add" => Some(Number::Size(Size::from(0))),
        _ => None,
    };
    let kept: Vec<usize> = (0..rank).map(|axis| if gone(axis) { 1 } else { data.shape[axis] }).collect();
    let count = kept.iter().product();
    let mut sums: Vec<Option<Number>> = vec![start; count];
    Small::build(data.shape.clone(), |index| {
        let place = (0..rank).fold(0, |place, axis| place * kept[axis] + if gone(axis) { 0 } else { index[axis] });
        let number = data.get(index)?;
        let slot = sums.get_mut(place)?;
        *slot = Some(match slot.take() {
            Some(sum) => binary(op, &sum, number, dtype, true)?,
            None => number.clone(),
        });
        Some(Number::Unknown)
    })?;
    let shape = if node.attributes.int("keepdims", 1).ok()? == 1 {
        kept
    } else {
        (0..rank).filter(|axis| !gone(*axis)).map(|axis| data.shape[axis]).collect()
    };
    Some(Small { shape, data: sums.into_iter().collect::<Option<Vec<_>>>()? })
}

fn cumulate(question: &Question, axis: i64) -> Option<Small> {
    let attributes = &question.node.attributes;
    if attributes.int("exclusive", 0).ok()? != 0 || attributes.int("reverse", 0).ok()? != 0 {
        return None;
    }
    let data = (question.small)(0)?;
    let dtype = question.outputs.first()?.dtype?;
    let axis = axis_of(axis, data.shape.len())?;
    let mut sums: Vec<Number> = Vec::with_capacity(data.data.len());
    let stride: usize = data.shape[axis + 1..].iter().product();
    Small::build(data.shape.clone(), |index| {
        let number = data.get(index)?;
        let sum = match index[axis] {
            0 => number.clone(),
            _ => binary("Add", sums.get(sums.len().checked_sub(stride)?)?, number, dtype, true)?,
        };
        sums.push(sum.clone());
        Some(sum)
    })
}

fn one_hot(question: &Question) -> Option<Small> {
    let (indices, values) = ((question.small)(0)?, (question.small)(2)?);
    let shape = question.outputs.first()?.sizes()?;
    let axis = axis_of(question.node.attributes.int("axis", -1).ok()?, shape.len())?;
    let depth = *shape.get(axis)?;
    let (off, on) = (values.data.first()?.clone(), values.data.get(1)?.clone());
    Small::build(shape, |index| {
        let mut rest = index.to_vec();
        let at = rest.remove(axis);
        Some(match indices.get(&rest)?.fixed() {
            Some(hot) if axis_of(hot, depth) == Some(at) => on.clone(),
            Some(_) => off.clone(),
            None => Number::Unknown,
        })
    })
}
