//! How often each class is right, predicted and there.

use super::Sample;

/// Counts of each class, or of each of several labels. One label alone is two classes: not there, there.
#[derive(Default)]
pub(super) struct Counts {
    /// Predicted and there.
    pub right: Vec<u64>,
    /// Predicted.
    pub predicted: Vec<u64>,
    /// There.
    pub actual: Vec<u64>,
    /// Samples.
    pub samples: u64,
    /// Whether several may be there at once.
    pub labels: bool,
}

impl Counts {
    /// Adds a sample.
    pub fn add(&mut self, sample: &Sample<'_>) {
        match sample {
            Sample::Class { scores, label, predicted } => {
                self.widen(scores.len());
                self.one(*label, *predicted);
            }
            Sample::Labels { scores: [score], truths: [truth] } => {
                self.widen(2);
                self.one(usize::from(*truth), usize::from(*score > 0.0));
            }
            Sample::Labels { scores, truths } => {
                self.widen(scores.len());
                self.labels = true;
                for (label, (score, truth)) in scores.iter().zip(*truths).enumerate() {
                    let predicted = *score > 0.0;
                    self.right[label] += u64::from(predicted && *truth);
                    self.predicted[label] += u64::from(predicted);
                    self.actual[label] += u64::from(*truth);
                }
            }
            Sample::Numbers { .. } => return,
        }
        self.samples += 1;
    }

    fn widen(&mut self, width: usize) {
        for counts in [&mut self.right, &mut self.predicted, &mut self.actual] {
            counts.resize(width.max(counts.len()), 0);
        }
    }

    fn one(&mut self, label: usize, predicted: usize) {
        self.right[label] += u64::from(label == predicted);
        self.predicted[predicted] += 1;
        self.actual[label] += 1;
    }

    /// Returns right, predicted and there of each class.
    pub fn each(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        let both = self.right.iter().zip(&self.predicted).zip(&self.actual);
        both.map(|((right, predicted), actual)| (*right, *predicted, *actual))
    }
}
