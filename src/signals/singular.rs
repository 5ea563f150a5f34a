//! Left singular vectors by one-sided Jacobi rotations.
//!
//! The columns of `W = M'U` are rotated in pairs, and those of an orthogonal U alike, until they are
//! orthogonal: then `M = UW'` is the decomposition, and the norms of the columns are the singular
//! values. U starts as the eigenvectors of `MM'`, so only directions that this product has rounded
//! away are left to rotate. The method does not lose accuracy on matrices without full rank, which
//! dead and repeated features make common.

use super::SignalError;
use nalgebra::{DMatrix, SymmetricEigen};

/// The cosine of the angle between two columns below which they are orthogonal.
const ORTHOGONAL: f64 = 1e-12;

/// Rounds over all pairs of columns; each squares the cosines, so few are ever needed.
const ROUNDS: usize = 60;

/// Returns `x'y`. A transposed copy is multiplied in blocks, which `tr_mul` does not do.
pub(super) fn inner(x: &DMatrix<f64>, y: &DMatrix<f64>) -> DMatrix<f64> {
    x.transpose() * y
}

/// Returns the orthonormal directions, rows x rank, and the singular values, descending, without
/// those of at most `max(rows, columns)` units of rounding of the largest one.
pub(super) fn directions(matrix: &DMatrix<f64>) -> Result<(DMatrix<f64>, Vec<f64>), SignalError> {
    let (rows, columns) = matrix.shape();
    let (left, values) = if rows < columns {
        left_vectors(matrix)?
    } else {
        let mut w = matrix * eigenvectors(inner(matrix, matrix))?;
        orthogonalise(&mut w, &mut DMatrix::zeros(0, columns))?;
        let values: Vec<f64> = w.column_iter().map(|column| column.norm()).collect();
        w.column_iter_mut().zip(&values).filter(|(_, value)| **value > 0.0).for_each(|(mut one, value)| one /= *value);
        descending(w, values)
    };
    let least = values.first().copied().unwrap_or(0.0) * rounding(matrix);
    let rank = values.iter().take_while(|value| **value > least).count();
    Ok((left.columns(0, rank).into_owned(), values[..rank].to_vec()))
}

/// Returns `min(rows, columns)` orthonormal left singular vectors, those of zeros too, and the
/// singular values, descending.
pub(super) fn left_vectors(matrix: &DMatrix<f64>) -> Result<(DMatrix<f64>, Vec<f64>), SignalError> {
    let mut left = eigenvectors(matrix * matrix.transpose())?;
    let mut w = inner(matrix, &left);
    orthogonalise(&mut w, &mut left)?;
    let (left, mut values) = descending(left, w.column_iter().map(|column| column.norm()).collect());
    values.truncate(matrix.ncols());
    Ok((left.columns(0, values.len()).into_owned(), values))
}

fn rounding(matrix: &DMatrix<f64>) -> f64 {
    matrix.nrows().max(matrix.ncols()) as f64 * f64::EPSILON
}

fn eigenvectors(symmetric: DMatrix<f64>) -> Result<DMatrix<f64>, SignalError> {
    let (rows, columns) = symmetric.shape();
    let failed = SignalError::NoConvergence { rows, columns };
    let rounds = 100 * rows.max(1);
    Ok(SymmetricEigen::try_new(symmetric, f64::EPSILON, rounds).ok_or(failed)?.eigenvectors)
}

fn descending(matrix: DMatrix<f64>, values: Vec<f64>) -> (DMatrix<f64>, Vec<f64>) {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
    (matrix.select_columns(&order), order.iter().map(|index| values[*index]).collect())
}

/// Rotates the columns of `w` until they are orthogonal, and those of `turned` alike.
fn orthogonalise(w: &mut DMatrix<f64>, turned: &mut DMatrix<f64>) -> Result<(), SignalError> {
    let (rows, columns) = w.shape();
    for _ in 0..ROUNDS {
        let gram = inner(w, w);
        let least = gram.diagonal().amax() * rounding(w).powi(2);
        let oblique = |a: f64, c: f64, b: f64| a > least && b > least && c.abs() > ORTHOGONAL * a.sqrt() * b.sqrt();
        let mut rotated = false;
        for second in 1..columns {
            for first in 0..second {
                if !oblique(gram[(first, first)], gram[(first, second)], gram[(second, second)]) {
                    continue;
                }
                let (x, y) = (w.column(first), w.column(second));
                let (a, c, b) = (x.norm_squared(), x.dot(&y), y.norm_squared());
                if oblique(a, c, b) {
                    let slope = (b - a) / (2.0 * c);
                    let tangent = slope.signum() / (slope.abs() + slope.hypot(1.0));
                    let cosine = 1.0 / tangent.hypot(1.0);
                    rotate(w, first, second, cosine, cosine * tangent);
                    rotate(turned, first, second, cosine, cosine * tangent);
                    rotated = true;
                }
            }
        }
        if !rotated {
            return Ok(());
        }
    }
    Err(SignalError::NoConvergence { rows, columns })
}

fn rotate(matrix: &mut DMatrix<f64>, first: usize, second: usize, cosine: f64, sine: f64) {
    let (mut x, mut y) = matrix.columns_range_pair_mut(first, second);
    for (x, y) in x.iter_mut().zip(y.iter_mut()) {
        (*x, *y) = (cosine * *x - sine * *y, sine * *x + cosine * *y);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::random;
    use super::*;

    /// Matrices as activations are: dead, binary, repeated, rounded, far from centred, of any rank.
    fn matrices() -> impl Iterator<Item = (u64, DMatrix<f64>)> {
        (0..200u64).map(|seed| {
            let sizes = random(1, 2, seed + 1000).map(|value| (value.abs() * 1000.0) as usize);
            let (rows, columns) = (1 + sizes[0] % 24, 1 + sizes[1] % 18);
            let mut matrix = random(rows, columns, seed);
            match seed % 9 {
                0 => {}
                1 => matrix.apply(|value| *value = value.max(0.0)),
                2 => matrix.apply(|value| *value = f64::from(u8::from(*value > 1.0))),
                3 => {
                    let scale = |column: i32| 10f64.powi(-column);
                    matrix.column_iter_mut().zip(0..).for_each(|(mut one, column)| one *= scale(column));
                }
                4 => matrix = random(rows, 1 + columns / 3, seed) * random(1 + columns / 3, columns, seed + 1),
                5 => (0..columns / 2).for_each(|one| matrix.swap_columns(one, columns - 1 - one)),
                6 => {
                    matrix = DMatrix::from_fn(rows, columns, |row, column| f64::from(u8::from(row % columns == column)))
                }
                7 => matrix.apply(|value| *value = *value * 1e-8 + 1.0),
                _ => {
                    let scale = |row: i32| 10f64.powi(-(row % 12));
                    matrix.row_iter_mut().zip(0..).for_each(|(mut one, row)| one *= scale(row));
                }
            }
            if seed % 9 == 5 {
                let half = matrix.columns(0, columns.div_ceil(2)).into_owned();
                matrix.columns_mut(columns - half.ncols(), half.ncols()).copy_from(&half);
            }
            (seed, matrix)
        })
    }

    fn orthonormal(matrix: &DMatrix<f64>) -> bool {
        let identity = DMatrix::identity(matrix.ncols(), matrix.ncols());
        (inner(matrix, matrix) - identity).iter().all(|value| value.abs() < 10.0 * ORTHOGONAL)
    }

    #[test]
    fn vectors_are_orthonormal_and_rebuild_matrices_of_any_rank() {
        for (seed, matrix) in matrices() {
            let largest = matrix.norm();
            let all = left_vectors(&matrix).unwrap();
            assert_eq!(all.1.len(), matrix.nrows().min(matrix.ncols()), "seed {seed}");
            for (left, values) in [all, directions(&matrix).unwrap()] {
                assert!(orthonormal(&left), "seed {seed}");
                assert!(values.is_sorted_by(|a, b| a >= b), "seed {seed}");
                let projected = inner(&left, &matrix);
                let rebuilt = (&left * &projected - &matrix).norm();
                assert!(rebuilt <= 10.0 * ORTHOGONAL * largest, "seed {seed}: {rebuilt}");
                let squares = DMatrix::from_fn(values.len(), values.len(), |row, column| {
                    if row == column { values[row] * values[row] } else { 0.0 }
                });
                let apart = (&projected * projected.transpose() - squares).amax();
                assert!(apart <= 10.0 * ORTHOGONAL * largest * largest, "seed {seed}: {apart}");
            }
        }
    }

    #[test]
    fn small_singular_values_are_found_beside_large_ones() {
        let matrix = random(30, 4, 1).qr().q() * DMatrix::from_diagonal(&vec![1.0, 1e-3, 1e-7, 1e-11].into());
        let (_, values) = directions(&(matrix * random(4, 4, 2).qr().q())).unwrap();
        for (found, expected) in values.iter().zip([1.0, 1e-3, 1e-7, 1e-11]) {
            assert!((found - expected).abs() < 1e-15, "{values:?}");
        }
        assert_eq!(values.len(), 4);
    }

    #[test]
    fn repeated_and_zero_columns_add_no_direction() {
        let mut matrix = random(40, 6, 1);
        matrix.set_column(4, &(matrix.column(0) * 3.0 - matrix.column(1)));
        matrix.column_mut(5).fill(0.0);
        assert_eq!(directions(&matrix).unwrap().1.len(), 4);
        let low = random(150, 10, 2) * random(10, 60, 3);
        assert_eq!(directions(&low).unwrap().1.len(), 10);
        assert_eq!(directions(&low.transpose()).unwrap().1.len(), 10);
        assert_eq!(directions(&DMatrix::zeros(5, 3)).unwrap().1.len(), 0);
    }
}
