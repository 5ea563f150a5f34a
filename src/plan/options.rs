//! What a user may ask of a plan; the same names in a job file and on the command line.

use super::{BatchNorm, FrozenDropout, PlanError};
use crate::modules::UnitKind;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// The most epochs a plan may have.
pub const MAX_EPOCHS: usize = 1_000_000;

/// What becomes of the slots of a parameter that was frozen and trains again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OnReturn {
    /// They start anew, with their own count of steps.
    #[default]
    Reset,
    /// They are as they were when it froze.
    Keep,
    /// They start anew, and the learning rate rises to its full value over `warm_up_steps`.
    WarmUp,
}

/// Whether the frozen prefix of a train graph runs as a session of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum PrefixMode {
    /// Where that is worth a session.
    #[default]
    Auto,
    /// Never, but for what a cache keeps.
    Off,
}

/// Takes a freeze back that the metric does not stand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// Metric of the eval data, such as `accuracy`, where more is better, or `loss`, where less is.
    pub metric: String,
    /// How much worse it may be after the first epoch of a freeze than before, in units of the metric.
    #[cfg_attr(feature = "schema", schemars(range(min = 0)))]
    pub drop: f64,
    /// Epochs by which the freeze is put off, at least 1.
    #[serde(default = "one")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub delay: usize,
}

fn one() -> usize {
    1
}

/// Options of a plan: the `[freeze]` table of a job, and the options of the command line with
/// `_` for `-`. The settings of the policy stand beside them; see [`policies`](super::policies).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(default))]
pub struct PlanOptions {
    /// Name of the policy. Default `linear`.
    pub policy: String,
    /// Settings of the policy by name.
    #[serde(flatten)]
    pub knobs: Map<String, Value>,
    /// What is frozen as one. Default: what the policy is made for, most often `leaf`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitKind>,
    /// Patterns on unit paths and parameter names: frozen in all epochs.
    pub freeze: Vec<String>,
    /// Patterns on unit paths and parameter names: never frozen.
    pub keep: Vec<String>,
    /// Patterns on initializer names and module paths: trainable, whatever the file looks like.
    pub parameter: Vec<String>,
    /// Patterns on initializer names and module paths: buffers, which nothing trains.
    pub buffer: Vec<String>,
    /// What BatchNormalization does in frozen units. Default `train`.
    pub batch_norm: BatchNorm,
    /// What becomes of the optimizer's slots when something trains again. Default `reset`.
    pub on_return: OnReturn,
    /// Steps over which the rate rises with `on_return` `warm-up`. Default 100.
    pub warm_up_steps: usize,
    /// When a freeze is taken back. Default never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
    /// What Dropout does in frozen units. Default `train`.
    pub dropout: FrozenDropout,
    /// Whether what is frozen before everything that trains runs as a session of its own. Default `auto`.
    pub prefix: PrefixMode,
}

/// The options that are not settings of a policy.
pub(crate) const COMMON: &[&str] = &[
    "policy",
    "unit",
    "freeze",
    "keep",
    "parameter",
    "buffer",
    "batch_norm",
    "dropout",
    "on_return",
    "warm_up_steps",
    "rollback",
    "prefix",
];

impl Default for PlanOptions {
    fn default() -> PlanOptions {
        PlanOptions {
            policy: "linear".into(),
            knobs: Map::new(),
            unit: None,
            freeze: Vec::new(),
            keep: Vec::new(),
            parameter: Vec::new(),
            buffer: Vec::new(),
            batch_norm: BatchNorm::default(),
            on_return: OnReturn::default(),
            warm_up_steps: 100,
            rollback: None,
            dropout: FrozenDropout::default(),
            prefix: PrefixMode::default(),
        }
    }
}

impl PlanOptions {
    /// Returns the options with a setting of the policy. What is a field here is none.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> PlanOptions {
        self.knobs.insert(name.to_string(), value.into());
        self
    }

    /// Returns the options of a policy, the others at their defaults.
    pub fn of(policy: &str) -> PlanOptions {
        PlanOptions { policy: policy.into(), ..PlanOptions::default() }
    }

    /// Returns what is frozen as one: what was asked for, else what the policy is made for.
    pub fn unit(&self) -> UnitKind {
        let made_for = || super::policies::entry(&self.policy).and_then(|entry| entry.unit);
        self.unit.or_else(made_for).unwrap_or_default()
    }

    /// Returns the key and the reason of a value out of its range that is no setting of the policy.
    pub fn problem(&self) -> Option<(&'static str, String)> {
        let rollback = self.rollback.as_ref()?;
        if !(rollback.drop.is_finite() && rollback.drop >= 0.0) {
            return Some(("rollback.drop", format!("expected 0 or more, found {}", rollback.drop)));
        }
        (rollback.delay == 0).then(|| ("rollback.delay", "expected 1 or more, found 0".into()))
    }
}

impl<'de> Deserialize<'de> for PlanOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PlanOptions, D::Error> {
        deserializer.deserialize_map(Table)
    }
}

/// Reads the table key by key, so that a refusal knows its key.
struct Table;

impl<'de> Visitor<'de> for Table {
    type Value = PlanOptions;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PlanOptions, A::Error> {
        let mut options = PlanOptions::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "policy" => options.policy = map.next_value()?,
                "unit" => options.unit = Some(map.next_value()?),
                "freeze" => options.freeze = map.next_value()?,
                "keep" => options.keep = map.next_value()?,
                "parameter" => options.parameter = map.next_value()?,
                "buffer" => options.buffer = map.next_value()?,
                "batch_norm" => options.batch_norm = map.next_value()?,
                "prefix" => options.prefix = map.next_value()?,
                "dropout" => options.dropout = map.next_value()?,
                "on_return" => options.on_return = map.next_value()?,
                "warm_up_steps" => options.warm_up_steps = map.next_value()?,
                "rollback" => options.rollback = Some(map.next_value()?),
                _ => {
                    let value = map.next_value()?;
                    options.knobs.insert(key, value);
                }
            }
        }
        Ok(options)
    }
}

/// Refuses a number of epochs outside 1 to [`MAX_EPOCHS`].
pub(super) fn check_epochs(epochs: usize) -> Result<usize, PlanError> {
    if (1..=MAX_EPOCHS).contains(&epochs) { Ok(epochs) } else { Err(PlanError::Epochs { epochs }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_outside_their_range_are_refused() {
        assert!(check_epochs(1).is_ok() && check_epochs(MAX_EPOCHS).is_ok());
        for epochs in [0, MAX_EPOCHS + 1] {
            let text = check_epochs(epochs).unwrap_err().to_string();
            assert_eq!(text, format!("epochs is {epochs}, expected 1 to 1000000"));
        }
    }

    #[test]
    fn options_take_defaults_and_leave_settings_to_the_policy() {
        let text = r#"{"freeze_level": 1, "keep": ["fc"], "unit": "block"}"#;
        let options: PlanOptions = serde_json::from_str(text).unwrap();
        let keep = vec!["fc".to_string()];
        let expected = PlanOptions { keep, unit: Some(UnitKind::Block), ..PlanOptions::default() };
        assert_eq!(options, expected.with("freeze_level", 1));
        assert_eq!(serde_json::from_str::<PlanOptions>(&serde_json::to_string(&options).unwrap()).unwrap(), options);
        assert_eq!((PlanOptions::default().unit(), options.unit()), (UnitKind::Leaf, UnitKind::Block));
    }

    #[test]
    fn the_list_of_options_is_what_the_table_holds() {
        let rollback = Some(Rollback { metric: "loss".into(), drop: 0.1, delay: 1 });
        let options = PlanOptions { unit: Some(UnitKind::Leaf), rollback, ..PlanOptions::default() };
        let value = serde_json::to_value(&options).unwrap();
        let keys: std::collections::BTreeSet<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, COMMON.iter().copied().collect());
        assert_eq!(serde_json::from_value::<PlanOptions>(value.clone()).unwrap(), options, "no option is a setting");
    }

    #[test]
    fn a_rollback_out_of_its_range_is_named() {
        let with = |drop: f64, delay| PlanOptions {
            rollback: Some(Rollback { metric: "loss".into(), drop, delay }),
            ..PlanOptions::default()
        };
        assert_eq!(with(0.1, 1).problem(), None);
        assert_eq!(with(-0.1, 1).problem().map(|problem| problem.0), Some("rollback.drop"));
        assert_eq!(with(f64::NAN, 1).problem().map(|problem| problem.0), Some("rollback.drop"));
        assert_eq!(with(0.1, 0).problem().map(|problem| problem.0), Some("rollback.delay"));
    }
}
