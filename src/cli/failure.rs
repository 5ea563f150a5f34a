//! How a failure is told: one line, the remedy on a second one, an exit code.

use super::printable::line;
use crate::error::ErrorKind;
use crate::training::{TrainingError, names};
use std::error::Error;
use std::process::ExitCode;

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    open_size: bool,
}

/// What a command gives back.
pub type CommandResult = Result<ExitCode, Failure>;

impl Failure {
    /// Returns a failure with a text of its own.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into(), hint: None, open_size: false }
    }

    /// Adds what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Puts what failed before the message.
    pub fn within(mut self, what: &str) -> Failure {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Returns true when it is about the options.
    pub fn is_usage(&self) -> bool {
        self.kind == ErrorKind::Usage
    }

    /// Returns true when sizes that the model leaves open may be why.
    pub fn is_open_size(&self) -> bool {
        self.open_size
    }

    /// Prints the failure as the reason of what is done instead.
    pub fn note(self, instead: &str) {
        eprintln!("note: {}", line(&format!("{}{instead}", self.message)));
    }

    /// Prints the failure to stderr and returns its exit code.
    pub fn print(self) -> ExitCode {
        eprintln!("error: {}", line(&self.message));
        if let Some(hint) = self.hint {
            eprintln!("hint: {}", line(&hint));
        }
        ExitCode::from(self.kind.exit_code())
    }

    /// Prints the failure as the reason of a warning.
    pub fn warn(self, warning: &str) {
        eprintln!("warning: {warning}: {}", self.message);
    }

    /// Returns a failure telling an error with its sources in one line.
    pub fn of(kind: ErrorKind, error: &dyn Error) -> Failure {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            let text = inner.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            source = inner.source();
        }
        Failure::new(kind, message)
    }
}

macro_rules! failures {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Failure {
                Failure::of(error.kind(), &error)
            }
        }
    )*};
}

failures! {
    crate::artifacts::ArtifactsError,
    crate::initial::InitialError,
    crate::onnx::OnnxError,
    crate::plan::PlanError,
    crate::planner::PlannerError,
    crate::runner::EngineError,
    crate::runner::JobError,
    crate::data::DataError,
}

impl From<TrainingError> for Failure {
    fn from(error: TrainingError) -> Failure {
        let failure = Failure { open_size: error.is_open_size(), ..Failure::of(error.kind(), &error) };
        match &error {
            TrainingError::Collision { name, .. } if name == names::TARGET => failure.hint(
                "rename it in the model, or let the loss of a job name its target: target = \"y\" in [loss] and \
                 target = { y = \"column\" } in [data]",
            ),
            TrainingError::Collision { .. } => {
                failure.hint("rename it in the model (an exporter lets you choose the names of inputs and outputs)")
            }
            _ => failure,
        }
    }
}

impl From<crate::runner::LocateError> for Failure {
    fn from(error: crate::runner::LocateError) -> Failure {
        let hint = error.hint();
        let failure = Failure::of(error.kind(), &error);
        if hint.is_empty() { failure } else { failure.hint(hint) }
    }
}

impl From<crate::runner::RunError> for Failure {
    fn from(error: crate::runner::RunError) -> Failure {
        let failure = Failure::of(error.kind(), &error);
        match error {
            crate::runner::RunError::NotFinite { .. } => {
                failure.hint("lower optimizer.lr, set optimizer.clip_norm, or look for bad values in the data")
            }
            _ => failure,
        }
    }
}
