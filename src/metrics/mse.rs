//! Mean squared error, and its root
//!
//! Formula:   `mse` mean of `(prediction - target)^2` over all numbers; `rmse` its square root.
//! Undefined: no row counts.

use super::{Better, Entry, Kind, Measure, NOTHING, Sample, Value};

pub(super) static ENTRY: Entry = Entry {
    name: "mse",
    about: "mean squared error",
    better: Some(Better::Less),
    needs: "numbers to be met",
    fits: |form, _| form.kind == Kind::Numbers,
    new: |_, _| Box::new(Mse::default()),
};

pub(super) static ROOT: Entry = Entry {
    name: "rmse",
    about: "root of the mean squared error",
    better: Some(Better::Less),
    needs: "numbers to be met",
    fits: |form, _| form.kind == Kind::Numbers,
    new: |_, _| Box::new(Mse { root: true, ..Mse::default() }),
};

#[derive(Default)]
struct Mse {
    sum: f64,
    count: u64,
    root: bool,
}

impl Measure for Mse {
    fn add(&mut self, sample: &Sample<'_>) {
        let Sample::Numbers { predicted, targets } = sample else { return };
        self.sum += predicted.iter().zip(*targets).map(|(predicted, target)| (predicted - target).powi(2)).sum::<f64>();
        self.count += targets.len() as u64;
    }

    fn value(&self) -> Value {
        if self.count == 0 {
            return Value::Undefined(NOTHING);
        }
        let mean = self.sum / self.count as f64;
        Value::One(if self.root { mean.sqrt() } else { mean })
    }
}
