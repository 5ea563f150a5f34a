//! Why a plan cannot be made or read.

use super::options::COMMON;
use crate::error::ErrorKind;
use std::path::PathBuf;

/// A plan that cannot be made, or a plan file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum PlanError {
    #[error("{name} is {found}, expected {expected}")]
    Knob { name: &'static str, found: String, expected: String },
    #[error("{name}, entry {item}: {reason}")]
    Item { name: &'static str, item: usize, reason: String },
    #[error("policy \"{policy}\" has no setting \"{name}\"{}", meant(.nearest))]
    UnknownKnob { policy: String, name: String, nearest: Option<String>, known: Vec<String> },
    #[error("\"{name}\" is an option of all policies and no setting of policy \"{policy}\": it is given on its own")]
    OptionAsKnob { policy: String, name: String },
    #[error("the plan would change {changes} times within its epochs and name {names} parameters, at most {most} go")]
    Changes { changes: usize, names: usize, most: usize },
    #[error("{argument} is {value:e}, the exact arithmetic takes at most {most} decimals")]
    Decimals { argument: &'static str, value: f64, most: usize },
    #[error("epochs is {epochs}, expected 1 to {most}", most = super::MAX_EPOCHS)]
    Epochs { epochs: usize },
    #[error("there is no policy \"{name}\"{}, expected one of {known}", meant(.nearest))]
    UnknownPolicy { name: String, nearest: Option<String>, known: String },
    #[error("{argument} pattern \"{pattern}\" is no {kind}: {reason}")]
    Pattern { argument: &'static str, pattern: String, kind: &'static str, reason: String },
    #[error("{argument} pattern \"{pattern}\" matches no unit and no parameter{}", list(.near))]
    NoMatch { argument: &'static str, pattern: String, near: Vec<String> },
    #[error("{argument} pattern \"{pattern}\" matches no module and no initializer{}", list(.near))]
    NoInitializer { argument: &'static str, pattern: String, near: Vec<String> },
    #[error("parameter pattern \"{pattern}\" matches nothing that can train; \"{name}\": {reason}")]
    Untrainable { pattern: String, name: String, reason: String },
    #[error("initializer \"{name}\" matches a parameter pattern and a buffer pattern")]
    ParameterAndBuffer { name: String },
    #[error("freeze pattern \"{freeze}\" and keep pattern \"{keep}\" both match parameter \"{parameter}\"")]
    FreezeAndKeep { freeze: String, keep: String, parameter: String },
    #[error("parameter \"{parameter}\" is in unit \"{first}\" and in unit \"{second}\"")]
    TwoUnits { parameter: String, first: String, second: String },
    #[error("there are {units} units and {costs} unit costs")]
    Lengths { units: usize, costs: usize },
    #[error("policy \"{policy}\", epoch {epoch}: {reason}")]
    Decision { policy: String, epoch: usize, reason: String },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{path} ends too early, at line {line} column {column}")]
    Truncated { path: PathBuf, line: usize, column: usize },
    #[error("{path} is no plan file")]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{path} has format \"{found}\", this program reads \"{expected}\"", expected = super::FORMAT)]
    Format { path: PathBuf, found: String },
    #[error("{path}: {reason}")]
    Invalid { path: PathBuf, reason: String },
}

impl PlanError {
    /// Returns what to do, where the error itself knows that: the settings that a policy has.
    pub fn remedy(&self) -> Option<String> {
        let PlanError::UnknownKnob { policy, known, .. } = self else { return None };
        let own: Vec<&str> = known.iter().map(String::as_str).filter(|name| !COMMON.contains(name)).collect();
        Some(match own.as_slice() {
            [] => format!("policy {policy} has no settings"),
            _ => format!("the settings of policy {policy} are {}", own.join(", ")),
        })
    }

    /// Returns the group this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        match self {
            PlanError::Knob { .. }
            | PlanError::Item { .. }
            | PlanError::UnknownKnob { .. }
            | PlanError::OptionAsKnob { .. }
            | PlanError::Changes { .. }
            | PlanError::Decimals { .. }
            | PlanError::Epochs { .. }
            | PlanError::UnknownPolicy { .. }
            | PlanError::Pattern { .. }
            | PlanError::NoMatch { .. }
            | PlanError::NoInitializer { .. }
            | PlanError::Untrainable { .. }
            | PlanError::ParameterAndBuffer { .. }
            | PlanError::FreezeAndKeep { .. } => ErrorKind::Usage,
            PlanError::TwoUnits { .. } | PlanError::Lengths { .. } | PlanError::Decision { .. } => ErrorKind::Internal,
            PlanError::Read { .. }
            | PlanError::Write { .. }
            | PlanError::Truncated { .. }
            | PlanError::Json { .. }
            | PlanError::Format { .. }
            | PlanError::Invalid { .. } => ErrorKind::BadInput,
        }
    }
}

fn meant(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!(" (nearest: \"{name}\")")).unwrap_or_default()
}

fn list(near: &[String]) -> String {
    if near.is_empty() {
        return String::new();
    }
    let names: Vec<String> = near.iter().map(|name| format!("\"{name}\"")).collect();
    format!(" (near: {})", names.join(", "))
}
