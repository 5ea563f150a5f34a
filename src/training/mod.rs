//! From a model, a frozen set, a loss and an optimizer to the graphs of one phase.
//!
//! [`prepare`] brings a model into the one form that gradients are defined for; [`build`] then
//! makes the train, optimizer and eval graphs of any frozen set from it. A frozen parameter
//! becomes a constant of the train graph, no gradient node is built that only it needs, and it
//! is absent from the optimizer graph.
//!
//! What this module does not do: run anything, or decide what is frozen.

mod accumulate;
#[doc(hidden)]
pub mod average;
mod contract;
mod depends;
mod dropout;
mod export;
#[doc(hidden)]
pub mod finite;
mod forward;
mod groups;
mod in_place;
mod min_cut;
pub mod names;
mod objective;
mod outputs;
#[doc(hidden)]
pub mod prefix;
mod prepare;
mod random;
mod recompute;
mod scaled;
pub mod stage;
mod step;
mod terms;

pub use contract::{Contract, FORMAT as CONTRACT_FORMAT, GraphContract, Port, Role};
pub use dropout::Dropout;
pub use export::trained_edits;
pub use groups::{Rate, Rates, grouped};
pub use in_place::{InPlaceError, check_in_place};
pub use objective::{Objective, Own};
pub use outputs::UnitOutputs;
pub use prepare::{Prepared, prepare};
pub use recompute::Recompute;
pub use step::{PhaseOptions, Slot, TrainStep, build, eval, target_fact};
pub use terms::{Target, prediction, targets};

use crate::autodiff::AutodiffError;
use crate::error::ErrorKind;

/// Graphs that cannot be made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum TrainingError {
    #[error("\"{name}\" is a value of the model and the name of {meaning} in the training graphs")]
    Collision { name: String, meaning: String },
    #[error("node \"{node}\" {reason}")]
    Node { node: String, reason: String },
    #[error("the model has no output to train on")]
    NoOutput,
    #[error("the model has no output \"{name}\"; its outputs are {known}")]
    UnknownOutput { name: String, known: String },
    #[error("the model has no trainable parameters")]
    NoParameters,
    #[error("dropout is asked for, but the model has no Dropout node")]
    NoDropout,
    #[error("the pattern \"{pattern}\" of modules to recompute: {reason}")]
    Recompute { pattern: String, reason: String },
    #[error("{}", if .module.is_empty() { "the root module".into() } else { format!("module \"{module}\"") })]
    Gradient { module: String, source: AutodiffError },
    #[error(transparent)]
    Loss(#[from] crate::losses::LossError),
    #[error(transparent)]
    Optimizer(#[from] crate::optim::OptimError),
    #[error("the groups of the optimizer: {0}")]
    Group(#[from] crate::plan::PlanError),
    #[error(transparent)]
    Upgrade(#[from] crate::graph::UpgradeError),
    #[error(transparent)]
    InPlace(#[from] InPlaceError),
    #[error(transparent)]
    Stage(#[from] stage::StageError),
    #[error("training information runs as it is written: accumulate goes with a loss and an optimizer")]
    Accumulate,
    #[error("training information runs as it is written: a scaled loss goes with a loss and an optimizer")]
    Scaled,
    #[error("training information runs as it is written: rates of single units go with a loss and an optimizer")]
    Rates,
    #[error(
        "parameter \"{parameter}\" has a learning rate that is given with each step, which training information cannot hold"
    )]
    Varies { parameter: String },
    #[error("the {graph} graph is inconsistent")]
    Check { graph: &'static str, source: crate::graph::CheckError },
}

impl TrainingError {
    /// Returns true when sizes that the model leaves open may be why.
    pub fn is_open_size(&self) -> bool {
        use crate::losses::LossError;
        match self {
            TrainingError::Gradient { source, .. } => source.is_open_size(),
            TrainingError::Loss(error) => matches!(error, LossError::Prediction { .. } | LossError::Shapes { .. }),
            _ => false,
        }
    }

    /// Returns the group this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        match self {
            TrainingError::Gradient { source, .. } => source.kind(),
            TrainingError::Loss(error) => error.kind(),
            TrainingError::Optimizer(error) => error.kind(),
            TrainingError::Group(error) => error.kind(),
            TrainingError::Stage(error) => error.kind(),
            TrainingError::InPlace(InPlaceError::IsOutput { .. }) => ErrorKind::Unsupported,
            TrainingError::InPlace(_) | TrainingError::Check { .. } => ErrorKind::Internal,
            TrainingError::UnknownOutput { .. } | TrainingError::Recompute { .. } => ErrorKind::BadInput,
            TrainingError::Accumulate | TrainingError::Scaled | TrainingError::Rates | TrainingError::Varies { .. } => {
                ErrorKind::Usage
            }
            _ => ErrorKind::Unsupported,
        }
    }
}
