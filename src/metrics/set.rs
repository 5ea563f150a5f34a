//! The metrics of one evaluation, batch after batch.

use super::form::axis;
use super::loss::Loss;
use super::rows::{floats, ints, lines};
use super::{Form, Kind, METRICS, Measure, Metric, MetricError, NOTHING, Sample, Value};
use crate::graph::{Fact, Tensor};
use crate::losses::{IGNORE_INDEX, LossSpec};
use std::collections::BTreeMap;

/// Metrics being summed up.
pub struct Metrics {
    spec: LossSpec,
    /// Whether the loss of a batch is that of several.
    sum: bool,
    form: Form,
    loss: Loss,
    measures: Vec<(Metric, Box<dyn Measure>)>,
    /// Whether they were asked for: else what cannot be compared is left out.
    asked: bool,
    /// Whether a prediction was not a number.
    broken: bool,
}

/// What an evaluation found of one batch.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Mean loss of the rows that count.
    pub loss: f64,
    /// Rows.
    pub rows: usize,
    /// What metrics are taken of, where there is something.
    pub prediction: Option<&'a Tensor>,
    /// What it is compared with, where there is something.
    pub target: Option<&'a Tensor>,
    /// Which rows count, along the first axis; all where `None`.
    pub counts: Option<&'a [bool]>,
}

/// What metrics are at the end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    /// Metrics that are one number.
    pub scalars: BTreeMap<String, f64>,
    /// Measures of each class; `None` where one is not defined.
    pub per_class: BTreeMap<String, Vec<Option<f64>>>,
    /// A row per class that is right, a column per class that is predicted; empty where not asked for.
    pub confusion: Vec<Vec<u64>>,
    /// Metrics that are not defined, with the reasons.
    pub undefined: BTreeMap<String, String>,
}

impl Metrics {
    /// Returns the sums of nothing. `spec` is the loss whose predictions are judged, which may be a term of a `sum`;
    /// `wanted` are metrics beside the loss and `watched`, by default the accuracy where there is one.
    ///
    /// # Errors
    /// A metric cannot be taken of the predictions.
    pub fn new(
        spec: &LossSpec,
        sum: bool,
        prediction: Option<&Fact>,
        wanted: Option<&[Metric]>,
        watched: &[Metric],
    ) -> Result<Metrics, MetricError> {
        let form = Form::of(spec, prediction);
        let by_default = if (super::accuracy::ENTRY.fits)(&form, 0) { vec![Metric::accuracy()] } else { Vec::new() };
        let mut metrics = Metrics {
            spec: spec.clone(),
            sum,
            form,
            loss: Loss::default(),
            measures: Vec::new(),
            asked: wanted.is_some() || !watched.is_empty(),
            broken: false,
        };
        for metric in wanted.unwrap_or(&by_default).iter().chain(watched) {
            let there = *metric == Metric::loss() || metrics.measures.iter().any(|(own, _)| own == metric);
            if !there {
                fits(metric, &form)?;
                metrics.measures.push((*metric, (metric.entry().new)(&form, metric.number())));
            }
        }
        Ok(metrics)
    }

    /// Adds a batch.
    ///
    /// # Errors
    /// Predictions and targets are not what the metrics compare, or a target is no class.
    pub fn add(&mut self, batch: &Batch<'_>) -> Result<(), MetricError> {
        if let Some(counts) = batch.counts.filter(|counts| counts.len() != batch.rows) {
            return Err(MetricError::Rows { rows: batch.rows, found: counts.len() });
        }
        let rows = batch.counts.map_or(batch.rows, |counts| counts.iter().filter(|counts| **counts).count());
        let mut weight = rows as f64;
        match (self.form.kind, batch.prediction, batch.target) {
            (Kind::Classes, Some(prediction), Some(target)) => {
                let judged = self.classes(prediction, target, batch)?;
                weight = judged.filter(|_| !self.sum).unwrap_or(weight);
            }
            (Kind::Labels, Some(prediction), Some(target)) => self.labels(prediction, target, batch)?,
            (Kind::Numbers, Some(prediction), Some(target)) => self.numbers(prediction, target, batch)?,
            _ => {}
        }
        self.loss.batch(batch.loss, weight);
        Ok(())
    }

    /// Returns what was summed up.
    pub fn results(&self) -> Results {
        let mut results = Results::default();
        let mut undefined = |name: String, reason: &str| drop(results.undefined.insert(name, reason.to_string()));
        match self.loss.value() {
            Value::One(loss) => drop(results.scalars.insert(Metric::loss().name(), loss)),
            _ => undefined(Metric::loss().name(), NOTHING),
        }
        for (metric, measure) in &self.measures {
            let value = if self.broken { Value::Undefined("a prediction is not a number") } else { measure.value() };
            match value {
                Value::One(value) if value.is_finite() => drop(results.scalars.insert(metric.name(), value)),
                Value::One(_) => undefined(metric.name(), "it is not finite"),
                Value::PerClass(found) => {
                    results.per_class.extend(found.into_iter().map(|(name, values)| (name.to_string(), values)));
                }
                Value::Counts(counts) => results.confusion = counts,
                Value::Undefined(reason) => undefined(metric.name(), reason),
            }
        }
        results
    }

    /// Adds rows of scores of classes; returns the sum of the class weights of the targets that count.
    fn classes(&mut self, prediction: &Tensor, target: &Tensor, batch: &Batch<'_>) -> Result<Option<f64>, MetricError> {
        let fact = Fact::fixed(prediction.dtype(), prediction.shape());
        let (Some(axis), Some(labels)) = (axis(&self.spec, &fact), ints(target)) else {
            return self.unlike(prediction, target).map(|()| None);
        };
        let classes = prediction.shape()[axis];
        if labels.len() * classes != prediction.len() {
            return self.unlike(prediction, target).map(|()| None);
        }
        self.meet(classes)?;
        let ignored = self.spec.ignore_index.unwrap_or(IGNORE_INDEX);
        let each = (labels.len() / batch.rows.max(1)).max(1);
        let mut judged = Vec::with_capacity(labels.len());
        for (position, label) in labels.iter().enumerate() {
            judged.push(match usize::try_from(*label) {
                _ if *label == ignored || !counts(batch, position / each) => None,
                Ok(class) if class < classes => Some(class),
                _ => return Err(MetricError::Label { label: *label, classes }),
            });
        }
        let weights = self.spec.class_weights.as_deref();
        let weight = |class: usize| weights.and_then(|weights| weights.get(class)).map_or(1.0, |own| f64::from(*own));
        let total = judged.iter().flatten().map(|class| weight(*class)).sum();
        if !self.measures.is_empty() {
            let mut broken = false;
            let read = lines(prediction, axis, |position, scores| {
                let Some(label) = judged.get(position).copied().flatten() else { return };
                broken |= scores.iter().any(|score| score.is_nan());
                let sample = Sample::Class { scores, label, predicted: highest(scores) };
                self.measures.iter_mut().for_each(|(_, measure)| measure.add(&sample));
            });
            self.broken |= broken || read.is_none();
        }
        Ok(Some(total))
    }

    /// Adds rows of scores of labels.
    fn labels(&mut self, prediction: &Tensor, target: &Tensor, batch: &Batch<'_>) -> Result<(), MetricError> {
        let fact = Fact::fixed(prediction.dtype(), prediction.shape());
        if prediction.shape() != target.shape() {
            return self.unlike(prediction, target);
        }
        // One label a row lies on an axis of its own.
        let axis = axis(&self.spec, &fact);
        let shape = axis.map_or_else(|| vec![prediction.len(), 1], |_| prediction.shape().to_vec());
        let (prediction, target) = (prediction.reshaped(&shape), target.reshaped(&shape));
        let axis = axis.unwrap_or(1);
        self.meet(shape[axis])?;
        if self.measures.is_empty() {
            return Ok(());
        }
        let mut truths: Vec<bool> = Vec::with_capacity(target.len());
        let read = lines(&target, axis, |_, line| truths.extend(line.iter().map(|target| *target > 0.5)));
        let (width, samples) = (shape[axis], target.len() / shape[axis].max(1));
        let each = (samples / batch.rows.max(1)).max(1);
        let mut broken = read.is_none();
        let read = lines(&prediction, axis, |position, scores| {
            let Some(truths) = truths.get(position * width..(position + 1) * width) else { return };
            if counts(batch, position / each) {
                broken |= scores.iter().any(|score| score.is_nan());
                let sample = Sample::Labels { scores, truths };
                self.measures.iter_mut().for_each(|(_, measure)| measure.add(&sample));
            }
        });
        self.broken |= broken || read.is_none();
        Ok(())
    }

    /// Adds rows of numbers.
    fn numbers(&mut self, prediction: &Tensor, target: &Tensor, batch: &Batch<'_>) -> Result<(), MetricError> {
        if self.measures.is_empty() {
            return Ok(());
        }
        if prediction.shape() != target.shape() || !prediction.len().is_multiple_of(batch.rows.max(1)) {
            return self.unlike(prediction, target);
        }
        let each = prediction.len() / batch.rows.max(1);
        for row in (0..batch.rows).filter(|row| counts(batch, *row)) {
            let part = |tensor: &Tensor| floats(tensor, row * each, (row + 1) * each);
            let (Some(predicted), Some(targets)) = (part(prediction), part(target)) else {
                return self.unlike(prediction, target);
            };
            self.broken |= predicted.iter().chain(&targets).any(|value| value.is_nan());
            let sample = Sample::Numbers { predicted: &predicted, targets: &targets };
            self.measures.iter_mut().for_each(|(_, measure)| measure.add(&sample));
        }
        Ok(())
    }

    /// Notes how many classes or labels there are.
    fn meet(&mut self, width: usize) -> Result<(), MetricError> {
        if self.form.width != Some(width) {
            self.form = self.form.wide(width);
            self.measures.iter().try_for_each(|(metric, _)| fits(metric, &self.form))?;
        }
        Ok(())
    }

    /// Refuses what cannot be compared.
    fn unlike(&mut self, prediction: &Tensor, target: &Tensor) -> Result<(), MetricError> {
        if !self.asked {
            self.measures.clear();
        }
        let fact = |tensor: &Tensor| Fact::fixed(tensor.dtype(), tensor.shape());
        let found = format!("a prediction of {} and a target of {}", fact(prediction), fact(target));
        match self.measures.first() {
            None => Ok(()),
            Some((metric, _)) => {
                let needs = metric.entry().needs.into();
                Err(MetricError::Unfit { metric: metric.name(), needs, found, others: Vec::new() })
            }
        }
    }
}

fn fits(metric: &Metric, form: &Form) -> Result<(), MetricError> {
    let entry = metric.entry();
    if (entry.fits)(form, metric.number()) {
        return Ok(());
    }
    let needs = entry.needs.replace('K', &metric.number().to_string());
    let others = METRICS.iter().filter(|entry| (entry.fits)(form, 1)).map(|entry| entry.name).collect();
    Err(MetricError::Unfit { metric: metric.name(), needs, found: form.to_string(), others })
}

fn counts(batch: &Batch<'_>, row: usize) -> bool {
    batch.counts.is_none_or(|counts| counts.get(row).copied().unwrap_or(false))
}

/// Returns the class of the highest score, the first among equals.
fn highest(scores: &[f64]) -> usize {
    let better = |best: (usize, f64), own: (usize, f64)| if own.1 > best.1 { own } else { best };
    scores.iter().copied().enumerate().reduce(better).map_or(0, |best| best.0)
}
