//! A failure, as the Python program sees it.

use freeze_plan::error::{ErrorKind, in_one_line};
use freeze_plan::plan::PlanError;
use freeze_plan::planner::PlannerError;
use pyo3::prelude::*;
use std::any::Any;
use std::error::Error;

/// What went wrong, and what to do where that is known.
pub struct Failure {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// Returns a failure about what the caller asked for.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { kind: ErrorKind::Usage, message: message.into(), hint: None }
    }

    /// Returns a failure telling an error with its sources in one line.
    fn of(kind: ErrorKind, error: &dyn Error) -> Failure {
        Failure { kind, message: in_one_line(error), hint: None }
    }

    /// Returns the failure that a panic is.
    pub fn panic(payload: Box<dyn Any + Send>) -> Failure {
        let text = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
        let message = format!("the library panicked: {}", text.unwrap_or("no message"));
        let hint = "this is a defect of freeze-plan; please report it with the model and the call";
        Failure { kind: ErrorKind::Internal, message, hint: Some(hint.into()) }
    }

    /// Adds what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Returns the exception `freeze_plan.Error`.
    pub fn raise(self, py: Python<'_>) -> PyErr {
        let kind = match self.kind {
            ErrorKind::BadInput => "bad-input",
            ErrorKind::Usage => "usage",
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::Check => "check",
            ErrorKind::Internal => "internal",
        };
        let class = py.import("freeze_plan._error").and_then(|module| module.getattr("Error"));
        match class.and_then(|class| class.call1((self.message, self.hint, kind))) {
            Ok(error) => PyErr::from_value(error),
            Err(error) => error,
        }
    }
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Failure {
        let told = Failure::of(error.kind(), &error);
        match (&error, error.remedy()) {
            (PlanError::NoMatch { .. }, _) => told.hint("freeze_plan.tree(model) shows paths and parameter names"),
            (_, Some(remedy)) => told.hint(remedy),
            _ => told,
        }
    }
}

impl From<PlannerError> for Failure {
    fn from(error: PlannerError) -> Failure {
        match error {
            PlannerError::Plan(error) => error.into(),
            _ => Failure::of(error.kind(), &error),
        }
    }
}
