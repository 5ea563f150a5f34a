//! What a run minimizes and how: a loss and an optimizer of ours, or a training step of the file.

use super::accumulate::accumulating;
use super::stage::{self, Stage, StageOptions};
use super::terms::predictions;
use super::{PhaseOptions, Prepared, Rates, TrainStep, TrainingError, build, eval};
use crate::graph::Model;
use crate::losses::{LossKind, LossSpec};
use crate::optim::OptimizerSpec;
#[cfg(feature = "runner")]
use std::collections::BTreeMap;
use std::collections::HashSet;

/// A loss and an optimizer.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// The loss.
    pub loss: &'a LossSpec,
    /// The model output that a loss reads which names none; the first where `None`.
    pub output: Option<&'a str>,
    /// The optimizer.
    pub optimizer: &'a OptimizerSpec,
}

/// What is trained, and how.
#[derive(Clone, Copy, Debug)]
pub enum Objective<'a> {
    /// Ours.
    Own(Own<'a>),
    /// A training step of the file.
    Stage {
        /// The step.
        stage: &'a Stage,
        /// Base learning rate of a schedule that replaces the step's own rate.
        lr: Option<f64>,
    },
}

impl<'a> Objective<'a> {
    /// Builds the graphs of a phase.
    ///
    /// # Errors
    /// See [`build`] and [`stage::build`].
    pub fn build(
        &self,
        prepared: &Prepared,
        frozen: HashSet<&str>,
        frozen_inputs: bool,
        rates: Rates<'_>,
        seed: u64,
    ) -> Result<TrainStep, TrainingError> {
        match *self {
            Objective::Own(Own { loss, output, optimizer }) => {
                build(prepared, &PhaseOptions { frozen, frozen_inputs, rates, loss, optimizer, output, seed })
            }
            Objective::Stage { stage, lr } => {
                if !rates.is_empty() {
                    return Err(TrainingError::Rates);
                }
                stage::build(prepared, stage, &StageOptions { frozen, frozen_inputs, seed, schedule: lr.is_some() })
            }
        }
    }

    /// Returns a step whose train graph adds gradients up over the batches of one update.
    ///
    /// # Errors
    /// A name is taken by the model, or the step is one of the file.
    pub fn accumulating(&self, step: TrainStep) -> Result<TrainStep, TrainingError> {
        match self {
            Objective::Own(_) => accumulating(step),
            Objective::Stage { .. } => Err(TrainingError::Accumulate),
        }
    }

    /// Builds the eval graph.
    ///
    /// # Errors
    /// See [`eval`](super::eval) and [`stage::eval`].
    pub fn eval(&self, prepared: &Prepared) -> Result<Model, TrainingError> {
        match self {
            Objective::Own(own) => eval(prepared, own.loss, own.output),
            Objective::Stage { stage, .. } => stage::eval(prepared, stage),
        }
    }

    /// Returns the operators of the model and the loss that have a gradient rule of the caller, with its version.
    ///
    /// # Errors
    /// As [`Objective::eval`].
    #[cfg(feature = "runner")]
    pub(crate) fn rules(&self, prepared: &Prepared) -> Result<BTreeMap<String, u64>, TrainingError> {
        if prepared.rules.is_empty() {
            return Ok(BTreeMap::new());
        }
        Ok(prepared.rules.in_force(&self.eval(prepared)?.graph, prepared.model.opset()))
    }

    /// Returns the name of the output that metrics are taken of; `None` where the model has no
    /// output but the loss.
    ///
    /// # Errors
    /// The model has no such output.
    pub fn prediction<'m>(&self, prepared: &'m Prepared) -> Result<Option<&'m str>, TrainingError> {
        let graph = &prepared.model.graph;
        match self {
            Objective::Own(own) => {
                let judged = own.loss.judged();
                let found = predictions(graph, judged, own.output)?.into_iter().next();
                Ok(found.filter(|_| judged.kind != LossKind::Output).map(|id| graph.value_name(id)))
            }
            Objective::Stage { stage, .. } => Ok(stage.prediction(graph)),
        }
    }

    /// Returns the loss whose metrics are taken: of a sum, one of its terms.
    pub fn metrics(&self) -> &'a LossSpec {
        match self {
            Objective::Own(own) => own.loss.judged(),
            Objective::Stage { stage, .. } => &stage.metrics,
        }
    }

    /// Returns true where the loss is a sum of several.
    pub fn is_sum(&self) -> bool {
        matches!(self, Objective::Own(own) if own.loss.terms().len() > 1)
    }

    /// Returns the base learning rate of the schedule; `None` where the update has a rate of its
    /// own.
    pub fn lr(&self) -> Option<f64> {
        match self {
            Objective::Own(own) => Some(own.optimizer.lr()),
            Objective::Stage { lr, .. } => *lr,
        }
    }
}
