//! What a job, a model or data can be refused for, as a person reads it.

use crate::classic::ClassicError;
use crate::error::{ErrorKind, in_one_line};
use crate::metrics::MetricError;
use crate::plan::PlanError;
use crate::planner::PlannerError;
use crate::training::{TrainingError, names};
use std::error::Error;
use std::fmt;

/// Why something cannot be trained, planned or read, in one line, with what to do.
#[derive(Clone, Debug)]
pub struct TrainerError {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    open_size: bool,
}

impl fmt::Display for TrainerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for TrainerError {}

impl TrainerError {
    /// Returns an error with a text of its own.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> TrainerError {
        TrainerError { kind, message: message.into(), hint: None, open_size: false }
    }

    /// Adds what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> TrainerError {
        self.hint = Some(hint.into());
        self
    }

    /// Returns what went wrong, in one line.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Puts what failed before the message.
    pub fn within(mut self, what: &str) -> TrainerError {
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

    /// Returns the group this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns what to do, where that is known.
    pub fn remedy(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Returns an error telling an error with its sources in one line.
    pub fn of(kind: ErrorKind, error: &dyn Error) -> TrainerError {
        TrainerError::new(kind, in_one_line(error))
    }
}

macro_rules! errors {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for TrainerError {
            fn from(error: $error) -> TrainerError {
                TrainerError::of(error.kind(), &error)
            }
        }
    )*};
}

errors! {
    crate::artifacts::ArtifactsError,
    crate::initial::InitialError,
    crate::onnx::OnnxError,
    crate::runner::EngineError,
    crate::runner::JobError,
    crate::runner::precision::KeepError,
    crate::data::DataError,
    crate::checkpoint::CheckpointError,
    crate::metrics::MetricError,
}

impl From<PlanError> for TrainerError {
    fn from(error: PlanError) -> TrainerError {
        let told = TrainerError::of(error.kind(), &error);
        match error.remedy() {
            Some(remedy) => told.hint(remedy),
            None => told,
        }
    }
}

impl From<PlannerError> for TrainerError {
    fn from(error: PlannerError) -> TrainerError {
        match error {
            PlannerError::Plan(error) => error.into(),
            error => TrainerError::of(error.kind(), &error),
        }
    }
}

impl From<TrainingError> for TrainerError {
    fn from(error: TrainingError) -> TrainerError {
        let told = TrainerError { open_size: error.is_open_size(), ..TrainerError::of(error.kind(), &error) };
        match &error {
            TrainingError::Collision { name, .. } if name == names::TARGET => told.hint(
                "rename it in the model, or let the loss of a job name its target: target = \"y\" in [loss] and \
                 target = { y = \"column\" } in [data]",
            ),
            TrainingError::Collision { .. } => {
                told.hint("rename it in the model (an exporter lets you choose the names of inputs and outputs)")
            }
            _ => told,
        }
    }
}

impl From<ClassicError> for TrainerError {
    fn from(error: ClassicError) -> TrainerError {
        let told = TrainerError::of(error.kind(), &error);
        match &error {
            ClassicError::Taken { .. } | ClassicError::Suffix { .. } => {
                told.hint("rename it in the model (an exporter lets you choose the names of inputs and outputs)")
            }
            ClassicError::Rate { .. } => told.hint(
                "choose a policy that keeps rates, or its setting for that, such as --set decay=1 of thaw, or \
                 --set anneal=false --set scaled=false of freezeout",
            ),
            ClassicError::Optimizer { .. } => told.hint("give --optimizer adamw or sgd, and --optimizer-set KEY=VALUE"),
            _ => told,
        }
    }
}

impl From<crate::runner::LocateError> for TrainerError {
    fn from(error: crate::runner::LocateError) -> TrainerError {
        let hint = error.hint();
        let told = TrainerError::of(error.kind(), &error);
        if hint.is_empty() { told } else { told.hint(hint) }
    }
}

impl From<crate::runner::RunError> for TrainerError {
    fn from(error: crate::runner::RunError) -> TrainerError {
        let told = TrainerError::of(error.kind(), &error);
        match error {
            crate::runner::RunError::NotFinite { .. } => {
                told.hint("lower optimizer.lr, set optimizer.clip_norm, or look for bad values in the data")
            }
            crate::runner::RunError::OutOfMemory(exhausted) if !exhausted.remedies.is_empty() => {
                told.hint(format!("what would help, with estimates: {}", exhausted.remedies.join("; ")))
            }
            crate::runner::RunError::Metrics(MetricError::Unfit { others, .. }) if !others.is_empty() => {
                told.hint(format!("the loss decides which metrics there are, here {}", others.join(", ")))
            }
            _ => told,
        }
    }
}
