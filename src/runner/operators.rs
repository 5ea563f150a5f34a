//! Which operators a run uses.

use crate::autodiff::Form;
use serde::{Deserialize, Serialize};

/// Whose operators a run uses where there is a choice. They compute the same but for rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Operators {
    /// Ours, where the engine can have them: faster.
    #[default]
    Own,
    /// The engine's alone, as graphs in files are written.
    Standard,
}

impl Operators {
    /// Returns the engine's: those of runs that did not say.
    pub(super) fn standard() -> Operators {
        Operators::Standard
    }

    /// Returns whose operators a form has.
    pub(super) fn of(form: Form) -> Operators {
        match form {
            Form::Native => Operators::Own,
            Form::Portable => Operators::Standard,
        }
    }

    /// Returns in which operators graphs are written for an engine that prefers `best`.
    pub(super) fn form(self, best: Form) -> Form {
        match self {
            Operators::Own => best,
            Operators::Standard => Form::Portable,
        }
    }
}
