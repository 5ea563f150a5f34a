//! A metric by its name.

use super::{Better, Entry, METRICS, MetricError, Value};
use crate::error::nearest;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// A metric that was asked for. In a job file `-` and `_` mean the same in its name.
#[derive(Clone, Copy)]
pub struct Metric {
    entry: &'static Entry,
    number: usize,
}

/// The loss of the training steps of an epoch: watched like a metric, and no part of an evaluation.
static TRAIN_LOSS: Entry = Entry {
    name: "train_loss",
    about: "mean loss of the training steps of the epoch",
    better: Some(Better::Less),
    needs: "the training data",
    fits: |_, _| false,
    new: |_, _| Box::new(Never),
};

struct Never;

impl super::Measure for Never {
    fn add(&mut self, _: &super::Sample<'_>) {}

    fn value(&self) -> Value {
        Value::Undefined(super::NOTHING)
    }
}

impl Metric {
    /// Returns the metric of a name, such as `top-5` or `f1_macro`; also `train_loss`.
    ///
    /// # Errors
    /// There is no such metric.
    pub fn parse(name: &str) -> Result<Metric, MetricError> {
        let own = name.replace('-', "_");
        let plain = METRICS.iter().copied().chain([&TRAIN_LOSS]).find(|entry| entry.name == own);
        if let Some(entry) = plain.filter(|entry| entry.prefix().is_none()) {
            return Ok(Metric { entry, number: 0 });
        }
        let numbered = METRICS.iter().find_map(|entry| {
            let number: usize = own.strip_prefix(entry.prefix()?)?.parse().ok()?;
            (number > 0).then_some(Metric { entry, number })
        });
        numbered.ok_or_else(|| {
            let near = nearest(&own, METRICS.iter().map(|entry| entry.name)).map(str::to_string);
            MetricError::Unknown { name: name.into(), near }
        })
    }

    /// Returns `loss`, which is part of every evaluation.
    pub fn loss() -> Metric {
        Metric { entry: &super::loss::ENTRY, number: 0 }
    }

    /// Returns `accuracy`.
    pub fn accuracy() -> Metric {
        Metric { entry: &super::accuracy::ENTRY, number: 0 }
    }

    /// Returns its name in events.
    pub fn name(&self) -> String {
        match self.entry.prefix() {
            Some(prefix) => format!("{prefix}{}", self.number),
            None => self.entry.name.to_string(),
        }
    }

    /// Returns the row of the list that it is of.
    pub fn entry(&self) -> &'static Entry {
        self.entry
    }

    /// Returns which of two values is better; `None` where it is not one number.
    pub fn better(&self) -> Option<Better> {
        self.entry.better
    }

    /// Returns true for the loss of the training steps, which no evaluation gives.
    pub fn is_of_training(&self) -> bool {
        std::ptr::eq(self.entry, &TRAIN_LOSS)
    }

    /// Returns the number in its name; 0 where there is none.
    pub(super) fn number(&self) -> usize {
        self.number
    }
}

impl Entry {
    /// Returns what stands before the number in the names of a metric that has one.
    fn prefix(&self) -> Option<&'static str> {
        self.name.strip_suffix('K')
    }
}

impl PartialEq for Metric {
    fn eq(&self, other: &Metric) -> bool {
        std::ptr::eq(self.entry, other.entry) && self.number == other.number
    }
}

impl Eq for Metric {}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl fmt::Debug for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metric({self})")
    }
}

impl Serialize for Metric {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Metric {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Metric, D::Error> {
        let name = String::deserialize(deserializer)?;
        Metric::parse(&name).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_both_spellings_and_what_was_meant_is_told() {
        for name in ["loss", "accuracy", "top_1", "top_25", "f1_macro", "roc_auc", "r2", "train_loss"] {
            assert_eq!(Metric::parse(name).unwrap().name(), name);
            assert_eq!(Metric::parse(&name.replace('_', "-")).unwrap().name(), name);
        }
        let cases = [
            ("acuracy", "unknown metric \"acuracy\", did you mean \"accuracy\"?"),
            ("top-0", "unknown metric \"top-0\", did you mean \"top_K\"?"),
            ("top_K", "unknown metric \"top_K\", did you mean \"top_K\"?"),
            ("top-99999999999999999999", "known are \"loss\", \"accuracy\", \"top_K\""),
            ("bleu score", "known are \"loss\""),
        ];
        for (name, expected) in cases {
            let error = Metric::parse(name).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn every_metric_of_one_number_says_what_is_better() {
        let less = ["loss", "perplexity", "mae", "mse", "rmse"];
        for entry in METRICS {
            let expected = match entry.name {
                "confusion" | "per_class" => None,
                name if less.contains(&name) => Some(Better::Less),
                _ => Some(Better::More),
            };
            assert_eq!(entry.better, expected, "{}", entry.name);
        }
        assert_eq!(Metric::parse("train_loss").unwrap().better(), Some(Better::Less));
    }

    #[test]
    fn the_folder_and_the_list_agree() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/metrics");
        let helpers = ["counts", "form", "metric", "mod", "rows", "set", "tests"];
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_string())
            .filter(|stem| !helpers.contains(&stem.as_str()))
            .collect();
        files.sort();
        let file = |entry: &&Entry| match entry.name {
            "top_K" => "top_k".to_string(),
            "f1_macro" | "f1_micro" => "f1".to_string(),
            "rmse" => "mse".to_string(),
            name => name.to_string(),
        };
        let mut listed: Vec<String> = METRICS.iter().map(file).collect();
        listed.sort();
        listed.dedup();
        assert_eq!(files, listed);
    }
}
