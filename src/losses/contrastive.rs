//! Contrastive (InfoNCE in both directions, as in CLIP)
//!
//! Formula:   with rows `a`, `b` of the two predictions brought to length 1 and
//!            `L[i, j] = a[i] . b[j] / temperature`:
//!            `-(mean_i LogSoftmax_j(L)[i, i] + mean_i LogSoftmax_j(L^T)[i, i]) / 2`.
//! Target:    none; row `i` of both predictions is a pair, all other rows of the batch are not.
//! Reduction: mean over the batch.
//! <https://arxiv.org/abs/2103.00020>

use super::{LossSpec, mean};
use crate::graph::{Attributes, Builder, DType, Fact, Tensor, ValueId};

/// Least length that a row is divided by.
const EPSILON: f64 = 1e-12;

/// Appends the loss.
pub(super) fn build(spec: &LossSpec, b: &mut Builder, first: ValueId, second: ValueId) -> ValueId {
    let [first, second] = [first, second].map(|rows| unit(b, rows));
    let across = b.transpose(second, &[1, 0]);
    let cosines = b.op("MatMul", &[first, across], Attributes::none());
    let logits = b.scale(cosines, 1.0 / f64::from(spec.temperature()));
    let pair = diagonal(b, first);
    let shape = b.fact(logits).shape.clone();
    b.refine(pair, &Fact { dtype: Some(DType::Bool), shape });
    let zero = b.like(logits, 0.0);
    let mut losses = Vec::with_capacity(2);
    for axis in [1, 0] {
        let logs = b.op("LogSoftmax", &[logits], Attributes::none().with("axis", axis));
        let own = b.select(pair, logs, zero);
        let own = b.reduce("ReduceSum", own, &[axis], false);
        losses.push(mean(b, own));
    }
    let both = b.add(losses[0], losses[1]);
    b.scale(both, -0.5)
}

/// Appends the rows at length 1.
fn unit(b: &mut Builder, rows: ValueId) -> ValueId {
    let length = b.reduce("ReduceL2", rows, &[1], true);
    let least = b.like(length, EPSILON);
    let length = b.op("Max", &[length, least], Attributes::none());
    b.div(rows, length)
}

/// Appends which entries of a square matrix of the batch are on its diagonal.
fn diagonal(b: &mut Builder, rows: ValueId) -> ValueId {
    let shape = b.shape_of(rows);
    let start = b.constant("first", Tensor::scalar(0i64));
    let size = b.op("Gather", &[shape, start], Attributes::none().with("axis", 0));
    let step = b.constant("step", Tensor::scalar(1i64));
    let numbers = b.op("Range", &[start, size, step], Attributes::none());
    let (down, along) = (b.unsqueeze(numbers, &[1]), b.unsqueeze(numbers, &[0]));
    b.op("Equal", &[down, along], Attributes::none())
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::losses::testing::{Case, check};
    use crate::losses::{LossKind, LossSpec};

    /// The formula of the head.
    fn formula(temperature: f64) -> impl Fn(&[Vec<f64>], &[f64]) -> f64 {
        move |x, _| {
            let unit = |rows: &Vec<f64>| -> Vec<Vec<f64>> {
                let length = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>().sqrt();
                rows.chunks(3).map(|row| row.iter().map(|x| x / length(row)).collect()).collect()
            };
            let (a, b) = (unit(&x[0]), unit(&x[1]));
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / temperature;
            let mut total = 0.0;
            for (own, others) in [(&a, &b), (&b, &a)] {
                for (i, row) in own.iter().enumerate() {
                    let all: f64 = others.iter().map(|other| dot(row, other).exp()).sum();
                    total += all.ln() - dot(row, &others[i]);
                }
            }
            total / (2.0 * a.len() as f64)
        }
    }

    #[test]
    fn values() {
        let names = Some(vec!["a".to_string(), "b".to_string()]);
        let spec = LossSpec { outputs: names, ..LossSpec::new(LossKind::Contrastive) };
        let cold = LossSpec { temperature: Some(0.5), ..spec.clone() };
        check(&[
            Case::several("default", &spec, &[4, 3], None, formula(f64::from(0.07f32))),
            Case::several("temperature", &cold, &[5, 3], None, formula(0.5)),
            Case::several("one pair", &cold, &[1, 3], None, formula(0.5)),
        ]);
    }
}
