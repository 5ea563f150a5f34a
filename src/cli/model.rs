//! A model as the commands that plan ahead need it.

use super::failure::Failure;
use super::probe::ChildProbe;
use crate::plan::{FreezePlan, PlanOptions, Run};
pub use crate::planner::Loaded;
use crate::planner::Planning;
use crate::trainer::model::Roles;
pub use crate::trainer::model::{Staged, Wanted, plan, prepared, slots, staged};
use crate::trainer::sizes::Sizes;
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

/// Plans a run ahead: with the training step that the model carries, else for SGD with momentum.
pub fn ahead(loaded: &Loaded, options: &PlanOptions, length: Run, sizes: &Sizes) -> Result<FreezePlan, Failure> {
    let planning = Planning::of(&loaded.file.path)
        .epochs(length.epochs)
        .steps_per_epoch(length.steps_per_epoch)
        .batch(sizes.batch())
        .options(options.clone());
    let planning = sizes.shapes.iter().fold(planning, |planning, (input, shape)| planning.shape(input, shape));
    Ok(planning.run_on(loaded)?)
}
