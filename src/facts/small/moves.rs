//! Rearranging small values.

use super::Small;
use crate::graph::{Number, Size, sliced};

pub(super) fn axis_of(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    let axis = if axis < 0 { axis.checked_add(rank)? } else { axis };
    if axis < rank { usize::try_from(axis).ok() } else { None }
}

impl Small {
    /// Returns the places of an axis, in the given order.
    pub(in crate::facts) fn take(&self, axis: usize, places: &[usize]) -> Option<Small> {
        let mut shape = self.shape.clone();
        *shape.get_mut(axis)? = places.len();
        Small::build(shape, |index| {
            let mut index = index.to_vec();
            index[axis] = places[index[axis]];
            self.get(&index).cloned()
        })
    }

    /// Returns the same elements without an axis of size 1.
    pub(in crate::facts) fn without(self, axis: usize) -> Option<Small> {
        let mut shape = self.shape.clone();
        (axis < shape.len()).then(|| shape.remove(axis)).filter(|size| *size == 1)?;
        self.reshaped(shape)
    }

    /// Returns values joined along an axis that they have.
    pub(in crate::facts) fn join(parts: &[Small], axis: i64) -> Option<Small> {
        let mut shape = parts.first()?.shape.clone();
        let axis = axis_of(axis, shape.len())?;
        let fits = |part: &Small| {
            part.shape.len() == shape.len()
                && part.shape.iter().zip(&shape).enumerate().all(|(at, (a, b))| at == axis || a == b)
        };
        if !parts.iter().all(fits) {
            return None;
        }
        shape[axis] = parts.iter().map(|part| part.shape[axis]).sum();
        Small::build(shape, |index| {
            let mut index = index.to_vec();
            for part in parts {
                if index[axis] < part.shape[axis] {
                    return part.get(&index).cloned();
                }
                index[axis] -= part.shape[axis];
            }
            None
        })
    }

    /// Returns the elements that indices of any shape choose along an axis.
    pub(super) fn gather(&self, indices: &Small, axis: i64) -> Option<Small> {
        let axis = axis_of(axis, self.shape.len())?;
        let size = self.shape[axis];
        let shape = [&self.shape[..axis], indices.shape.as_slice(), &self.shape[axis + 1..]].concat();
        let end = axis + indices.shape.len();
        Small::build(shape, |index| {
            let Some(place) = indices.get(&index[axis..end])?.fixed() else { return Some(Number::Unknown) };
            let place = axis_of(place, size)?;
            self.get(&[&index[..axis], &[place], &index[end..]].concat()).cloned()
        })
    }

    /// Returns a slice, each of `(axis, start, end, step)` in turn.
    pub(super) fn slice(&self, ranges: &[(usize, i64, i64, i64)]) -> Option<Small> {
        let mut result = self.clone();
        for (axis, start, end, step) in ranges {
            let (first, count) = sliced(*self.shape.get(*axis)?, *start, *end, *step)?;
            let place = |index: usize| -> Option<usize> {
                usize::try_from(first.checked_add(i64::try_from(index).ok()?.checked_mul(*step)?)?).ok()
            };
            result = result.take(*axis, &(0..count).map(place).collect::<Option<Vec<usize>>>()?)?;
        }
        Some(result)
    }

    pub(super) fn transpose(&self, perm: Option<Vec<i64>>) -> Option<Small> {
        let rank = self.shape.len();
        let perm: Vec<usize> = match perm {
            Some(perm) => perm.into_iter().map(|axis| axis_of(axis, rank)).collect::<Option<_>>()?,
            None => (0..rank).rev().collect(),
        };
        if perm.len() != rank {
            return None;
        }
        Small::build(perm.iter().map(|axis| self.shape[*axis]).collect(), |index| {
            let mut old = vec![0; rank];
            perm.iter().zip(index).for_each(|(axis, at)| old[*axis] = *at);
            self.get(&old).cloned()
        })
    }

    /// Returns this value broadcast together with a shape.
    pub(super) fn expand(&self, shape: &[usize]) -> Option<Small> {
        Small::build(super::broadcast(&[&self.shape, shape])?, |index| self.spread(index).cloned())
    }

    pub(super) fn tile(&self, repeats: &[usize]) -> Option<Small> {
        if repeats.len() != self.shape.len() {
            return None;
        }
        let shape =
            self.shape.iter().zip(repeats).map(|(size, times)| size.checked_mul(*times)).collect::<Option<_>>()?;
        Small::build(shape, |index| {
            let old: Vec<usize> = index.iter().zip(&self.shape).map(|(at, size)| at % size.max(&1)).collect();
            self.get(&old).cloned()
        })
    }

    pub(super) fn trilu(&self, upper: bool, diagonal: i64) -> Option<Small> {
        let rank = self.shape.len();
        if rank < 2 {
            return None;
        }
        Small::build(self.shape.clone(), |index| {
            let (row, column) = (i64::try_from(index[rank - 2]).ok()?, i64::try_from(index[rank - 1]).ok()?);
            let keep = if upper { column - row >= diagonal } else { column - row <= diagonal };
            if keep { self.get(index).cloned() } else { Some(Number::Size(Size::from(0))) }
        })
    }

    /// Returns `[rank, count]`, the places of what is not zero; `None` when an element is unknown.
    pub(super) fn non_zero(&self) -> Option<Small> {
        let mut places: Vec<Vec<usize>> = Vec::new();
        Small::build(self.shape.clone(), |index| {
            if self.get(index)?.real()? != 0.0 {
                places.push(index.to_vec());
            }
            Some(Number::Unknown)
        })?;
        Small::build(vec![self.shape.len(), places.len()], |index| {
            Some(Number::Size(Size::from(i64::try_from(*places.get(index[1])?.get(index[0])?).ok()?)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Tensor;

    fn small(shape: &[usize], data: &[i64]) -> Small {
        Small::of(&Tensor::from_vec(shape, data.to_vec())).unwrap()
    }

    #[test]
    fn moves() {
        let matrix = small(&[2, 3], &[0, 1, 2, 3, 4, 5]);
        let cases = [
            ("take", matrix.take(1, &[2, 0]), small(&[2, 2], &[2, 0, 5, 3])),
            ("gather", matrix.gather(&small(&[1], &[-1]), 0), small(&[1, 3], &[3, 4, 5])),
            ("gather a scalar", matrix.gather(&small(&[], &[1]), 1), small(&[2], &[1, 4])),
            ("slice back", matrix.slice(&[(1, -1, i64::MIN, -2)]), small(&[2, 2], &[2, 0, 5, 3])),
            ("slice twice", matrix.slice(&[(0, 1, 9, 1), (1, 0, -1, 1)]), small(&[1, 2], &[3, 4])),
            ("transpose", matrix.transpose(None), small(&[3, 2], &[0, 3, 1, 4, 2, 5])),
            (
                "join",
                Small::join(&[matrix.clone(), small(&[2, 1], &[8, 9])], -1),
                small(&[2, 4], &[0, 1, 2, 8, 3, 4, 5, 9]),
            ),
            ("expand", small(&[2, 1], &[1, 2]).expand(&[1, 2]), small(&[2, 2], &[1, 1, 2, 2])),
            ("tile", small(&[2], &[1, 2]).tile(&[2]), small(&[4], &[1, 2, 1, 2])),
            ("lower", matrix.trilu(false, 0), small(&[2, 3], &[0, 0, 0, 3, 4, 0])),
            ("non zero", small(&[2, 2], &[0, 5, 7, 0]).non_zero(), small(&[2, 2], &[0, 1, 1, 0])),
            ("without", small(&[1, 2], &[1, 2]).without(0), small(&[2], &[1, 2])),
        ];
        let failures: Vec<_> = cases.iter().filter(|(_, found, expected)| found.as_ref() != Some(expected)).collect();
        assert!(failures.is_empty(), "{failures:?}");
        assert_eq!(small(&[1], &[0]).expand(&[1 << 40]), None);
        assert_eq!(matrix.gather(&small(&[1], &[3]), 1), None);
    }
}
