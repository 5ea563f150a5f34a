//! Loss
//!
//! Formula:   the mean that the loss itself takes, over all batches: batch means weighted by what the loss divides
//!            by. That is the class weights of the targets that count for `cross-entropy` and `nll`, the rows for
//!            other losses and for a sum of several.
//! Undefined: no target counts.

use super::{Better, Entry, Measure, NOTHING, Sample, Value};

pub(super) static ENTRY: Entry = Entry {
    name: "loss",
    about: "mean loss",
    better: Some(Better::Less),
    needs: "a loss",
    fits: |_, _| true,
    new: |_, _| Box::new(Loss::default()),
};

/// Batch means, weighted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Loss {
    sum: f64,
    weight: f64,
}

impl Loss {
    /// Adds the mean of a batch.
    pub fn batch(&mut self, mean: f64, weight: f64) {
        if weight > 0.0 {
            self.sum += mean * weight;
            self.weight += weight;
        }
    }
}

impl Measure for Loss {
    fn add(&mut self, _: &Sample<'_>) {}

    fn value(&self) -> Value {
        if self.weight > 0.0 { Value::One(self.sum / self.weight) } else { Value::Undefined(NOTHING) }
    }
}
