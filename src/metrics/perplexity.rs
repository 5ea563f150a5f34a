//! Perplexity
//!
//! Formula:   `exp(-mean(log p))`, p the probability of the target under the softmax of the scores, or of `nll` as it
//!            is given; without class weights and label smoothing.
//! Undefined: no target counts, or it is too great for a number.

use super::{Better, Entry, Kind, Measure, NOTHING, Sample, Value};
use crate::losses::LossKind;

pub(super) static ENTRY: Entry = Entry {
    name: "perplexity",
    about: "exponential of the mean negative log-likelihood of the targets",
    better: Some(Better::Less),
    needs: "scores of classes of which one is right",
    fits: |form, _| form.kind == Kind::Classes,
    new: |form, _| Box::new(Perplexity { logs: form.loss == LossKind::Nll, sum: 0.0, judged: 0 }),
};

struct Perplexity {
    logs: bool,
    sum: f64,
    judged: u64,
}

impl Measure for Perplexity {
    fn add(&mut self, sample: &Sample<'_>) {
        let Sample::Class { scores, label, .. } = sample else { return };
        let Some(own) = scores.get(*label) else { return };
        self.sum += if self.logs { -own } else { log_sum(scores) - own };
        self.judged += 1;
    }

    fn value(&self) -> Value {
        if self.judged == 0 {
            return Value::Undefined(NOTHING);
        }
        Value::One((self.sum / self.judged as f64).exp())
    }
}

/// Returns the logarithm of the sum of the exponentials.
pub(super) fn log_sum(scores: &[f64]) -> f64 {
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    top + scores.iter().map(|score| (score - top).exp()).sum::<f64>().ln()
}
