//! What a user may ask of a plan; the same names in a job file and on the command line.

use super::{BatchNorm, FrozenDropout, PlanError};
use crate::modules::UnitKind;
use serde::{Deserialize, Serialize};

/// The most epochs a plan may have.
pub const MAX_EPOCHS: usize = 1_000_000;

/// How a schedule's value is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arithmetic {
    /// In f64, in Composer's order of operations, bit for bit.
    #[default]
    Composer,
    /// In rational numbers: a fraction is the decimal as it was written.
    Exact,
}

/// Options of a plan: the `[freeze]` table of a job, and the options of the command line with
/// `_` for `-`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlanOptions {
    /// Name of the policy. Default `linear`.
    pub policy: String,
    /// Fraction of training after which freezing starts, in [0, 1]. Default 0.5.
    pub freeze_start: f64,
    /// Fraction of the freezable units that is frozen when training ends, in [0, 1]. Default 1.
    pub freeze_level: f64,
    /// How the schedule is computed. Default `composer`.
    pub arithmetic: Arithmetic,
    /// What is frozen as one. Default `leaf`.
    pub unit: UnitKind,
    /// Globs on unit paths and parameter names: frozen in all epochs.
    pub freeze: Vec<String>,
    /// Globs on unit paths and parameter names: never frozen.
    pub keep: Vec<String>,
    /// Globs on initializer names and module paths: trainable, whatever the file looks like.
    pub parameter: Vec<String>,
    /// Globs on initializer names and module paths: buffers, which nothing trains.
    pub buffer: Vec<String>,
    /// What BatchNormalization does in frozen units. Default `train`.
    pub batch_norm: BatchNorm,
    /// What Dropout does in frozen units. Default `train`.
    pub dropout: FrozenDropout,
}

impl Default for PlanOptions {
    fn default() -> PlanOptions {
        PlanOptions {
            policy: "linear".into(),
            freeze_start: 0.5,
            freeze_level: 1.0,
            arithmetic: Arithmetic::default(),
            unit: UnitKind::default(),
            freeze: Vec::new(),
            keep: Vec::new(),
            parameter: Vec::new(),
            buffer: Vec::new(),
            batch_norm: BatchNorm::default(),
            dropout: FrozenDropout::default(),
        }
    }
}

/// Refuses a value that is no fraction in [0, 1].
pub(super) fn check_fraction(argument: &'static str, value: f64) -> Result<f64, PlanError> {
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(PlanError::Fraction { argument, value }) }
}

/// Refuses a number of epochs outside 1 to [`MAX_EPOCHS`].
pub(super) fn check_epochs(epochs: usize) -> Result<usize, PlanError> {
    if (1..=MAX_EPOCHS).contains(&epochs) { Ok(epochs) } else { Err(PlanError::Epochs { epochs }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_outside_its_range_is_refused_with_name_value_and_range() {
        struct Case {
            value: f64,
            text: Option<&'static str>,
        }
        let cases = [
            Case { value: 0.0, text: None },
            Case { value: 1.0, text: None },
            Case { value: -0.0, text: None },
            Case { value: 1.5, text: Some("freeze_start is 1.5, expected a fraction in [0, 1]") },
            Case { value: -0.1, text: Some("freeze_start is -0.1, expected a fraction in [0, 1]") },
            Case { value: f64::NAN, text: Some("freeze_start is NaN, expected a fraction in [0, 1]") },
            Case { value: f64::INFINITY, text: Some("freeze_start is inf, expected a fraction in [0, 1]") },
        ];
        for Case { value, text } in cases {
            let found = check_fraction("freeze_start", value).err().map(|error| error.to_string());
            assert_eq!(found.as_deref(), text);
        }
    }

    #[test]
    fn epochs_outside_their_range_are_refused() {
        assert!(check_epochs(1).is_ok() && check_epochs(MAX_EPOCHS).is_ok());
        for epochs in [0, MAX_EPOCHS + 1] {
            let text = check_epochs(epochs).unwrap_err().to_string();
            assert_eq!(text, format!("epochs is {epochs}, expected 1 to 1000000"));
        }
    }

    #[test]
    fn options_take_defaults_and_refuse_unknown_names() {
        let options: PlanOptions = serde_json::from_str(r#"{"freeze_level": 1, "keep": ["fc"]}"#).unwrap();
        assert_eq!(options, PlanOptions { keep: vec!["fc".into()], ..PlanOptions::default() });
        let error = serde_json::from_str::<PlanOptions>(r#"{"freeze_levl": 1}"#).unwrap_err();
        assert!(error.to_string().starts_with("unknown field `freeze_levl`"), "{error}");
    }
}
