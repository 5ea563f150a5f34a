//! Accuracy
//!
//! Formula:   targets whose class is predicted / targets. Of several labels at once, labels that are predicted
//!            rightly / labels: scikit-learn's `accuracy_score` there asks for all labels of a row.
//! Undefined: no target counts.

use super::{Better, Entry, Kind, Measure, NOTHING, Sample, Value, ratio};

pub(super) static ENTRY: Entry = Entry {
    name: "accuracy",
    about: "fraction of the targets that are predicted",
    better: Some(Better::More),
    needs: "scores of classes or labels",
    fits: |form, _| matches!(form.kind, Kind::Classes | Kind::Labels),
    new: |_, _| Box::new(Accuracy::default()),
};

#[derive(Default)]
struct Accuracy {
    right: u64,
    judged: u64,
}

impl Measure for Accuracy {
    fn add(&mut self, sample: &Sample<'_>) {
        match sample {
            Sample::Class { label, predicted, .. } => {
                self.judged += 1;
                self.right += u64::from(label == predicted);
            }
            Sample::Labels { scores, truths } => {
                self.judged += truths.len() as u64;
                let right = scores.iter().zip(*truths).filter(|(score, truth)| (**score > 0.0) == **truth);
                self.right += right.count() as u64;
            }
            Sample::Numbers { .. } => {}
        }
    }

    fn value(&self) -> Value {
        ratio(self.right, self.judged).map_or(Value::Undefined(NOTHING), Value::One)
    }
}
