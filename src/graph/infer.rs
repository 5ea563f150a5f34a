//! Facts of the nodes that this program itself appends.
//!
//! This covers the operators that gradients, losses and optimizers emit; facts of a loaded
//! model come from its file and from tract (`facts`). An operator that is not listed
//! gives unknown facts, never wrong ones.

use super::{Attributes, DType, Dim, Fact, Graph, OpId, ValueId, infer_layers};

/// Returns the facts of `count` outputs.
pub(super) fn facts(
    graph: &Graph,
    op: &OpId,
    inputs: &[Option<ValueId>],
    attributes: &Attributes,
    count: usize,
) -> Vec<Fact> {
    facts_with(graph, op, inputs, attributes, count, &|value| graph.constant(value)?.to_ints())
}

/// Like `facts`, where `integers` says which integer values are known besides constants.
pub(crate) fn facts_with(
    graph: &Graph,
    op: &OpId,
    inputs: &[Option<ValueId>],
    attributes: &Attributes,
    count: usize,
    integers: &dyn Fn(ValueId) -> Option<Vec<i64>>,
) -> Vec<Fact> {
    let fact =
        |index: usize| inputs.get(index).copied().flatten().map_or_else(Fact::default, |id| graph.fact(id).clone());
    let ints = |index: usize| -> Option<Vec<i64>> { integers(inputs.get(index).copied().flatten()?) };
    let mut out = vec![Fact::default(); count];
    if !op.domain.is_empty() {
        return out;
    }
    let first = match op.name.as_str() {
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Max" | "Min" | "Sum" | "Mean" | "PRelu" | "Mod" => {
            let all: Vec<Fact> = (0..inputs.len()).map(fact).collect();
            Fact { dtype: all.iter().find_map(|f| f.dtype), shape: broadcast(&all) }
        }
        "Equal" | "Less" | "Greater" | "LessOrEqual" | "GreaterOrEqual" | "And" | "Or" | "Xor" => {
            Fact { dtype: Some(DType::Bool), shape: broadcast(&[fact(0), fact(1)]) }
        }
        "Where" => Fact { dtype: fact(1).dtype, shape: broadcast(&[fact(0), fact(1), fact(2)]) },
        "Not" | "IsNaN" | "IsInf" => Fact { dtype: Some(DType::Bool), shape: fact(0).shape },
        "Cast" => Fact {
            dtype: attributes.int("to", 0).ok().and_then(|code| i32::try_from(code).ok()).map(DType::from_code),
            shape: fact(0).shape,
        },
        "Size" => Fact { dtype: Some(DType::I64), shape: Some(Vec::new()) },
        "Shape" => Fact { dtype: Some(DType::I64), shape: Some(vec![shape_length(&fact(0), attributes)]) },
        "CastLike" => Fact { dtype: fact(1).dtype, shape: fact(0).shape },
        "Transpose" => Fact { dtype: fact(0).dtype, shape: transpose(&fact(0), attributes) },
        "Reshape" => Fact { dtype: fact(0).dtype, shape: reshape(&fact(0), ints(1)) },
        "Expand" => Fact {
            dtype: fact(0).dtype,
            shape: ints(1).and_then(|dims| {
                let target = Fact { dtype: None, shape: Some(dims.iter().map(size).collect()) };
                broadcast(&[fact(0), target])
            }),
        },
        "ConstantOfShape" => Fact {
            dtype: Some(match attributes.get("value") {
                Some(super::Attribute::Tensor(tensor)) => tensor.dtype(),
                _ => DType::F32,
            }),
            shape: ints(0).map(|dims| dims.iter().map(size).collect()),
        },
        "ReduceSum" | "ReduceMean" | "ReduceMax" | "ReduceMin" | "ReduceL2" | "ReduceLogSumExp" | "ReduceSumSquare"
        | "ReduceProd" | "ReduceL1" => {
            let axes = if inputs.len() > 1 { ints(1) } else { attributes.ints("axes").ok().flatten() };
            Fact { dtype: fact(0).dtype, shape: reduce(&fact(0), axes, inputs.len() > 1, attributes) }
        }
        "ArgMax" | "ArgMin" => {
            let axis = attributes.int("axis", 0).ok().map(|axis| vec![axis]);
            Fact { dtype: Some(DType::I64), shape: reduce(&fact(0), axis, true, attributes) }
        }
        "Squeeze" => Fact { dtype: fact(0).dtype, shape: squeeze(&fact(0), ints(1)) },
        "Unsqueeze" => Fact { dtype: fact(0).dtype, shape: unsqueeze(&fact(0), ints(1)) },
        "Flatten" => Fact { dtype: fact(0).dtype, shape: flatten(&fact(0), attributes) },
        "MatMul" => Fact { dtype: fact(0).dtype, shape: matmul(&fact(0), &fact(1)) },
        "Gemm" => Fact { dtype: fact(0).dtype, shape: gemm(&fact(0), &fact(1), attributes) },
        "Concat" => {
            let all: Vec<Fact> = (0..inputs.len()).map(fact).collect();
            Fact { dtype: all.iter().find_map(|f| f.dtype), shape: concat(&all, attributes) }
        }
        "Slice" => {
            let lists = [ints(1), ints(2), ints(3), ints(4)];
            Fact { dtype: fact(0).dtype, shape: slice(&fact(0), lists, inputs.len()) }
        }
        "Pad" if inputs.len() < 4 => Fact { dtype: fact(0).dtype, shape: pad(&fact(0), ints(1)) },
        "OneHot" => Fact { dtype: fact(2).dtype, shape: one_hot(&fact(0), ints(1), attributes) },
        "Gather" => Fact { dtype: fact(0).dtype, shape: gather(&fact(0), &fact(1), attributes) },
        "GatherElements" => Fact { dtype: fact(0).dtype, shape: fact(1).shape },
        "Abs" | "Neg" | "Sqrt" | "Exp" | "Log" | "Erf" | "Tanh" | "Sigmoid" | "Relu" | "Sign" | "Reciprocal"
        | "Softmax" | "LogSoftmax" | "Hardmax" | "Identity" | "Clip" | "Floor" | "Ceil" | "Round" | "Sin" | "Cos"
        | "Softplus" | "ScatterElements" | "ScatterND" | "CumSum" | "Trilu" | "LeakyRelu" | "Elu" | "HardSigmoid"
        | "HardSwish" | "BatchNormalization" | "Dropout" | "LayerNormalization" => fact(0),
        name => {
            infer_layers::first(name, &fact, &ints, attributes).unwrap_or(Fact { dtype: fact(0).dtype, shape: None })
        }
    };
    for (index, slot) in out.iter_mut().enumerate().skip(1) {
        *slot = match op.name.as_str() {
            "Dropout" if index == 1 => Fact { dtype: Some(DType::Bool), shape: fact(0).shape },
            "LayerNormalization" => statistics(&fact(0), attributes),
            "Split" | "BatchNormalization" => Fact { dtype: fact(0).dtype, shape: None },
            "MaxPool" => Fact { dtype: Some(DType::I64), shape: None },
            _ => Fact::default(),
        };
    }
    if let Some(slot) = out.first_mut() {
        *slot = first;
    }
    infer_layers::further(&op.name, &fact, &ints, attributes, &mut out);
    out
}

fn size(dim: &i64) -> Dim {
    usize::try_from(*dim).map_or(Dim::Unknown, Dim::Known)
}

/// Returns the broadcast shape of several facts; `None` when a rank is unknown.
pub(crate) fn broadcast(facts: &[Fact]) -> Option<Vec<Dim>> {
    let rank = facts.iter().map(Fact::rank).collect::<Option<Vec<usize>>>()?.into_iter().max()?;
    let mut result = vec![Dim::Known(1); rank];
    for fact in facts {
        let shape = fact.shape.as_ref()?;
        let offset = rank - shape.len();
        for (axis, dim) in shape.iter().enumerate() {
            let slot = &mut result[offset + axis];
            *slot = match (&*slot, dim) {
                (Dim::Known(1), other) => other.clone(),
                (other, Dim::Known(1)) => other.clone(),
                (Dim::Known(size), _) | (_, Dim::Known(size)) => Dim::Known(*size),
                (a, b) if a.same(b) => a.clone(),
                _ => Dim::Unknown,
            };
        }
    }
    Some(result)
}

fn transpose(input: &Fact, attributes: &Attributes) -> Option<Vec<Dim>> {
    let shape = input.shape.as_ref()?;
    match attributes.ints("perm").ok()? {
        None => Some(shape.iter().rev().cloned().collect()),
        Some(perm) => perm.iter().map(|axis| shape.get(usize::try_from(*axis).ok()?).cloned()).collect(),
    }
}

fn reshape(input: &Fact, target: Option<Vec<i64>>) -> Option<Vec<Dim>> {
    let target = target?;
    let old = input.shape.as_ref();
    let mut dims: Vec<Dim> = target
        .iter()
        .enumerate()
        .map(|(axis, size)| match size {
            0 => old.and_then(|shape| shape.get(axis)).cloned().unwrap_or(Dim::Unknown),
            -1 => Dim::Unknown,
            size => usize::try_from(*size).map_or(Dim::Unknown, Dim::Known),
        })
        .collect();
    if let (Some(rest), Some(old)) = (target.iter().position(|size| *size == -1), old) {
        let mut left: Vec<&Dim> = old.iter().filter(|dim| dim.known().is_none()).collect();
        let mut known: usize = old.iter().filter_map(Dim::known).product();
        let mut exact = true;
        for (axis, dim) in dims.iter().enumerate().filter(|(axis, _)| *axis != rest) {
            match dim {
                Dim::Known(0) => exact = false,
                Dim::Known(size) if known.is_multiple_of(*size) => known /= size,
                Dim::Known(_) => exact = false,
                symbol => match left.iter().position(|dim| dim.same(symbol)) {
                    Some(index) => drop(left.remove(index)),
                    None => exact = exact && target[axis] == 0 && *symbol != Dim::Unknown,
                },
            }
        }
        if exact {
            dims[rest] = match left.as_slice() {
                [] => Dim::Known(known),
                [symbol] if known == 1 => (*symbol).clone(),
                _ => Dim::Unknown,
            };
        }
    }
    Some(dims)
}

fn axes_of(axes: &[i64], rank: usize) -> Option<Vec<usize>> {
    let rank = i64::try_from(rank).ok()?;
    axes.iter().map(|axis| usize::try_from(if *axis < 0 { axis + rank } else { *axis }).ok()).collect()
}

fn reduce(input: &Fact, axes: Option<Vec<i64>>, needs_axes: bool, attributes: &Attributes) -> Option<Vec<Dim>> {
    let shape = input.shape.as_ref()?;
    let axes = match axes {
        Some(axes) => axes_of(&axes, shape.len())?,
        None if needs_axes => return None,
        None if attributes.int("noop_with_empty_axes", 0).ok()? == 1 => Vec::new(),
        None => (0..shape.len()).collect(),
    };
    let keep = attributes.int("keepdims", 1).ok()? == 1;
    let reduced = shape.iter().enumerate().filter_map(|(axis, dim)| match (axes.contains(&axis), keep) {
        (false, _) => Some(dim.clone()),
        (true, true) => Some(Dim::Known(1)),
        (true, false) => None,
    });
    Some(reduced.collect())
}

/// The mean and the inverse standard deviation of a layer normalization.
fn statistics(input: &Fact, attributes: &Attributes) -> Fact {
    let dtype = attributes.int("stash_type", 1).ok().and_then(|code| i32::try_from(code).ok()).map(DType::from_code);
    let shape = input.shape.clone().and_then(|mut shape| {
        let first = *axes_of(&[attributes.int("axis", -1).ok()?], shape.len())?.first()?;
        shape.get_mut(first..)?.fill(Dim::Known(1));
        Some(shape)
    });
    Fact { dtype, shape }
}

fn squeeze(input: &Fact, axes: Option<Vec<i64>>) -> Option<Vec<Dim>> {
    let shape = input.shape.as_ref()?;
    let axes = axes_of(&axes?, shape.len())?;
    Some(shape.iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, dim)| dim.clone()).collect())
}

fn unsqueeze(input: &Fact, axes: Option<Vec<i64>>) -> Option<Vec<Dim>> {
    let shape = input.shape.as_ref()?;
    let axes = axes?;
    let rank = shape.len() + axes.len();
    let axes = axes_of(&axes, rank)?;
    let mut rest = shape.iter();
    (0..rank).map(|axis| if axes.contains(&axis) { Some(Dim::Known(1)) } else { rest.next().cloned() }).collect()
}

fn flatten(input: &Fact, attributes: &Attributes) -> Option<Vec<Dim>> {
    let shape = input.shape.as_ref()?;
    let axis = *axes_of(&[attributes.int("axis", 1).ok()?], shape.len())?.first()?;
    let merge = |dims: &[Dim]| match dims {
        [dim] => dim.clone(),
        dims => dims.iter().map(Dim::known).product::<Option<usize>>().map_or(Dim::Unknown, Dim::Known),
    };
    Some(vec![merge(shape.get(..axis)?), merge(&shape[axis..])])
}

fn matmul(a: &Fact, b: &Fact) -> Option<Vec<Dim>> {
    let (a, b) = (a.shape.clone()?, b.shape.clone()?);
    let (rank_a, rank_b) = (a.len(), b.len());
    if rank_a < 2 || rank_b < 2 {
        return match (rank_a, rank_b) {
            (0, _) | (_, 0) => None,
            (1, 1) => Some(Vec::new()),
            (1, _) => Some([&b[..rank_b - 2], &b[rank_b - 1..]].concat()),
            (_, 1) => Some(a[..rank_a - 1].to_vec()),
            _ => None,
        };
    }
    let batch = |shape: &[Dim]| Fact { dtype: None, shape: Some(shape[..shape.len() - 2].to_vec()) };
    let mut shape = broadcast(&[batch(&a), batch(&b)])?;
    shape.push(a[rank_a - 2].clone());
    shape.push(b[rank_b - 1].clone());
    Some(shape)
}

fn gemm(a: &Fact, b: &Fact, attributes: &Attributes) -> Option<Vec<Dim>> {
    let rows = a.dim(attributes.int("transA", 0).ok()?)?.clone();
    let columns = b.dim(1 - attributes.int("transB", 0).ok()?)?.clone();
    Some(vec![rows, columns])
}

fn concat(facts: &[Fact], attributes: &Attributes) -> Option<Vec<Dim>> {
    let mut shape = facts.first()?.shape.clone()?;
    let axis = *axes_of(&[attributes.int("axis", 0).ok()?], shape.len())?.first()?;
    for fact in &facts[1..] {
        let other = fact.shape.as_ref().filter(|other| other.len() == shape.len())?;
        for (index, dim) in other.iter().enumerate() {
            shape[index] = match (&shape[index], dim) {
                (Dim::Known(a), Dim::Known(b)) if index == axis => Dim::Known(a + b),
                _ if index == axis => Dim::Unknown,
                (Dim::Known(size), _) | (_, Dim::Known(size)) => Dim::Known(*size),
                (a, _) => a.clone(),
            };
        }
    }
    Some(shape)
}

fn shape_length(input: &Fact, attributes: &Attributes) -> Dim {
    let length = |rank: usize| {
        let rank = i64::try_from(rank).ok()?;
        let from_front = |at: i64| if at < 0 { at + rank } else { at }.clamp(0, rank);
        let start = from_front(attributes.int("start", 0).ok()?);
        let end = from_front(attributes.int("end", rank).ok()?);
        usize::try_from(end - start).ok()
    };
    input.rank().and_then(length).map_or(Dim::Unknown, Dim::Known)
}

fn slice(input: &Fact, [starts, ends, axes, steps]: [Option<Vec<i64>>; 4], inputs: usize) -> Option<Vec<Dim>> {
    let mut shape = input.shape.clone()?;
    let (starts, ends) = (starts?, ends?);
    let axes = if inputs > 3 { axes? } else { (0..i64::try_from(starts.len()).ok()?).collect() };
    let steps = if inputs > 4 { steps? } else { vec![1; starts.len()] };
    for (index, axis) in axes_of(&axes, shape.len())?.into_iter().enumerate() {
        let (start, end, step) = (*starts.get(index)?, *ends.get(index)?, *steps.get(index)?);
        let dim = shape.get_mut(axis)?;
        *dim = match dim.known() {
            Some(size) => Dim::Known(sliced(size, start, end, step)?.1),
            None if (start, end, step) == (0, i64::MAX, 1) => continue,
            None => Dim::Unknown,
        };
    }
    Some(shape)
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
    let count = distance.max(0).checked_add(stride - 1)?.checked_div(stride)?;
    Some((start, usize::try_from(count).ok()?))
}

fn pad(input: &Fact, pads: Option<Vec<i64>>) -> Option<Vec<Dim>> {
    let (shape, pads) = (input.shape.as_ref()?, pads?);
    let padded = shape.iter().enumerate().map(|(axis, dim)| {
        let more = pads.get(axis)?.checked_add(*pads.get(shape.len() + axis)?)?;
        Some(match dim.known() {
            Some(size) => Dim::Known(usize::try_from(i64::try_from(size).ok()?.checked_add(more)?).ok()?),
            None if more == 0 => dim.clone(),
            None => Dim::Unknown,
        })
    });
    padded.collect()
}

fn one_hot(indices: &Fact, depth: Option<Vec<i64>>, attributes: &Attributes) -> Option<Vec<Dim>> {
    let mut shape = indices.shape.clone()?;
    let axis = attributes.int("axis", -1).ok()?;
    let axis = *axes_of(&[axis], shape.len() + 1)?.first()?;
    let depth = depth.and_then(|depth| usize::try_from(*depth.first()?).ok());
    shape.insert(axis, depth.map_or(Dim::Unknown, Dim::Known));
    Some(shape)
}

fn gather(data: &Fact, indices: &Fact, attributes: &Attributes) -> Option<Vec<Dim>> {
    let shape = data.shape.as_ref()?;
    let axis = *axes_of(&[attributes.int("axis", 0).ok()?], shape.len())?.first()?;
    Some([&shape[..axis], indices.shape.as_ref()?, &shape[axis + 1..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(text: &str) -> Fact {
        let dims = text.split_whitespace().map(|word| match word.parse() {
            Ok(size) => Dim::Known(size),
            Err(_) if word == "?" => Dim::Unknown,
            Err(_) => Dim::Symbol(word.to_string()),
        });
        Fact { dtype: Some(DType::F32), shape: Some(dims.collect()) }
    }

    fn text(shape: Option<Vec<Dim>>) -> String {
        shape.map_or("none".into(), |dims| dims.iter().map(Dim::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn shapes() {
        let keep = |keep: i64| Attributes::none().with("keepdims", keep);
        let cases = [
            ("broadcast symbol with 1", text(broadcast(&[fact("N 1 3"), fact("4 1")])), "N 4 3"),
            ("broadcast different symbols", text(broadcast(&[fact("N"), fact("M")])), "?"),
            ("reshape rest is the batch", text(reshape(&fact("N 4 4"), Some(vec![-1, 16]))), "N 16"),
            ("reshape merges the batch", text(reshape(&fact("N 4 4"), Some(vec![-1, 4]))), "? 4"),
            ("reshape keeps by 0", text(reshape(&fact("N 4 4"), Some(vec![0, -1]))), "N 16"),
            ("reshape fixed", text(reshape(&fact("2 4 4"), Some(vec![-1, 8]))), "4 8"),
            ("reduce", text(reduce(&fact("N 4 5"), Some(vec![-1, 0]), true, &keep(0))), "4"),
            ("reduce keeping", text(reduce(&fact("N 4 5"), Some(vec![1]), true, &keep(1))), "N 1 5"),
            ("unsqueeze", text(unsqueeze(&fact("N 4"), Some(vec![-1, 0]))), "1 N 4 1"),
            (
                "slice",
                text(slice(
                    &fact("N 5 6"),
                    [Some(vec![1, -1]), Some(vec![-1, -9]), Some(vec![1, 2]), Some(vec![2, -2])],
                    5,
                )),
                "N 2 3",
            ),
            ("slice of a symbol", text(slice(&fact("N 5"), [Some(vec![1]), Some(vec![9]), None, None], 3)), "? 5"),
            ("pad", text(pad(&fact("N 5"), Some(vec![0, 1, 0, -2]))), "N 4"),
            ("part of a shape", shape_length(&fact("N 5 6"), &Attributes::none().with("start", -1)).to_string(), "1"),
            ("flatten", text(flatten(&fact("N 4 5"), &Attributes::none())), "N 20"),
            ("flatten in the middle", text(flatten(&fact("N 4 5"), &Attributes::none().with("axis", -1))), "? 5"),
            ("flatten all", text(flatten(&fact("3 4 5"), &Attributes::none().with("axis", 0))), "1 60"),
            ("matmul", text(matmul(&fact("N 2 3"), &fact("3 7"))), "N 2 7"),
            ("matmul vector", text(matmul(&fact("N 2 3"), &fact("3"))), "N 2"),
        ];
        let failures: Vec<_> = cases.iter().filter(|(_, found, expected)| found != expected).collect();
        assert!(failures.is_empty(), "{failures:?}");
    }
}
