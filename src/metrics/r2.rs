//! Coefficient of determination
//!
//! Formula:   of one output `1 - sum((prediction - target)^2) / sum((target - mean(target))^2)` over the rows; of
//!            several the mean over those whose targets vary, with equal weights. scikit-learn counts one whose
//!            targets do not vary as 1 where they are met and as 0 where they are not.
//! Undefined: the targets of no output vary.

use super::{Better, Entry, Kind, Measure, NOTHING, Sample, Value};

pub(super) static ENTRY: Entry = Entry {
    name: "r2",
    about: "coefficient of determination, of several outputs the mean",
    better: Some(Better::More),
    needs: "numbers to be met",
    fits: |form, _| form.kind == Kind::Numbers,
    new: |_, _| Box::new(R2::default()),
};

#[derive(Default)]
struct R2 {
    rows: u64,
    outputs: Vec<Output>,
}

/// Sums of one output; the spread of the targets by Welford's updates, which do not cancel.
#[derive(Clone, Default)]
struct Output {
    error: f64,
    mean: f64,
    spread: f64,
}

impl Measure for R2 {
    fn add(&mut self, sample: &Sample<'_>) {
        let Sample::Numbers { predicted, targets } = sample else { return };
        self.outputs.resize(targets.len(), Output::default());
        self.rows += 1;
        for (output, (predicted, target)) in self.outputs.iter_mut().zip(predicted.iter().zip(*targets)) {
            let before = target - output.mean;
            output.mean += before / self.rows as f64;
            output.spread += before * (target - output.mean);
            output.error += (predicted - target).powi(2);
        }
    }

    fn value(&self) -> Value {
        let varying: Vec<f64> =
            self.outputs.iter().filter(|output| output.spread > 0.0).map(|o| 1.0 - o.error / o.spread).collect();
        match (varying.len(), self.rows) {
            (_, 0) => Value::Undefined(NOTHING),
            (0, _) => Value::Undefined("the targets do not vary"),
            (count, _) => Value::One(varying.iter().sum::<f64>() / count as f64),
        }
    }
}
