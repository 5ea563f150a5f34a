//! The files of ONNX Runtime's on-device training, one set for each frozen set of a plan.
//!
//! A training-enabled ONNX Runtime (1.19.2 is the last with packages for Python, C#, Android and iOS) trains a model from
//! `training_model.onnx`, `eval_model.onnx`, `optimizer_model.onnx` and `checkpoint`. [`Phase::of`] makes the two models
//! of a [`TrainStep`], [`optimizer`] the third, [`Phase::initial`] and [`Phase::carried`] the checkpoint;
//! [`crate::artifacts`] reads all of them.
//!
//! ```text
//! training_model  data, targets, every parameter, P_grad.accumulation.buffer, lazy_reset_grad
//!                 -> loss, P_grad.accumulation.out
//!                 P_grad.accumulation.out = InPlaceAccumulatorV2(P_grad.accumulation.buffer, P_grad, lazy_reset_grad)
//! eval_model      data, targets, every parameter -> loss, the outputs of the model
//! optimizer_model learning_rate, step, params, gradients, first_order_moments[, second_order_moments] -> a flag
//! ```
//!
//! The graphs are those that this program trains with itself: gradients in operators of the ONNX standard, so that a
//! model trains whose operators the runtime has no gradient for. A frozen parameter is a parameter of the checkpoint
//! without a gradient, so the graphs of a frozen set hold for any weights, and only the checkpoint changes at a phase
//! change.
//!
//! State that moves while the model runs is written in place by `InPlaceAccumulatorV2` too, which copies where its flag
//! is constantly true: running statistics of BatchNormalization, and where Dropout draws the number of batches
//! ([`names::COUNT`]), from which the masks follow. Both move with every call of the training step, also with several for
//! one update.
//!
//! # What the format cannot hold
//!
//! - Parameters other than float32, optimizers other than AdamW and SGD without momentum or weight decay, more than one
//!   group of parameters, factors of the learning rate of single units, clipping by value. These are refused. Clipping
//!   by norm is held.
//! - The loop: epochs, data and the learning rate are the program's on the device, and the runtime's own scheduler is
//!   linear only. `phases.json` says which epochs train with which folder.
//! - Gradients of several training steps before one update are added and not averaged, as by the tools of ONNX Runtime.
//! - One count of steps for all parameters; [`state`](Phase::carried) says what becomes of the averages of AdamW when a
//!   parameter joins.
//! - A phase in which nothing trains: it has no folder.
//!
//! What this module does not do: run these files.

mod graphs;
#[doc(hidden)]
pub mod names;
mod optimizer;
mod phases;
mod state;

pub use graphs::Phase;
pub use optimizer::{check_optimizer, optimizer};
pub use phases::{FileName, PHASES_FORMAT, PhaseFolder, Phases, Stretch, folders};
pub use state::restored;

use crate::error::ErrorKind;
use crate::training::TrainStep;

/// What cannot be written in the format, or carried over in it.
#[derive(Debug, thiserror::Error, PartialEq)]
#[allow(missing_docs)]
pub enum ClassicError {
    #[error("\"{name}\" is a value of the model and the name of {meaning} in training artifacts")]
    Taken { name: String, meaning: String },
    #[error("the {what} \"{name}\" ends in \"{suffix}\", by which training artifacts tell gradients")]
    Suffix { what: &'static str, name: String, suffix: &'static str },
    #[error("parameter \"{name}\" is {found}; training artifacts {can}")]
    DType { name: String, found: String, can: &'static str },
    #[error("{what} cannot be held by training artifacts, which know {known}")]
    Optimizer { what: String, known: &'static str },
    #[error(
        "the plan multiplies the learning rate of \"{parameter}\" with {factor} in epoch {epoch}; training artifacts have one learning rate for all parameters"
    )]
    Rate { parameter: String, factor: f64, epoch: usize },
    #[error("the plan has no epoch in which something trains")]
    Nothing,
    #[error("nothing trains in epoch {epoch}, so it has no training artifacts")]
    Epoch { epoch: usize },
    #[error("the checkpoint holds no \"{name}\"")]
    Missing { name: String },
    #[error("\"{name}\" is {found} in the checkpoint, expected {expected}")]
    Shape { name: String, found: String, expected: String },
    #[error("\"{name}\" has {found} moments in the checkpoint, {optimizer} keeps {expected}")]
    Moments { name: String, found: usize, expected: usize, optimizer: String },
    #[error("the checkpoint holds \"{name}\", which is no parameter of the model")]
    Stranger { name: String },
    #[error("the {graph} graph is inconsistent: {reason}")]
    Check { graph: &'static str, reason: String },
}

impl ClassicError {
    /// Returns the group this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ClassicError::Nothing | ClassicError::Epoch { .. } => ErrorKind::Usage,
            ClassicError::Missing { .. }
            | ClassicError::Shape { .. }
            | ClassicError::Moments { .. }
            | ClassicError::Stranger { .. } => ErrorKind::BadInput,
            ClassicError::Check { .. } => ErrorKind::Internal,
            _ => ErrorKind::Unsupported,
        }
    }
}

#[cfg(test)]
mod tests;
