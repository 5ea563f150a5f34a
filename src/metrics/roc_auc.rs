//! Area under the ROC curve
//!
//! Formula:   of a class: the fraction of the pairs of a sample of the class and one of the rest in which the first
//!            has the higher score, equal scores counting half. Of several classes or labels: the mean over those
//!            that some samples are of and some are not. The score of a class is its log-softmax, or of `nll` as it
//!            is given; of a label its prediction.
//! Memory:    every score is kept to the end, as float32: samples times classes times 4 bytes. Scores that are equal
//!            in float32 count as equal.
//! Undefined: there is no class that some samples are of and some are not.

use super::perplexity::log_sum;
use super::{Better, Entry, Kind, Measure, NOTHING, Sample, Value};
use crate::losses::LossKind;

pub(super) static ENTRY: Entry = Entry {
    name: "roc_auc",
    about: "area under the ROC curve, of several classes the mean of each against the rest",
    better: Some(Better::More),
    needs: "scores of classes or labels",
    fits: |form, _| matches!(form.kind, Kind::Classes | Kind::Labels),
    new: |form, _| {
        Box::new(RocAuc { logs: form.loss == LossKind::Nll, width: 0, scores: Vec::new(), truths: Truths::default() })
    },
};

struct RocAuc {
    logs: bool,
    width: usize,
    scores: Vec<f32>,
    truths: Truths,
}

#[derive(Default)]
struct Truths {
    /// The class of each sample.
    classes: Vec<usize>,
    /// Whether each label is there, a row per sample.
    labels: Vec<bool>,
}

impl Measure for RocAuc {
    fn add(&mut self, sample: &Sample<'_>) {
        match sample {
            Sample::Class { scores, label, .. } => {
                self.width = scores.len();
                let norm = if self.logs { 0.0 } else { log_sum(scores) };
                self.scores.extend(scores.iter().map(|score| (score - norm) as f32));
                self.truths.classes.push(*label);
            }
            Sample::Labels { scores, truths } => {
                self.width = scores.len();
                self.scores.extend(scores.iter().map(|score| *score as f32));
                self.truths.labels.extend_from_slice(truths);
            }
            Sample::Numbers { .. } => {}
        }
    }

    fn value(&self) -> Value {
        if self.scores.is_empty() {
            return Value::Undefined(NOTHING);
        }
        let mut column = Vec::with_capacity(self.scores.len() / self.width);
        let (mut sum, mut defined) = (0.0, 0);
        for class in 0..self.width {
            let scores = self.scores.iter().skip(class).step_by(self.width).copied();
            column.clear();
            match self.truths.classes.is_empty() {
                false => column.extend(scores.zip(self.truths.classes.iter().map(|label| *label == class))),
                true => column.extend(scores.zip(self.truths.labels.iter().skip(class).step_by(self.width).copied())),
            }
            if let Some(area) = area(&mut column) {
                sum += area;
                defined += 1;
            }
        }
        match defined {
            0 => Value::Undefined("there is no class that some targets are and some are not"),
            count => Value::One(sum / f64::from(count)),
        }
    }
}

/// Returns the area of scores and whether each is of the class.
fn area(column: &mut [(f32, bool)]) -> Option<f64> {
    column.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let (mut above, mut rest, mut own) = (0u128, 0u128, 0u128);
    for equal in column.chunk_by(|a, b| a.0 == b.0) {
        let hits = equal.iter().filter(|(_, truth)| *truth).count() as u128;
        let misses = equal.len() as u128 - hits;
        above += hits * (2 * rest + misses);
        rest += misses;
        own += hits;
    }
    (own > 0 && rest > 0).then(|| above as f64 / (2 * own * rest) as f64)
}
