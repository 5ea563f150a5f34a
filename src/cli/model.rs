//! A model as the commands need it.

use super::failure::Failure;
use super::options::ShapeArgs;
use crate::error::ErrorKind;
use crate::onnx::{OnnxFile, read};
use crate::optim::OptimizerSpec;
use crate::plan::{FreezePlan, PlanOptions};
use crate::planner::{self, Analysis, Request, sizes};
use crate::training::{Prepared, stage};
use std::path::Path;

/// A loaded and analysed model.
pub struct Loaded {
    /// The file.
    pub file: OnnxFile,
    /// What the planner knows of it.
    pub analysis: Analysis,
}

/// Loads a model.
pub fn load(path: &Path) -> Result<Loaded, Failure> {
    let file = read(path)?;
    // Bindings of training information name initializers as the file has them.
    let analysis = if file.training.is_empty() { Analysis::of(&file.model) } else { Analysis::as_written(&file.model) };
    Ok(Loaded { file, analysis })
}

/// Plans a run of the model.
pub fn plan(
    loaded: &Loaded,
    options: &PlanOptions,
    epochs: usize,
    slots: u64,
    shape: &ShapeArgs,
) -> Result<FreezePlan, Failure> {
    let shapes = shape.shape.iter().map(|text| shape_of(text)).collect::<Result<Vec<_>, _>>()?;
    let sizes = sizes(&loaded.analysis.model.graph, shape.batch, &shapes)?;
    let request = Request { epochs, options, slots, sizes };
    Ok(planner::plan(&loaded.file, &loaded.analysis, &request)?)
}

/// Returns the tensors that an optimizer keeps for each parameter.
pub fn slots(optimizer: &OptimizerSpec) -> u64 {
    optimizer.slots().iter().filter(|slot| !slot.scalar).count() as u64
}

/// A training step that the model carries.
pub struct Staged {
    /// The graph of the step.
    pub prepared: Prepared,
    /// The step.
    pub stage: stage::Stage,
}

/// Prepares training step `number`, from 1, of the model.
pub fn staged(loaded: &Loaded, number: usize) -> Result<Staged, Failure> {
    let (prepared, stage) = stage::prepare(&loaded.file, &loaded.analysis, number)?;
    Ok(Staged { prepared, stage })
}

impl Staged {
    /// Plans a run of the step: what it does not update is frozen throughout.
    pub fn plan(
        &self,
        loaded: &Loaded,
        options: &PlanOptions,
        epochs: usize,
        shape: &ShapeArgs,
    ) -> Result<FreezePlan, Failure> {
        let trainable = self.prepared.trainable();
        let stays = loaded.analysis.trainable().into_iter().filter(|name| !trainable.contains(name));
        let mut options = options.clone();
        options.freeze.extend(stays.map(globset::escape));
        let mut plan = plan(loaded, &options, epochs, self.stage.slots_per_parameter(), shape)?;
        plan.summary.notes.push(self.stage.describe());
        Ok(plan)
    }
}

fn shape_of(text: &str) -> Result<(String, Vec<usize>), Failure> {
    let wrong = || Failure::new(ErrorKind::Usage, format!("--shape \"{text}\" is not NAME=D,D,.."));
    let (name, dims) = text.split_once('=').ok_or_else(wrong)?;
    let dims = dims.split(',').map(|dim| dim.trim().parse().map_err(|_| wrong())).collect::<Result<_, _>>()?;
    Ok((name.to_string(), dims))
}
