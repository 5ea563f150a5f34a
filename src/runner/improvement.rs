//! Which epoch was the best, and whether it is time to stop, as functions of what the epochs measured.
//!
//! Whether more or less is better is known by the metric. An epoch without an evaluation does not count; one whose
//! evaluation gave the metric no finite value is no improvement. `train_loss` has a value in every epoch.

use crate::metrics::Metric;
use crate::plan::History;
use serde::{Deserialize, Serialize};

/// When a run ends before its last epoch, `[eval] early_stopping` of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EarlyStopping {
    /// The metric that is watched.
    pub metric: Metric,
    /// Evaluations in a row without an improvement after which the run ends, at least 1.
    pub patience: u64,
    /// By how much a value must be better than the best one to be an improvement, at least 0; 0 by default, where any
    /// difference is one.
    #[serde(default)]
    pub min_delta: f64,
}

/// Why a run ends early.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stall {
    /// The last epoch that was an improvement, from 1, with its value; `None` where no epoch had a value.
    pub best: Option<(usize, f64)>,
    /// Evaluations since then.
    pub evaluations: u64,
}

/// Returns the best epoch by a metric, from 1, with its value: the first of those that are equally good; `None` where
/// no epoch has a value.
pub fn best(history: &History, metric: &Metric) -> Option<(usize, f64)> {
    let (better, name) = (metric.better()?, metric.name());
    let values = history.epochs.iter().zip(1..).filter_map(|(epoch, number)| {
        let value = epoch.metrics.get(&name).copied().filter(|value| value.is_finite())?;
        Some((number, value))
    });
    values.reduce(|best, own| if better.gain(own.1, best.1) > 0.0 { own } else { best })
}

/// Returns why a run ends after the epochs of its history; `None` where it goes on.
pub fn stops(history: &History, early: &EarlyStopping) -> Option<Stall> {
    let (better, name) = (early.metric.better()?, early.metric.name());
    let mut stall = Stall { best: None, evaluations: 0 };
    for (epoch, number) in history.epochs.iter().zip(1..).filter(|(epoch, _)| epoch.judges(&name)) {
        let value = epoch.metrics.get(&name).copied().filter(|value| value.is_finite());
        let improved = |value: &f64| stall.best.is_none_or(|(_, best)| better.gain(*value, best) > early.min_delta);
        match value.filter(improved) {
            Some(value) => stall = Stall { best: Some((number, value)), evaluations: 0 },
            None => stall.evaluations += 1,
        }
        if stall.evaluations >= early.patience.max(1) {
            return Some(stall);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::EpochRecord;

    fn metric(name: &str) -> Metric {
        Metric::parse(name).unwrap()
    }

    /// Epochs: `None` without an evaluation, `Some(NAN)` with one that gave no value.
    fn history(name: &str, values: &[Option<f64>]) -> History {
        let mut history = History::default();
        for value in values {
            let mut record = EpochRecord { evaluated: value.is_some(), ..EpochRecord::default() };
            record.metrics.extend(value.filter(|value| value.is_finite()).map(|value| (name.to_string(), value)));
            history.epochs.push(record);
        }
        history
    }

    const NAN: Option<f64> = Some(f64::NAN);

    #[test]
    fn the_best_epoch_is_the_first_with_the_best_value() {
        let values = [Some(0.5), None, Some(0.9), NAN, Some(0.9), Some(0.4)];
        let cases = [("accuracy", Some((3, 0.9))), ("loss", Some((6, 0.4))), ("top_5", Some((3, 0.9)))];
        for (name, expected) in cases {
            assert_eq!(best(&history(name, &values), &metric(name)), expected, "{name}");
        }
        assert_eq!(best(&history("loss", &[NAN, None]), &metric("loss")), None);
        assert_eq!(best(&history("loss", &values), &metric("accuracy")), None);
        assert_eq!(best(&history("confusion", &values), &metric("confusion")), None);
    }

    #[test]
    fn a_run_stops_after_so_many_evaluations_without_an_improvement() {
        struct Case {
            metric: &'static str,
            patience: u64,
            min_delta: f64,
            values: &'static [Option<f64>],
            expected: Option<(Option<(usize, f64)>, u64)>,
        }
        let case =
            |metric, patience, min_delta, values, expected| Case { metric, patience, min_delta, values, expected };
        let cases = [
            case("loss", 2, 0.0, &[Some(1.0), Some(0.9), Some(0.9)], None),
            case("loss", 2, 0.0, &[Some(1.0), Some(0.9), Some(0.9), Some(1.0)], Some((Some((2, 0.9)), 2))),
            case("accuracy", 1, 0.0, &[Some(0.5), Some(0.6), Some(0.7)], None),
            case("accuracy", 1, 0.0, &[Some(0.5), Some(0.6), Some(0.6)], Some((Some((2, 0.6)), 1))),
            // Small steps are measured from the last improvement: together they are one.
            case("accuracy", 2, 0.1, &[Some(0.5), Some(0.58), Some(0.66)], None),
            case("accuracy", 2, 0.1, &[Some(0.5), Some(0.58), Some(0.59)], Some((Some((1, 0.5)), 2))),
            // Exactly min_delta is none.
            case("accuracy", 1, 0.25, &[Some(0.5), Some(0.75)], Some((Some((1, 0.5)), 1))),
            // Epochs without an evaluation do not count, one without a value is no improvement.
            case("loss", 2, 0.0, &[None, Some(1.0), None, None, Some(1.0), None], None),
            case("loss", 2, 0.0, &[None, Some(1.0), None, NAN, None, NAN], Some((Some((2, 1.0)), 2))),
            case("loss", 2, 0.0, &[NAN, NAN], Some((None, 2))),
            // Where it has stopped it stays stopped.
            case("loss", 1, 0.0, &[Some(1.0), Some(2.0), Some(0.1)], Some((Some((1, 1.0)), 1))),
            case("confusion", 1, 0.0, &[Some(1.0), Some(1.0)], None),
        ];
        for Case { metric: name, patience, min_delta, values, expected } in cases {
            let early = EarlyStopping { metric: metric(name), patience, min_delta };
            let found = stops(&history(name, values), &early);
            let expected = expected.map(|(best, evaluations)| Stall { best, evaluations });
            assert_eq!(found, expected, "{name} {patience} {min_delta} {values:?}");
        }
    }

    #[test]
    fn a_history_that_was_written_and_read_again_says_the_same() {
        let early = EarlyStopping { metric: metric("loss"), patience: 2, min_delta: 0.0 };
        let before = history("loss", &[Some(1.0), NAN, NAN]);
        let again: History = serde_json::from_str(&serde_json::to_string(&before).unwrap()).unwrap();
        assert_eq!(again, before);
        assert_eq!(stops(&again, &early), stops(&before, &early));
    }
}
