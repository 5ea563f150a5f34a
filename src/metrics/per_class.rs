//! Precision, recall, F1 and accuracy of each class
//!
//! Formula:   `precision` right / predicted, `recall` right / there, `f1` as in `f1_macro`; `accuracy` of classes of
//!            which one is right: the recall; of several labels at once: the fraction of the samples in which the
//!            label is predicted rightly, there or not (both as torchmetrics).
//! Undefined: each alone, where its denominator is 0; all where no target counts.

use super::counts::Counts;
use super::{Entry, Kind, Measure, NOTHING, Sample, Value, f1, ratio};

pub(super) static ENTRY: Entry = Entry {
    name: "per_class",
    about: "precision, recall, F1 and accuracy of each class",
    better: None,
    needs: "scores of classes or labels",
    fits: |form, _| matches!(form.kind, Kind::Classes | Kind::Labels),
    new: |_, _| Box::new(PerClass::default()),
};

#[derive(Default)]
struct PerClass {
    counts: Counts,
}

impl Measure for PerClass {
    fn add(&mut self, sample: &Sample<'_>) {
        self.counts.add(sample);
    }

    fn value(&self) -> Value {
        let Counts { samples, labels, .. } = self.counts;
        if samples == 0 {
            return Value::Undefined(NOTHING);
        }
        let each = |of: &dyn Fn((u64, u64, u64)) -> Option<f64>| self.counts.each().map(of).collect::<Vec<_>>();
        let recall = |(right, _, actual)| ratio(right, actual);
        let accuracy = |(right, predicted, actual)| match labels {
            true => ratio(samples + 2 * right - predicted - actual, samples),
            false => ratio(right, actual),
        };
        Value::PerClass(vec![
            ("precision", each(&|(right, predicted, _)| ratio(right, predicted))),
            ("recall", each(&recall)),
            ("f1", each(&f1::of)),
            ("accuracy", each(&accuracy)),
        ])
    }
}
