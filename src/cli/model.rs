//! A model as the commands need it.

use super::failure::Failure;
use super::options::ShapeArgs;
use crate::error::ErrorKind;
use crate::onnx::{OnnxFile, read};
use crate::optim::OptimizerSpec;
use crate::plan::{FreezePlan, PlanOptions};
use crate::planner::{self, Analysis, Request, sizes};
use std::path::Path;

/// A loaded and analysed model.
pub struct Loaded {
    /// The file.
    pub file: OnnxFile,
    /// What the planner knows of it.
    pub analysis: Analysis,
}

/// Loads a model whose parameters and buffers are told by pattern where the options have patterns.
pub fn load(path: &Path, parameter: &[String], buffer: &[String]) -> Result<Loaded, Failure> {
    let file = read(path)?;
    let analysis = Analysis::with_roles(&file.model, parameter, buffer)?;
    Ok(Loaded { file, analysis })
}

/// Plans a run of the model.
pub fn plan(
    loaded: &Loaded,
    options: &PlanOptions,
    epochs: usize,
    optimizer: &OptimizerSpec,
    shape: &ShapeArgs,
) -> Result<FreezePlan, Failure> {
    let shapes = shape.shape.iter().map(|text| shape_of(text)).collect::<Result<Vec<_>, _>>()?;
    let sizes = sizes(&loaded.analysis.model.graph, shape.batch, &shapes)?;
    let slots = optimizer.slots().iter().filter(|slot| !slot.scalar).count() as u64;
    let request = Request { epochs, options, slots, sizes };
    Ok(planner::plan(&loaded.file, &loaded.analysis, &request)?)
}

fn shape_of(text: &str) -> Result<(String, Vec<usize>), Failure> {
    let wrong = || Failure::new(ErrorKind::Usage, format!("--shape \"{text}\" is not NAME=D,D,.."));
    let (name, dims) = text.split_once('=').ok_or_else(wrong)?;
    let dims = dims.split(',').map(|dim| dim.trim().parse().map_err(|_| wrong())).collect::<Result<_, _>>()?;
    Ok((name.to_string(), dims))
}
