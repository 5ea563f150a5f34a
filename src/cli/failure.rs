//! How a failure is told: one line, the remedy on a second one, an exit code.

use super::printable::line;
use crate::trainer::TrainerError;
use std::process::ExitCode;

/// A failed command.
pub type Failure = TrainerError;

/// What a command gives back.
pub type CommandResult = Result<ExitCode, Failure>;

/// Prints a failure to stderr and returns its exit code.
pub fn print(failure: &Failure) -> ExitCode {
    eprintln!("error: {}", line(&failure.to_string()));
    if let Some(hint) = failure.remedy() {
        eprintln!("hint: {}", line(hint));
    }
    ExitCode::from(failure.kind().exit_code())
}

/// Prints what a person should know.
pub fn note(text: &str) {
    eprintln!("note: {}", line(text));
}
