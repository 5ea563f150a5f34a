//! Muon
//!
//! ```text
//! m = momentum m + (1 - momentum) g
//! u = (1 - momentum) g + momentum m  (nesterov), else m
//! x = u / max(|u|, eps)                     transposed where it has more rows than columns
//! ns_steps times:
//!     a = x x^T
//!     x = A x + (B a + C a a) x             (A, B, C) = ns_coefficients
//! p = p (1 - lr weight_decay) - lr r x      r by adjust_lr_fn
//! ```
//!
//! Slots: `momentum` (m), zeros. The Newton-Schulz iteration runs in the dtype of the parameter;
//! PyTorch's rounds to bfloat16, from which this differs by about 1 %. Matrices only:
//! parameters of another rank, and those of groups with `fallback = true` (embeddings and output
//! layers, as is usual), are updated by `[optimizer.fallback]`, by default AdamW.
//! <https://pytorch.org/docs/stable/generated/torch.optim.Muon.html>

use super::{AdjustLr, Next, OptimizerSpec, SlotSpec, State, blend, shrunk};
use crate::graph::{Attributes, Builder, ValueId};

/// Returns the slots.
pub(super) fn slots() -> Vec<SlotSpec> {
    vec![SlotSpec::zeros("momentum")]
}

/// Appends the update of one matrix.
pub(super) fn step(spec: &OptimizerSpec, b: &mut Builder, lr: ValueId, state: &State) -> Next {
    let [velocity] = state.slots[..] else {
        unreachable!("invariant: made with the slots of this file");
    };
    let sizes = b.fact(state.value).sizes().unwrap_or_default();
    let (rows, columns) = (sizes.first().copied().unwrap_or(1), sizes.get(1).copied().unwrap_or(1));
    let velocity = blend(b, velocity, state.grad, spec.momentum());
    let update = if spec.nesterov() { blend(b, velocity, state.grad, spec.momentum()) } else { velocity };
    let direction = orthogonal(spec, b, update, rows > columns);
    let start = shrunk(b, spec.weight_decay(), lr, state);
    let rate = b.scale(lr, ratio(spec, rows as f64, columns as f64));
    let change = b.mul(direction, rate);
    Next { value: b.sub(start, change), slots: vec![velocity] }
}

/// Appends the Newton-Schulz iteration, which brings the singular values near 1.
fn orthogonal(spec: &OptimizerSpec, b: &mut Builder, update: ValueId, tall: bool) -> ValueId {
    let [first, second, third] = spec.ns_coefficients();
    let mut x = if tall { b.transpose(update, &[1, 0]) } else { update };
    let squares = b.op("ReduceSumSquare", &[x], Attributes::none().with("keepdims", 0));
    let norm = b.unary("Sqrt", squares);
    let least = b.like(norm, spec.eps());
    let norm = b.op("Max", &[norm, least], Attributes::none());
    x = b.div(x, norm);
    let scales = |alpha: f64, beta: f64| Attributes::none().with("alpha", alpha as f32).with("beta", beta as f32);
    for _ in 0..spec.ns_steps() {
        let gram = b.op("Gemm", &[x, x], Attributes::none().with("transB", 1));
        let both = b.op("Gemm", &[gram, gram, gram], scales(third, second));
        x = b.op("Gemm", &[both, x, x], scales(1.0, first));
    }
    if tall { b.transpose(x, &[1, 0]) } else { x }
}

fn ratio(spec: &OptimizerSpec, rows: f64, columns: f64) -> f64 {
    match spec.adjust_lr_fn.unwrap_or_default() {
        AdjustLr::Original => (rows / columns).max(1.0).sqrt(),
        AdjustLr::MatchRmsAdamw => 0.2 * rows.max(columns).sqrt(),
        AdjustLr::SpectralUnclamped => (rows / columns).sqrt(),
    }
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use super::*;
    use crate::graph::Tensor;
    use crate::optim::OptimizerKind;
    use crate::optim::testing::{advance, compare, model, start, wave};
    use crate::runner::testing;

    type Matrix = Vec<Vec<f64>>;

    fn product(a: &Matrix, b: &Matrix) -> Matrix {
        let entry = |row: &Vec<f64>, column: usize| row.iter().zip(b).map(|(a, b)| a * b[column]).sum();
        a.iter().map(|row| (0..b[0].len()).map(|column| entry(row, column)).collect()).collect()
    }

    fn transposed(a: &Matrix) -> Matrix {
        (0..a[0].len()).map(|column| a.iter().map(|row| row[column]).collect()).collect()
    }

    fn each(a: &Matrix, b: &Matrix, f: impl Fn(f64, f64) -> f64) -> Matrix {
        a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| f(*a, *b)).collect()).collect()
    }

    /// The pseudo-code of the head.
    fn reference(spec: &OptimizerSpec, p: &Matrix, g: &Matrix, m: &mut Matrix, lr: f64) -> Matrix {
        let momentum = spec.momentum();
        *m = each(m, g, |m, g| momentum * m + (1.0 - momentum) * g);
        let u = if spec.nesterov() { each(m, g, |m, g| (1.0 - momentum) * g + momentum * m) } else { m.clone() };
        let norm = u.iter().flatten().map(|u| u * u).sum::<f64>().sqrt().max(spec.eps());
        let tall = u.len() > u[0].len();
        let mut x = each(&u, &u, |u, _| u / norm);
        x = if tall { transposed(&x) } else { x };
        let [first, second, third] = spec.ns_coefficients();
        for _ in 0..spec.ns_steps() {
            let a = product(&x, &transposed(&x));
            let both = each(&a, &product(&a, &a), |a, aa| second * a + third * aa);
            x = each(&x, &product(&both, &x), |x, y| first * x + y);
        }
        x = if tall { transposed(&x) } else { x };
        let rate = lr * ratio(spec, p.len() as f64, p[0].len() as f64);
        each(p, &x, |p, x| p * (1.0 - lr * spec.weight_decay()) - rate * x)
    }

    fn matrix(tensor: &Tensor) -> Matrix {
        tensor.to_f64s().unwrap().chunks(tensor.shape()[1]).map(<[f64]>::to_vec).collect()
    }

    #[test]
    fn three_steps() {
        let spec = OptimizerSpec::new(OptimizerKind::Muon);
        let adjusted = |how| OptimizerSpec { adjust_lr_fn: Some(how), ..spec.clone() };
        let cases = [
            spec.clone(),
            OptimizerSpec { nesterov: Some(false), weight_decay: Some(0.0), ..spec.clone() },
            OptimizerSpec { momentum: Some(0.5), ns_steps: Some(2), ..spec.clone() },
            OptimizerSpec { ns_coefficients: Some([1.5, -0.5, 0.0]), ..spec.clone() },
            OptimizerSpec { eps: Some(10.0), ..spec.clone() },
            adjusted(AdjustLr::MatchRmsAdamw),
            adjusted(AdjustLr::SpectralUnclamped),
        ];
        for mut engine in testing::engines() {
            for spec in &cases {
                let shapes: [&[usize]; 3] = [&[2, 5], &[4, 3], &[3, 3]];
                let parameters: Vec<Tensor> = shapes.iter().enumerate().map(|(at, shape)| wave(shape, at)).collect();
                let graph = model(spec, &parameters);
                let mut values = start(spec, &parameters);
                let mut expected: Vec<Matrix> = parameters.iter().map(matrix).collect();
                let mut velocities: Vec<Matrix> = expected.iter().map(|p| each(p, p, |_, _| 0.0)).collect();
                for (step, lr) in [0.1, 0.1, 0.02].into_iter().enumerate() {
                    let grads: Vec<Tensor> =
                        shapes.iter().enumerate().map(|(at, shape)| wave(shape, 5 + 7 * step + at)).collect();
                    advance(engine.as_mut(), &graph, &mut values, lr, &grads);
                    for ((p, m), g) in expected.iter_mut().zip(&mut velocities).zip(&grads) {
                        *p = reference(spec, p, &matrix(g), m, lr);
                    }
                }
                for (at, (p, m)) in expected.iter().zip(&velocities).enumerate() {
                    for (name, matrix) in [(format!("p{at}"), p), (format!("p{at}.momentum"), m)] {
                        assert_eq!(compare(&values, &name, &matrix.concat()), None, "{}", engine.info().name);
                    }
                }
            }
        }
    }
}
