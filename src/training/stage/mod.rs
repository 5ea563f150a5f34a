//! Training steps as the ONNX standard writes them, brought to the graphs of a phase.
//!
//! A [`TrainingInfo`](crate::onnx::TrainingInfo) is one graph that holds the model, its loss, `Gradient` nodes and optimizer
//! nodes of `ai.onnx.preview.training`, with bindings that say which value becomes which
//! initializer. [`prepare`] checks it; [`build`] cuts it at its gradients:
//!
//! - the *train graph* is what the losses and the gradients need; `Gradient` nodes become our own
//!   backward nodes, for exactly the parameters that train;
//! - the *optimizer graph* is the rest; `Adam`, `Momentum` and `Adagrad` become standard operators,
//!   parameter by parameter. What depends on constants and state alone (a step count, a learning
//!   rate) is computed there; what else it reads of the train graph is passed to it.
//!
//! Initializers that a binding assigns are state: parameters where [`crate::modules`] says so, running
//! values where the model holds them, and slots where the algorithm does. A slot belongs to a
//! parameter when only that parameter's update reads it, and freezes with it; others, such as the
//! step count, move while anything trains. Where another update reads a frozen parameter's
//! gradient it reads zeros, and a frozen parameter's next value is its value.
//!
//! The graph is run as it stands: BatchNormalization in inference form uses its running
//! statistics, in training form those of the batch.
//!
//! What this module does not do: gradients of gradients.

mod adagrad;
mod adam;
mod arrange;
mod build;
mod dependence;
mod losses;
mod momentum;
mod prepare;
mod rule;
mod update;
mod write;

pub use build::{StageOptions, build, eval};
pub use losses::expand;
pub use prepare::prepare;
pub use write::training_info;

use crate::error::ErrorKind;
use crate::graph::{Graph, NodeId, Tensor, ValueId};
use crate::losses::LossSpec;
use dependence::Dependence;
use rule::Rule;
use std::collections::{BTreeMap, HashSet};

/// Domain of the training operators.
pub const PREVIEW: &str = "ai.onnx.preview.training";

/// Training information that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum StageError {
    #[error("there is no training information {number}, the model has {count}")]
    NoStage { number: usize, count: usize },
    #[error("the training information has no Gradient node")]
    NoGradient,
    #[error("node \"{node}\" ({op}): {reason}")]
    Node { node: String, op: String, reason: String },
    #[error("\"{key}\" is bound to \"{value}\": {reason}")]
    Binding { key: String, value: String, reason: String },
    #[error("the update reads \"{value}\" {fact} of the train graph, whose shape must be fixed")]
    Passed { value: String, fact: String },
    #[error("the learning rate of the training information is computed, so a schedule cannot replace it")]
    Rate,
}

impl StageError {
    /// Returns the group this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        match self {
            StageError::NoStage { .. } | StageError::Rate => ErrorKind::Usage,
            StageError::Passed { .. } => ErrorKind::Unsupported,
            _ => ErrorKind::BadInput,
        }
    }
}

/// A training step on the graph of a [`Prepared`](super::Prepared) model.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Number in the file, from 1.
    pub number: usize,
    /// Name in the file of the one input that only the algorithm reads; it is `target` in the
    /// graphs. `None` where there are several, which keep their names, or none.
    pub target: Option<String>,
    /// Metrics that can be taken of the loss.
    pub metrics: LossSpec,
    /// Learning rate, where it is one constant for all optimizer nodes.
    pub rate: Option<f64>,
    /// Every slot, in the order of the bindings.
    slots: Vec<StageSlot>,
    /// Name in the file of what the first `Gradient` node differentiates.
    loss_name: String,
    /// Names of the inference graph's outputs.
    shown: HashSet<String>,
    gradients: Vec<Gradient>,
    rules: BTreeMap<NodeId, Rule>,
    bindings: Vec<Binding>,
    dependence: Dependence,
    initialization: Option<crate::graph::Model>,
    starts: Vec<(String, String)>,
}

/// State that the algorithm holds.
#[derive(Clone, Debug)]
struct StageSlot {
    name: String,
    owner: Option<String>,
    initial: Tensor,
}

/// A `Gradient` node.
#[derive(Clone, Debug)]
struct Gradient {
    node: NodeId,
    y: ValueId,
    xs: Vec<ValueId>,
}

/// State and what it becomes.
#[derive(Clone, Debug)]
struct Binding {
    key: ValueId,
    value: ValueId,
    holder: Holder,
}

/// What the key of a binding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Parameter,
    Statistic,
    Slot,
}

impl Stage {
    /// Returns whether the train graph shows the gradient of the loss of a parameter that the step trains: not where
    /// none is taken of it as it is, or several that belong together.
    pub fn shows_gradient(&self, graph: &Graph, parameter: &str) -> bool {
        let Some(id) = graph.find(parameter) else { return true };
        if !self.bindings.iter().any(|binding| binding.key == id) {
            return true;
        }
        let mut taken = self.gradients.iter().filter(|gradient| gradient.xs.contains(&id));
        taken.next().is_some_and(|gradient| gradient.y == self.loss()) && taken.next().is_none()
    }

    /// Returns the number of tensors that the update keeps for a parameter: the most of any.
    pub fn slots_per_parameter(&self) -> u64 {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for slot in self.slots.iter().filter(|slot| slot.initial.len() > 1) {
            *counts.entry(slot.owner.as_deref().unwrap_or_default()).or_default() += 1;
        }
        counts.into_iter().filter(|(owner, _)| !owner.is_empty()).map(|(_, count)| count).max().unwrap_or(0)
    }

    /// Returns the value that the first `Gradient` node differentiates.
    pub fn loss(&self) -> ValueId {
        self.gradients[0].y
    }

    /// Returns the first output of the model that is not the loss.
    pub fn prediction<'g>(&self, graph: &'g Graph) -> Option<&'g str> {
        let outputs = graph.outputs().iter().filter(|id| **id != self.loss()).map(|id| graph.value_name(*id));
        outputs.into_iter().find(|name| self.shown.contains(*name))
    }

    /// Returns what the stage does, in a few words.
    pub fn describe(&self) -> String {
        let mut kinds: Vec<&str> = self.rules.values().map(|rule| rule.kind.name()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let optimizer = if kinds.is_empty() { "an update of its own".into() } else { kinds.join(" and ") };
        let parameters = self.bindings.iter().filter(|binding| binding.holder == Holder::Parameter).count();
        format!(
            "training information {} of the model: loss \"{}\", {optimizer} on {parameters} parameters",
            self.number, self.loss_name
        )
    }

    /// Returns the inputs that data are fed to.
    pub fn inputs(&self, graph: &Graph) -> Vec<ValueId> {
        let slot = |id: &ValueId| self.slots.iter().any(|slot| slot.name == graph.value_name(*id));
        graph.inputs().iter().copied().filter(|id| !slot(id)).collect()
    }

    /// Returns the graph that computes starting values, with the initializer that each of its
    /// outputs is for; `None` where the values in the file are the starting values.
    pub fn initialization(&self) -> Option<(&crate::graph::Model, &[(String, String)])> {
        Some((self.initialization.as_ref()?, self.starts.as_slice()))
    }
}
