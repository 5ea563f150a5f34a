//! Metrics of predictions on the host.

use crate::graph::Tensor;
use crate::losses::{LossKind, LossSpec};
use std::collections::BTreeMap;

/// Sums over batches.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    loss: f64,
    samples: f64,
    right: u64,
    judged: u64,
}

impl Metrics {
    /// Adds one batch: its mean loss, weighted by the targets that count, or where it is a `sum` by its
    /// rows, its predictions and targets.
    pub fn add(&mut self, spec: &LossSpec, sum: bool, loss: f64, prediction: &Tensor, target: &Tensor) {
        let judged = match spec.kind {
            LossKind::CrossEntropy | LossKind::Nll => classes_right(spec, prediction, target),
            LossKind::BinaryCrossEntropy => signs_right(prediction, target),
            _ => None,
        };
        let samples = target.shape().first().copied().unwrap_or(1) as f64;
        let weight = judged.filter(|_| !sum).map_or(samples, |(_, judged)| judged as f64);
        if weight > 0.0 {
            self.loss += loss * weight;
            self.samples += weight;
        }
        if let Some((right, judged)) = judged {
            self.right += right;
            self.judged += judged;
        }
    }

    /// Returns `loss`, and `accuracy` as a fraction for classification.
    pub fn values(&self) -> BTreeMap<String, f64> {
        let mut values = BTreeMap::from([("loss".to_string(), self.loss / self.samples.max(1.0))]);
        if self.judged > 0 {
            values.insert("accuracy".into(), self.right as f64 / self.judged as f64);
        }
        values
    }
}

fn classes_right(spec: &LossSpec, prediction: &Tensor, target: &Tensor) -> Option<(u64, u64)> {
    let shape = prediction.shape();
    let default = if shape.len() >= 4 { 1 } else { shape.len() as i64 - 1 };
    let axis = spec.class_axis.unwrap_or(default);
    let axis = usize::try_from(if axis < 0 { axis + shape.len() as i64 } else { axis }).ok()?;
    let classes = *shape.get(axis)?;
    let inner: usize = shape[axis + 1..].iter().product();
    let (scores, targets) = (prediction.to_f64s()?, spec.indices(target, axis).to_ints()?);
    let ignored = spec.ignore_index.unwrap_or(-100);
    let (mut right, mut judged) = (0, 0);
    for (position, target) in targets.iter().enumerate().filter(|(_, target)| **target != ignored) {
        let start = (position / inner) * classes * inner + position % inner;
        let score = |class: usize| scores[start + class * inner];
        let best = (1..classes).fold(0, |best, class| if score(class) > score(best) { class } else { best });
        judged += 1;
        right += u64::from(i64::try_from(best).ok()? == *target);
    }
    Some((right, judged))
}

fn signs_right(prediction: &Tensor, target: &Tensor) -> Option<(u64, u64)> {
    let (scores, targets) = (prediction.to_f64s()?, target.to_f64s()?);
    let right = scores.iter().zip(&targets).filter(|(score, target)| (**score > 0.0) == (**target > 0.5));
    Some((right.count() as u64, targets.len() as u64))
}

/// Returns the peak resident memory of this process in bytes; 0 where the system does not tell.
pub fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}
