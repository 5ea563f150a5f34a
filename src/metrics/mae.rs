//! Mean absolute error
//!
//! Formula:   mean of `|prediction - target|` over all numbers.
//! Undefined: no row counts.

use super::{Better, Entry, Kind, Measure, NOTHING, Sample, Value};

pub(super) static ENTRY: Entry = Entry {
    name: "mae",
    about: "mean absolute error",
    better: Some(Better::Less),
    needs: "numbers to be met",
    fits: |form, _| form.kind == Kind::Numbers,
    new: |_, _| Box::new(Mae::default()),
};

#[derive(Default)]
struct Mae {
    sum: f64,
    count: u64,
}

impl Measure for Mae {
    fn add(&mut self, sample: &Sample<'_>) {
        let Sample::Numbers { predicted, targets } = sample else { return };
        self.sum += predicted.iter().zip(*targets).map(|(predicted, target)| (predicted - target).abs()).sum::<f64>();
        self.count += targets.len() as u64;
    }

    fn value(&self) -> Value {
        if self.count == 0 { Value::Undefined(NOTHING) } else { Value::One(self.sum / self.count as f64) }
    }
}
