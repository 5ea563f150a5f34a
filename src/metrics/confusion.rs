//! Confusion matrix
//!
//! Formula:   a row per class that is right, a column per class that is predicted: how often they come together.
//!            One label alone is two classes.
//! Undefined: no target counts.

use super::{Entry, Kind, Measure, NOTHING, Sample, Value};

/// Classes beyond which there is no matrix: it is written with every epoch.
const MOST: usize = 1000;

pub(super) static ENTRY: Entry = Entry {
    name: "confusion",
    about: "how often each class is predicted for each class",
    better: None,
    needs: "scores of at most 1000 classes of which one is right, or of one label",
    fits: |form, _| match form.kind {
        Kind::Classes => form.width.is_none_or(|classes| classes <= MOST),
        Kind::Labels => form.width.is_none_or(|labels| labels == 1),
        Kind::Numbers | Kind::Other => false,
    },
    new: |_, _| Box::new(Confusion::default()),
};

#[derive(Default)]
struct Confusion {
    counts: Vec<Vec<u64>>,
}

impl Measure for Confusion {
    fn add(&mut self, sample: &Sample<'_>) {
        let (classes, label, predicted) = match sample {
            Sample::Class { scores, label, predicted } => (scores.len(), *label, *predicted),
            Sample::Labels { scores: [score], truths: [truth] } => (2, usize::from(*truth), usize::from(*score > 0.0)),
            _ => return,
        };
        if self.counts.is_empty() {
            self.counts = vec![vec![0; classes]; classes];
        }
        self.counts[label][predicted] += 1;
    }

    fn value(&self) -> Value {
        if self.counts.is_empty() { Value::Undefined(NOTHING) } else { Value::Counts(self.counts.clone()) }
    }
}
