//! Elements of small integer values that follow from shapes, for the arithmetic that exporters
//! put before `Reshape` and `Expand`. Only fixed numbers: one unknown dimension makes the whole
//! value unknown.

use crate::graph::{Attribute, Graph, Node, ValueId};
use std::collections::HashMap;

/// Values of more elements than this are no shapes.
const LIMIT: usize = 64;

/// The known integer values of a graph; booleans are 0 and 1.
#[derive(Debug, Default)]
pub(super) struct Integers(HashMap<ValueId, Vec<i64>>);

impl Integers {
    /// Returns the elements of a value.
    pub fn get(&self, graph: &Graph, value: ValueId) -> Option<Vec<i64>> {
        if let Some(known) = self.0.get(&value) {
            return Some(known.clone());
        }
        graph.constant(value).filter(|tensor| tensor.len() <= LIMIT)?.to_ints()
    }

    /// Learns the first output of a node.
    pub fn learn(&mut self, graph: &Graph, node: &Node) {
        if let (Some(output), Some(elements)) = (node.output(0), self.evaluate(graph, node))
            && elements.len() <= LIMIT
        {
            self.0.insert(output, elements);
        }
    }

    fn evaluate(&self, graph: &Graph, node: &Node) -> Option<Vec<i64>> {
        if !node.op.domain.is_empty() {
            return None;
        }
        let input = |index: usize| self.get(graph, node.input(index)?);
        let small = |value: ValueId| graph.fact(value).rank().is_some_and(|rank| rank <= 1);
        let attributes = &node.attributes;
        let sizes = |index: usize| -> Option<Vec<i64>> {
            graph.fact(node.input(index)?).sizes()?.into_iter().map(|size| i64::try_from(size).ok()).collect()
        };
        match node.op.name.as_str() {
            "Shape" => {
                let all = sizes(0)?;
                let rank = i64::try_from(all.len()).ok()?;
                let at = |index: i64| usize::try_from((if index < 0 { index + rank } else { index }).clamp(0, rank));
                let start = at(attributes.int("start", 0).ok()?).ok()?;
                let end = at(attributes.int("end", rank).ok()?).ok()?;
                all.get(start..end.max(start)).map(<[i64]>::to_vec)
            }
            "Size" => sizes(0)?.into_iter().try_fold(1i64, i64::checked_mul).map(|size| vec![size]),
            "Identity" | "Cast" | "CastLike" | "Unsqueeze" | "Squeeze" | "Reshape" => {
                let integer = graph.fact(node.output(0)?).dtype.is_none_or(|dtype| !dtype.is_float());
                input(0).filter(|_| integer)
            }
            "Gather" => {
                let data = input(0).filter(|_| node.input(0).is_some_and(small))?;
                let count = i64::try_from(data.len()).ok()?;
                let pick = |index: &i64| {
                    data.get(usize::try_from(if *index < 0 { index + count } else { *index }).ok()?).copied()
                };
                input(1)?.iter().map(pick).collect()
            }
            "Concat" => {
                let parts = (0..node.inputs.len()).map(input).collect::<Option<Vec<_>>>()?;
                node.inputs.iter().flatten().all(|value| small(*value)).then(|| parts.concat())
            }
            "Slice" => {
                let data = input(0)?;
                let shape = sizes(0)?;
                let rank = i64::try_from(shape.len()).ok()?;
                let (starts, ends) = (input(1)?, input(2)?);
                let axes = if node.input(3).is_some() { input(3)? } else { (0..rank).collect() };
                let steps = if node.input(4).is_some() { input(4)? } else { vec![1; starts.len()] };
                let mut picks: Vec<Vec<i64>> = shape.iter().map(|size| (0..*size).collect()).collect();
                for (index, axis) in axes.iter().enumerate().take(starts.len()) {
                    let axis = usize::try_from(if *axis < 0 { axis + rank } else { *axis }).ok()?;
                    let range = (*starts.get(index)?, *ends.get(index)?, *steps.get(index)?);
                    *picks.get_mut(axis)? = picked(*shape.get(axis)?, range)?;
                }
                gather(&data, &shape, &picks)
            }
            "Transpose" => {
                let shape = sizes(0)?;
                let reversed = || (0..shape.len() as i64).rev().collect();
                let perm: Vec<i64> = attributes.ints("perm").ok()?.unwrap_or_else(reversed);
                transpose(&input(0)?, &shape, &perm)
            }
            "ConstantOfShape" => {
                let count = input(0)?.into_iter().try_fold(1i64, i64::checked_mul)?;
                let count = usize::try_from(count).ok().filter(|count| *count <= LIMIT)?;
                let value = match attributes.get("value") {
                    Some(Attribute::Tensor(tensor)) => *tensor.to_ints()?.first()?,
                    _ => return None,
                };
                Some(vec![value; count])
            }
            "Where" => {
                let (condition, a, b) = (input(0)?, input(1)?, input(2)?);
                let at = |list: &[i64], index: usize| list.get(if list.len() == 1 { 0 } else { index }).copied();
                let count = condition.len().max(a.len()).max(b.len());
                (0..count)
                    .map(|index| if at(&condition, index)? != 0 { at(&a, index) } else { at(&b, index) })
                    .collect()
            }
            "Expand" => {
                let (data, target) = (input(0)?, input(1)?);
                let count = target.into_iter().try_fold(1i64, i64::checked_mul)?;
                let count = usize::try_from(count).ok().filter(|count| *count <= LIMIT)?;
                (data.len() == 1).then(|| vec![data[0]; count.max(1)])
            }
            "ReduceProd" => input(0)?.into_iter().try_fold(1i64, i64::checked_mul).map(|product| vec![product]),
            name => pairwise(name, &input(0)?, &input(1)?),
        }
    }
}

/// Returns the places that a slice with `(start, end, step)` takes of an axis.
fn picked(size: i64, (start, end, step): (i64, i64, i64)) -> Option<Vec<i64>> {
    let from_front = |index: i64| if index < 0 { index.saturating_add(size) } else { index };
    match step {
        0 => None,
        1.. => {
            Some((from_front(start).clamp(0, size)..from_front(end).clamp(0, size)).step_by(step as usize).collect())
        }
        _ => {
            let (first, last) = (from_front(start).clamp(-1, size - 1), from_front(end).clamp(-1, size - 1));
            Some((last + 1..=first).rev().step_by(step.unsigned_abs() as usize).collect())
        }
    }
}

/// Takes the given places of each axis.
fn gather(data: &[i64], shape: &[i64], picks: &[Vec<i64>]) -> Option<Vec<i64>> {
    let mut places = vec![0i64];
    for (size, picks) in shape.iter().zip(picks) {
        places = places.iter().flat_map(|place| picks.iter().map(move |pick| place * size + pick)).collect();
    }
    places.into_iter().map(|place| data.get(usize::try_from(place).ok()?).copied()).collect()
}

fn transpose(data: &[i64], shape: &[i64], perm: &[i64]) -> Option<Vec<i64>> {
    let axes: Vec<usize> = perm.iter().map(|axis| usize::try_from(*axis).ok()).collect::<Option<_>>()?;
    let stride = |axis: usize| -> i64 { shape[axis + 1..].iter().product() };
    let mut places = vec![0i64];
    for axis in axes {
        let (size, stride) = (*shape.get(axis)?, stride(axis));
        places = places.iter().flat_map(|place| (0..size).map(move |index| place + index * stride)).collect();
    }
    places.into_iter().map(|place| data.get(usize::try_from(place).ok()?).copied()).collect()
}

fn pairwise(op: &str, a: &[i64], b: &[i64]) -> Option<Vec<i64>> {
    let apply = |a: i64, b: i64| match op {
        "Add" => a.checked_add(b),
        "Sub" => a.checked_sub(b),
        "Mul" => a.checked_mul(b),
        "Div" => a.checked_div(b),
        "Mod" => a.checked_rem_euclid(b),
        "Min" => Some(a.min(b)),
        "Max" => Some(a.max(b)),
        "Equal" => Some(i64::from(a == b)),
        _ => None,
    };
    let count = a.len().max(b.len());
    let at = |list: &[i64], index: usize| list.get(if list.len() == 1 { 0 } else { index }).copied();
    (0..count).map(|index| apply(at(a, index)?, at(b, index)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_and_transpositions() {
        let data: Vec<i64> = (0..6).collect();
        assert_eq!(picked(3, (-1, i64::MIN, -1)), Some(vec![2, 1, 0]));
        assert_eq!(picked(5, (1, i64::MAX, 2)), Some(vec![1, 3]));
        assert_eq!(gather(&data, &[3, 2], &[vec![2, 1, 0], vec![0, 1]]), Some(vec![4, 5, 2, 3, 0, 1]));
        assert_eq!(transpose(&data, &[3, 2], &[1, 0]), Some(vec![0, 2, 4, 1, 3, 5]));
    }
}
