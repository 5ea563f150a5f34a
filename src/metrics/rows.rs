//! Tensors row by row, as f64, without a copy of the whole.

use crate::graph::Tensor;

/// Elements that are converted at a time.
const CHUNK: usize = 1 << 16;

/// Returns elements `from..to`; `None` for a dtype that holds no numbers.
pub(super) fn floats(tensor: &Tensor, from: usize, to: usize) -> Option<Vec<f64>> {
    let size = tensor.dtype().size();
    let bytes = tensor.bytes().slice(from * size..to * size);
    Tensor::new(tensor.dtype(), vec![to - from], bytes).ok()?.to_f64s()
}

/// Calls `each` with every line of a tensor along an axis, in row-major order of the other axes, and the number of the
/// line; `None` for a dtype that holds no numbers.
///
/// # Panics
/// When there is no such axis.
pub(super) fn lines(tensor: &Tensor, axis: usize, mut each: impl FnMut(usize, &[f64])) -> Option<()> {
    let (before, rest) = tensor.shape().split_at(axis);
    let [width, after @ ..] = rest else { panic!("axis {axis} of {tensor:?}") };
    let (outer, inner): (usize, usize) = (before.iter().product(), after.iter().product());
    let block = width * inner;
    if block == 0 {
        return Some(());
    }
    let step = (CHUNK / block).max(1);
    let mut line = vec![0.0; *width];
    for first in (0..outer).step_by(step) {
        let count = step.min(outer - first);
        let values = floats(tensor, first * block, (first + count) * block)?;
        for (number, values) in values.chunks_exact(block).enumerate() {
            for place in 0..inner {
                let along = values.iter().skip(place).step_by(inner);
                line.iter_mut().zip(along).for_each(|(into, value)| *into = *value);
                each((first + number) * inner + place, &line);
            }
        }
    }
    Some(())
}

/// Returns the elements of an integer tensor; `None` for other dtypes.
pub(super) fn ints(tensor: &Tensor) -> Option<Vec<i64>> {
    use crate::graph::DType::{BF16, Bool, F16, F32, F64, I32, I64, U64};
    match tensor.dtype() {
        I64 | I32 => tensor.to_ints(),
        F32 | F64 | F16 | BF16 | Bool | U64 => None,
        // At most 32 bits: exact in f64.
        _ => Some(tensor.to_f64s()?.into_iter().map(|value| value as i64).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_run_along_any_axis_and_over_chunks() {
        let values: Vec<f32> = (0..24).map(|value| value as f32).collect();
        let tensor = Tensor::from_vec(&[2, 3, 4], values);
        let mut found = Vec::new();
        lines(&tensor, 1, |number, line| found.push((number, line.to_vec()))).unwrap();
        assert_eq!(found[1], (1, vec![1.0, 5.0, 9.0]));
        assert_eq!(found[7], (7, vec![15.0, 19.0, 23.0]));
        assert_eq!(found.len(), 8);
        let many = Tensor::from_vec(&[3, CHUNK], (0..3 * CHUNK).map(|value| value as i32).collect());
        let mut firsts = Vec::new();
        lines(&many, 1, |number, line| firsts.push((number, line[0] as usize / CHUNK))).unwrap();
        assert_eq!(firsts, [(0, 0), (1, 1), (2, 2)]);
        let mut sum = 0.0;
        lines(&many.reshaped(&[CHUNK, 3]), 1, |_, line| sum += line[2]).unwrap();
        assert_eq!(sum, (0..CHUNK).map(|row| (3 * row + 2) as f64).sum::<f64>());
        assert_eq!(ints(&Tensor::from_vec(&[2], vec![3u8, 255])), Some(vec![3, 255]));
        assert_eq!(ints(&Tensor::from_vec(&[1], vec![3f32])), None);
    }
}
