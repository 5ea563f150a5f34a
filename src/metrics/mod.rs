//! What predictions are worth: numbers summed up over the batches of an evaluation.
//!
//! A [`Metric`] is asked for by name; [`Metrics`] sums up what was asked for and gives [`Results`]. Values do not
//! depend on how rows fall into batches: counts and sums are kept, not means of batches, and `roc_auc` keeps every
//! score. Targets that are `ignore_index` do not count, and neither do rows that only fill a batch.
//!
//! | metric | predictions of | better |
//! |---|---|---|
//! | `loss` | any loss | less |
//! | `accuracy` | `cross-entropy`, `nll`, `binary-cross-entropy` | more |
//! | `top_K` | `cross-entropy`, `nll` | more |
//! | `f1_macro`, `f1_micro`, `roc_auc` | as `accuracy` | more |
//! | `confusion`, `per_class` | as `accuracy`; `confusion` not of several labels at once | |
//! | `perplexity` | `cross-entropy`, `nll` | less |
//! | `mae`, `mse`, `rmse` | `mse`, `l1`, `huber`, `smooth-l1` | less |
//! | `r2` | as `mae` | more |
//!
//! The predicted class is the one of the highest score, the first among equals; a label is predicted where its score
//! is above 0. Several labels at once lie on the class axis of the loss. What is not defined for the data (a score
//! for classes that never come, targets that do not vary) is absent with a reason, never 0. Where a prediction is not
//! a number, only the loss is left.
//!
//! What this module does not do: run a model, or decide by a metric.

mod accuracy;
mod confusion;
mod counts;
mod f1;
mod form;
mod loss;
mod mae;
mod metric;
mod mse;
mod per_class;
mod perplexity;
mod r2;
mod roc_auc;
mod rows;
mod set;
#[cfg(test)]
mod tests;
mod top_k;

pub use form::{Form, Kind};
pub use metric::Metric;
pub use set::{Batch, Metrics, Results};

use crate::error::ErrorKind;

/// Every metric of an evaluation.
pub static METRICS: [&Entry; 13] = [
    &loss::ENTRY,
    &accuracy::ENTRY,
    &top_k::ENTRY,
    &f1::MACRO,
    &f1::MICRO,
    &roc_auc::ENTRY,
    &confusion::ENTRY,
    &per_class::ENTRY,
    &perplexity::ENTRY,
    &mae::ENTRY,
    &mse::ENTRY,
    &mse::ROOT,
    &r2::ENTRY,
];

/// A metric that can be asked for by name.
#[derive(Debug)]
pub struct Entry {
    /// Its name in a job file and in events; `K` stands for a number.
    pub name: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    /// Whether more of it is better; `None` where it is not one number.
    pub better: Option<Better>,
    /// What it is taken of, in words.
    pub needs: &'static str,
    /// Whether it can be taken, as far as is known; the number is that of its name.
    fits: fn(&Form, usize) -> bool,
    new: fn(&Form, usize) -> Box<dyn Measure>,
}

/// Which of two values is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// The greater one.
    More,
    /// The lesser one.
    Less,
}

impl Better {
    /// Returns by how much `value` is better than `other`.
    pub fn gain(self, value: f64, other: f64) -> f64 {
        match self {
            Better::More => value - other,
            Better::Less => other - value,
        }
    }
}

/// A metric being summed up.
trait Measure: Send {
    /// Adds what counts of one sample.
    fn add(&mut self, sample: &Sample<'_>);
    /// Returns the value of what was added.
    fn value(&self) -> Value;
}

/// Predictions of one sample with its targets.
enum Sample<'a> {
    /// A score for each class, the class that is right and the one that is predicted.
    Class { scores: &'a [f64], label: usize, predicted: usize },
    /// A score for each label, and whether it is there.
    Labels { scores: &'a [f64], truths: &'a [bool] },
    /// Numbers.
    Numbers { predicted: &'a [f64], targets: &'a [f64] },
}

/// The value of a metric.
enum Value {
    One(f64),
    PerClass(Vec<(&'static str, Vec<Option<f64>>)>),
    Counts(Vec<Vec<u64>>),
    Undefined(&'static str),
}

/// Why there is no value where nothing was added.
const NOTHING: &str = "no target counts";

/// Returns a quotient, which is not defined where the denominator is 0.
fn ratio(numerator: u64, denominator: u64) -> Option<f64> {
    (denominator > 0).then(|| numerator as f64 / denominator as f64)
}

/// A metric that cannot be taken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum MetricError {
    #[error("unknown metric \"{name}\"{}", near.as_ref().map_or_else(known, |near| format!(", did you mean \"{near}\"?")))]
    Unknown { name: String, near: Option<String> },
    #[error("the metric {metric} needs {needs}, found {found}")]
    Unfit { metric: String, needs: String, found: String, others: Vec<&'static str> },
    #[error("a target is class {label} of {classes}")]
    Label { label: i64, classes: usize },
    #[error("the metrics compare {rows} rows, and {found} are said to count or not")]
    Rows { rows: usize, found: usize },
}

impl MetricError {
    /// Returns the group this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        match self {
            MetricError::Unknown { .. } | MetricError::Unfit { .. } => ErrorKind::Usage,
            MetricError::Label { .. } => ErrorKind::BadInput,
            MetricError::Rows { .. } => ErrorKind::Internal,
        }
    }
}

fn known() -> String {
    let names: Vec<String> = METRICS.iter().map(|entry| format!("\"{}\"", entry.name)).collect();
    format!(", known are {}", names.join(", "))
}
