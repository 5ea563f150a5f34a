//! A failure, as the page shows it.

use freeze_plan::error::in_one_line;
use freeze_plan::onnx::OnnxError;
use freeze_plan::plan::PlanError;
use freeze_plan::planner::PlannerError;
use serde::Serialize;
use std::error::Error;

/// What went wrong, and what to do where that is known.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// What went wrong, in one line.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Failure {
    /// Returns a failure without a hint.
    pub fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), hint: None }
    }

    /// Returns a failure telling an error with its sources in one line.
    fn of(error: &dyn Error) -> Failure {
        Failure::new(in_one_line(error))
    }

    /// Adds what to do.
    pub fn hint(self, hint: impl Into<String>) -> Failure {
        Failure { hint: Some(hint.into()), ..self }
    }
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Failure {
        let told = Failure::of(&error);
        match (&error, error.remedy()) {
            (PlanError::NoMatch { .. }, _) => told.hint("a plan without the pattern shows the paths of the units"),
            (_, Some(remedy)) => told.hint(remedy),
            _ => told,
        }
    }
}

impl From<PlannerError> for Failure {
    fn from(error: PlannerError) -> Failure {
        match error {
            PlannerError::Plan(error) => error.into(),
            _ => Failure::of(&error),
        }
    }
}

impl From<OnnxError> for Failure {
    fn from(error: OnnxError) -> Failure {
        Failure::of(&error)
    }
}
