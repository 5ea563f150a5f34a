//! A model as it is planned and trained.

use super::TrainerError;
use super::sizes::Sizes;
use crate::error::ErrorKind;
use crate::facts::Probe;
use crate::modules::{UnitKind, units};
use crate::optim::{OptimizerSpec, SlotSpec};
use crate::plan::{FreezePlan, PlanOptions, Policy, Run};
use crate::planner::{Basis, Carried, Loaded, Request};
use crate::training::{Dropout, Prepared, TrainingError, grouped, prepare, stage};
use std::collections::HashMap;
use std::path::Path;

/// Takes what a person should know.
pub type Note<'a> = &'a mut dyn FnMut(&str);

/// Patterns for what is a parameter and for what is a buffer.
pub type Roles<'a> = (&'a [String], &'a [String]);

/// Loads a model, or the one that training artifacts were made from, that is used with these sizes and these roles. What
/// only a run can tell of its values is asked of `probe`.
///
/// # Errors
/// The file is no model, or the patterns match nothing.
pub fn load(
    path: &Path,
    sizes: &Sizes,
    (parameter, buffer): Roles<'_>,
    probe: Option<&mut dyn Probe>,
) -> Result<Loaded, TrainerError> {
    let loaded = Loaded::read_with(path, |graph| sizes.of(graph).unwrap_or_default(), probe)?;
    Ok(loaded.with_roles(parameter, buffer)?)
}

/// Prepares the model for training.
pub fn prepared(loaded: &Loaded, dropout: Dropout) -> Result<Prepared, TrainerError> {
    prepare(&loaded.analysis)?.with_dropout(dropout).map_err(|error| {
        let lost = matches!(error, TrainingError::NoDropout);
        let told = TrainerError::from(error);
        if !lost {
            return told;
        }
        told.hint(
            "exporters drop it from a module in eval mode: from PyTorch, export model.train() with dynamo=True, \
             optimize=False, or with dynamo=False, training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False",
        )
    })
}

/// A plan, and what others of the same run are made from.
pub struct Planned {
    /// The plan.
    pub plan: FreezePlan,
    /// Units, costs and policy.
    pub basis: Basis,
}

/// What a run of a model is planned for.
pub struct Wanted<'a> {
    /// The table `[freeze]`.
    pub options: &'a PlanOptions,
    /// How long it is, with 0 steps in an epoch where they are not known.
    pub length: Run,
    /// Sizes that the model leaves open.
    pub sizes: &'a Sizes,
    /// A policy in place of the one that the options name.
    pub policy: Option<Box<dyn Policy>>,
}

/// Plans a run of the model.
pub fn plan(loaded: &Loaded, wanted: Wanted<'_>, slots: Slots) -> Result<Planned, TrainerError> {
    planned(loaded, wanted, slots, None)
}

fn planned(loaded: &Loaded, wanted: Wanted<'_>, slots: Slots, step: Option<&Carried>) -> Result<Planned, TrainerError> {
    let Wanted { options, length, sizes, policy } = wanted;
    let request = Request {
        epochs: length.epochs,
        steps_per_epoch: length.steps_per_epoch,
        options,
        slots: slots.each,
        own_slots: slots.own,
        sizes: sizes.of(&loaded.analysis.model.graph)?,
    };
    let basis = loaded.basis(&request, sizes.batch(), step, policy)?;
    let plan = basis.plan()?;
    Ok(Planned { plan, basis })
}

/// The tensors that an optimizer keeps for each parameter.
#[derive(Clone, Debug)]
pub struct Slots {
    each: u64,
    own: HashMap<String, u64>,
}

/// Returns the tensors that an optimizer keeps for the parameters of the model.
///
/// # Errors
/// A group of the optimizer matches nothing.
pub fn slots(loaded: &Loaded, optimizer: &OptimizerSpec, note: Note<'_>) -> Result<Slots, TrainerError> {
    let analysis = &loaded.analysis;
    let count = |slots: Vec<SlotSpec>| slots.iter().filter(|slot| !slot.scalar).count() as u64;
    let each = count(optimizer.slots());
    let leaves = units(&analysis.tree, UnitKind::Leaf);
    let parameters = grouped(&analysis.model.graph, &leaves, &analysis.trainable(), optimizer)?;
    if !parameters.is_empty() && parameters.iter().all(|own| optimizer.falls_back(own)) {
        note(&format!("{} updates matrices, and no parameter is left to it: its fallback updates all", optimizer.kind));
    }
    let own = parameters.into_iter().map(|own| (count(optimizer.slots_of(&own)), own.name));
    let own = own.filter(|(slots, _)| *slots != each).map(|(slots, name)| (name, slots)).collect();
    Ok(Slots { each, own })
}

/// A training step that the model carries.
pub struct Staged {
    /// The graph of the step.
    pub prepared: Prepared,
    /// The step.
    pub stage: stage::Stage,
}

/// Prepares training step `number`, from 1, of the model, which runs as it is written.
pub fn staged(loaded: &Loaded, number: usize, dropout: Dropout) -> Result<Staged, TrainerError> {
    if dropout != Dropout::AsExported {
        let text = "training information runs as it is written: dropout goes with a loss and an optimizer";
        return Err(TrainerError::new(ErrorKind::Usage, text));
    }
    let (prepared, stage) = stage::prepare(&loaded.file, &loaded.analysis, number)?;
    Ok(Staged { prepared, stage })
}

impl Staged {
    /// Plans a run of the step: what it does not update is frozen throughout.
    pub fn plan(&self, loaded: &Loaded, wanted: Wanted<'_>) -> Result<Planned, TrainerError> {
        let carried = Carried::of(&loaded.analysis, &self.prepared, &self.stage);
        let slots = Slots { each: carried.slots, own: HashMap::new() };
        planned(loaded, wanted, slots, Some(&carried))
    }
}
