//! F1
//!
//! Formula:   of a class `2 right / (predicted + there)`. `f1_macro`: the mean over the classes that are predicted or
//!            there at all. `f1_micro`: the same of the sums over all classes; of classes of which one is right that
//!            is the accuracy. One label alone is two classes, as in scikit-learn.
//! Undefined: no class is predicted or there.

use super::counts::Counts;
use super::{Better, Entry, Kind, Measure, NOTHING, Sample, Value, ratio};

pub(super) static MACRO: Entry = Entry {
    name: "f1_macro",
    about: "mean of the F1 of each class that is predicted or there",
    better: Some(Better::More),
    needs: "scores of classes or labels",
    fits: |form, _| matches!(form.kind, Kind::Classes | Kind::Labels),
    new: |_, _| Box::new(F1 { counts: Counts::default(), mean: true }),
};

pub(super) static MICRO: Entry = Entry {
    name: "f1_micro",
    about: "F1 of all classes together",
    better: Some(Better::More),
    needs: "scores of classes or labels",
    fits: |form, _| matches!(form.kind, Kind::Classes | Kind::Labels),
    new: |_, _| Box::new(F1 { counts: Counts::default(), mean: false }),
};

struct F1 {
    counts: Counts,
    mean: bool,
}

impl Measure for F1 {
    fn add(&mut self, sample: &Sample<'_>) {
        self.counts.add(sample);
    }

    fn value(&self) -> Value {
        let found = if self.mean {
            let defined: Vec<f64> = self.counts.each().filter_map(of).collect();
            (!defined.is_empty()).then(|| defined.iter().sum::<f64>() / defined.len() as f64)
        } else {
            of(self.counts.each().fold((0, 0, 0), |sum, own| (sum.0 + own.0, sum.1 + own.1, sum.2 + own.2)))
        };
        match (found, self.counts.samples) {
            (Some(value), _) => Value::One(value),
            (None, 0) => Value::Undefined(NOTHING),
            (None, _) => Value::Undefined("no label is predicted or there"),
        }
    }
}

/// Returns the F1 of a class by what is right, predicted and there.
pub(super) fn of((right, predicted, actual): (u64, u64, u64)) -> Option<f64> {
    ratio(2 * right, predicted + actual)
}
