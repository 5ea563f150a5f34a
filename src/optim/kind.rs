//! The names of the optimizers, and which options each takes.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Which optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Stochastic gradient descent.
    Sgd,
    /// Adam, with weight decay added to the gradient.
    Adam,
    /// Adam, with weight decay apart from the gradient.
    AdamW,
    /// The gradient over the root of the average of its squares.
    RmsProp,
    /// The gradient over the root of the sum of its squares.
    Adagrad,
    /// The sign of an average of the gradient.
    Lion,
    /// The orthogonal factor of the velocity, for matrices; other parameters have a fallback.
    Muon,
}

impl OptimizerKind {
    /// Every kind, in the order of the documentation.
    pub const ALL: [OptimizerKind; 7] = [
        OptimizerKind::Sgd,
        OptimizerKind::Adam,
        OptimizerKind::AdamW,
        OptimizerKind::RmsProp,
        OptimizerKind::Adagrad,
        OptimizerKind::Lion,
        OptimizerKind::Muon,
    ];

    /// Returns the name a job file uses.
    pub fn name(self) -> &'static str {
        match self {
            OptimizerKind::Sgd => "sgd",
            OptimizerKind::Adam => "adam",
            OptimizerKind::AdamW => "adamw",
            OptimizerKind::RmsProp => "rmsprop",
            OptimizerKind::Adagrad => "adagrad",
            OptimizerKind::Lion => "lion",
            OptimizerKind::Muon => "muon",
        }
    }

    /// Returns the kind of a name.
    pub fn from_name(name: &str) -> Option<OptimizerKind> {
        OptimizerKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Returns the options that this kind has beside those of all kinds.
    pub(super) fn options(self) -> &'static [&'static str] {
        match self {
            OptimizerKind::Sgd => &["momentum", "dampening", "nesterov"],
            OptimizerKind::Adam => &["betas", "eps", "amsgrad", "decoupled_weight_decay"],
            OptimizerKind::AdamW => &["betas", "eps", "amsgrad"],
            OptimizerKind::RmsProp => &["alpha", "eps", "momentum", "centered"],
            OptimizerKind::Adagrad => &["lr_decay", "eps", "initial_accumulator_value"],
            OptimizerKind::Lion => &["betas"],
            OptimizerKind::Muon => {
                &["momentum", "nesterov", "eps", "ns_steps", "ns_coefficients", "adjust_lr_fn", "fallback"]
            }
        }
    }
}

impl fmt::Display for OptimizerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
