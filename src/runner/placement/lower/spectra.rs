//! DFT of a fixed length as products with cosines and sines, and AffineGrid of a fixed size as a product with positions.

use super::Call;
use crate::graph::{Attributes, DType, Tensor, ValueId};
use std::f64::consts::TAU;

/// Longest transform that is taken by a matrix of its square.
const LONGEST: i64 = 4096;

/// `y = sum over n of x_n exp(-+ 2 pi i k n / N)`, divided by N where inverse.
pub(super) fn dft(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    let (x, rank, dtype) = (call.input(0)?, call.rank(0)?, call.dtype(0)?);
    let (inverse, one_sided) = (call.attribute("inverse", 0)? != 0, call.attribute("onesided", 0)? != 0);
    let axis = match (call.opset >= 20, call.input(2)) {
        (true, Some(_)) => *call.ints(2)?.first()?,
        (true, None) => -2,
        (false, _) => call.attribute("axis", 1)?,
    };
    let axis = if axis < 0 { axis + rank } else { axis };
    let sizes = call.fact(0)?.shape.clone()?;
    let held = i64::try_from(sizes.get(usize::try_from(axis).ok()?)?.known()?).ok()?;
    let parts = sizes.last()?.known()?;
    let length = if call.input(1).is_some() { *call.ints(1)?.first()? } else { held };
    if axis == rank - 1 || !(1..=LONGEST).contains(&length) || !dtype.is_float() || inverse && one_sided {
        return None;
    }
    let (read, made) = (held.min(length), if one_sided { length / 2 + 1 } else { length });
    let (read_len, made_len) = (usize::try_from(read).ok()?, usize::try_from(made).ok()?);
    let matrix = |f: fn(f64) -> f64| -> Option<Tensor> {
        let mut values = Vec::with_capacity(read_len * made_len);
        for n in 0..read {
            for k in 0..made {
                let angle = TAU * ((n * k) % length) as f64 / length as f64;
                values.push(f(angle) / if inverse { length as f64 } else { 1.0 });
            }
        }
        float(dtype, &[read_len, made_len], values)
    };
    let (cos, sin) = (matrix(f64::cos)?, matrix(f64::sin)?);
    let last = rank - 1;
    let mut perm: Vec<i64> = (0..last).filter(|at| *at != axis).collect();
    perm.push(axis);
    let back: Vec<i64> =
        (0..last).map(|at| perm.iter().position(|from| *from == at).map_or(0, |at| at as i64)).collect();
    let x = if read < held { call.slice(x, axis, 0, read, 1) } else { x };
    let (cos, sin) = (call.b.constant("cos", cos), call.b.constant("sin", sin));
    let part = |call: &mut Call<'_>, at: i64| {
        let index = call.b.constant("part", Tensor::scalar(at));
        let part = call.b.op("Gather", &[x, index], Attributes::none().with("axis", last));
        let part = call.b.transpose(part, &perm);
        let (with_cos, with_sin) = (
            call.b.op("MatMul", &[part, cos], Attributes::none()),
            call.b.op("MatMul", &[part, sin], Attributes::none()),
        );
        (with_cos, with_sin)
    };
    let real = part(call, 0);
    let imaginary = if parts == 2 { Some(part(call, 1)) } else { None };
    let b = &mut *call.b;
    let minus_sin = b.unary("Neg", real.1);
    let turned = if inverse { real.1 } else { minus_sin };
    let (re, im) = match imaginary {
        None => (real.0, turned),
        Some((cos, sin)) => {
            let re = if inverse { b.sub(real.0, sin) } else { b.add(real.0, sin) };
            (re, b.add(turned, cos))
        }
    };
    let [re, im] = [re, im].map(|part| {
        let part = b.transpose(part, &back);
        b.unsqueeze(part, &[last])
    });
    Some(vec![b.op("Concat", &[re, im], Attributes::none().with("axis", last))])
}

/// `grid = positions theta^T`, positions being x, y(, z) and 1.
pub(super) fn affine_grid(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    let (theta, dtype) = (call.input(0)?, call.dtype(0)?);
    let size = call.ints(1)?;
    let aligned = call.attribute("align_corners", 0)? != 0;
    let (batch, space) = (*size.first()?, size.get(2..)?.to_vec());
    let along = |count: i64| -> Vec<f64> {
        let count_f = count as f64;
        let at = |index: i64| match (aligned, count) {
            (true, 1) => -1.0,
            (true, _) => -1.0 + 2.0 * index as f64 / (count_f - 1.0),
            (false, _) => -1.0 + (2.0 * index as f64 + 1.0) / count_f,
        };
        (0..count).map(at).collect()
    };
    let axes: Vec<Vec<f64>> = space.iter().map(|count| along(*count)).collect();
    let mut positions: Vec<Vec<f64>> = vec![Vec::new()];
    for axis in &axes {
        positions =
            positions.iter().flat_map(|front| axis.iter().map(move |at| [front.as_slice(), &[*at]].concat())).collect();
    }
    let rows = positions.len();
    let values = positions.iter().flat_map(|position| position.iter().rev().copied().chain([1.0])).collect();
    let positions = float(dtype, &[1, rows, space.len() + 1], values)?;
    let positions = call.b.constant("positions", positions);
    let turned = call.b.transpose(theta, &[0, 2, 1]);
    let grid = call.b.op("MatMul", &[positions, turned], Attributes::none());
    let dims = i64::try_from(space.len()).ok()?;
    Some(vec![call.b.reshape(grid, &[vec![batch], space, vec![dims]].concat())])
}

fn float(dtype: DType, shape: &[usize], values: Vec<f64>) -> Option<Tensor> {
    match dtype {
        DType::F32 => Some(Tensor::from_vec(shape, values.into_iter().map(|value| value as f32).collect())),
        DType::F64 => Some(Tensor::from_vec(shape, values)),
        _ => None,
    }
}
