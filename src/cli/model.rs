//! A model as the commands that plan ahead need it.

use super::failure::{Failure, note};
use super::probe::ChildProbe;
use crate::optim::{OptimizerKind, OptimizerSpec};
use crate::plan::{FreezePlan, PlanOptions, Run};
use crate::trainer::model::Roles;
pub use crate::trainer::model::{Loaded, Slots, Staged, plan, prepared, slots, staged};
use crate::trainer::sizes::Sizes;
use crate::training::Dropout;
use std::path::Path;

/// Loads a model with these roles, or the one that training artifacts were made from.
pub fn load(path: &Path, roles: Roles<'_>) -> Result<Loaded, Failure> {
    load_as(path, &Sizes::default(), None, roles)
}

/// Loads a model that is used with these sizes and these roles. `runtime` is the library that the command
/// runs models with, where one was named.
pub fn load_as(path: &Path, sizes: &Sizes, runtime: Option<&Path>, roles: Roles<'_>) -> Result<Loaded, Failure> {
    crate::trainer::model::load(path, sizes, roles, Some(&mut ChildProbe { runtime }))
}

/// What the command line plans ahead with: the training step that a model carries, else SGD with momentum.
pub struct Ahead<'a> {
    loaded: &'a Loaded,
    stage: Option<Staged>,
    slots: Slots,
}

impl<'a> Ahead<'a> {
    /// Returns what plans of the model are made with. A training step that cannot be used is told and left out.
    pub fn of(loaded: &'a Loaded) -> Result<Ahead<'a>, Failure> {
        let stage = match loaded.file.training.is_empty() {
            true => None,
            false => staged(loaded, 1, Dropout::AsExported)
                .map_err(|failure| eprintln!("warning: the training information is not used: {failure}"))
                .ok(),
        };
        let optimizer = OptimizerSpec { momentum: Some(0.9), ..OptimizerSpec::new(OptimizerKind::Sgd) };
        let slots = slots(loaded, &optimizer, &mut note)?;
        Ok(Ahead { loaded, stage, slots })
    }

    /// Plans a run.
    pub fn plan(&self, options: &PlanOptions, length: Run, sizes: &Sizes) -> Result<FreezePlan, Failure> {
        let planned = match &self.stage {
            Some(stage) => stage.plan(self.loaded, options, length, sizes)?,
            None => plan(self.loaded, options, length, self.slots.clone(), sizes)?,
        };
        Ok(planned.plan)
    }
}
