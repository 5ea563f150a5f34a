//! Plans of one model side by side.

mod csv;
mod html;
mod lines;
mod notes;
mod numbers;
pub(super) mod strip;
#[cfg(feature = "cli")]
mod table;
#[cfg(test)]
mod tests;

pub use csv::compare_csv;
#[cfg(feature = "runner")]
pub(super) use html::OWN_STYLE;
pub use html::compare_html;
#[cfg(feature = "runner")]
pub(super) use lines::{look, sample, spread};
#[cfg(feature = "runner")]
pub(super) use numbers::Numbers;
#[cfg(feature = "cli")]
pub use table::compare_table;

use crate::plan::FreezePlan;
use serde_json::json;

/// What the field `format` of a comparison says.
pub const COMPARE_FORMAT: &str = "freeze-plan-compare/1";

/// A plan that is compared with others.
#[derive(Clone, Debug)]
pub struct Compared {
    /// What it is called: policy and settings as they were asked for, or a file.
    pub label: String,
    /// The plan.
    pub plan: FreezePlan,
    /// How much of it holds.
    pub known: Known,
}

/// How much of a plan holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// All: it follows from the model.
    Ahead,
    /// Nothing but what is frozen by name: the policy decides by what the run measures.
    Measured,
    /// What follows from an assumption in place of measurements.
    Assuming(String),
    /// All: it was read from a file. By which evidence it is a plan of the model.
    File(String),
}

impl Compared {
    /// Returns true where what the plan freezes is not known ahead.
    fn is_unknown(&self) -> bool {
        self.known == Known::Measured
    }

    /// Returns what a reader must know of its numbers.
    fn caution(&self) -> Option<String> {
        match &self.known {
            Known::Ahead => None,
            Known::Measured => Some("decides by what the run measures: what it freezes is not known ahead".into()),
            Known::Assuming(assumption) => Some(format!("decides by what the run measures; {assumption}")),
            Known::File(evidence) => Some(format!("a plan {evidence}")),
        }
    }
}

/// Returns the plans as one JSON object with a final newline: `format` is [`COMPARE_FORMAT`], `plans` are plan files.
pub fn compare_json(plans: &[Compared]) -> String {
    let plans: Vec<&FreezePlan> = plans.iter().map(|compared| &compared.plan).collect();
    let value = json!({ "format": COMPARE_FORMAT, "plans": plans });
    let mut text = serde_json::to_string_pretty(&value).expect("invariant: a plan has string keys and finite numbers");
    text.push('\n');
    text
}
