//! From a model to its plan, for programs that embed the planner: needs no ONNX Runtime.
//!
//! [`Analysis`] is a model with its facts, its module tree and its parameters; [`plan()`] makes a
//! [`FreezePlan`] of it. Everything below (`facts`, `modules`, `cost`, [`crate::plan`]) can be used by itself.
//!
//! What this module does not do: differentiate the model or run it; an operator without a
//! gradient can be planned.

use crate::cost::CostModel;
use crate::error::ErrorKind;
use crate::facts;
use crate::graph::{Dim, Fact, Graph, Model};
use crate::modules::{ModuleTree, Param, Role, parameters, recover, units, untie};
use crate::onnx::OnnxFile;
use crate::plan::{self, FreezePlan, Inputs, ModelInfo, PlanError, PlanOptions, sha256_hex};
use std::collections::HashMap;

/// A model with what the planner knows of it.
#[derive(Clone, Debug)]
pub struct Analysis {
    /// The model at its own opset, with every fact that could be found and merged parameters
    /// separated.
    pub model: Model,
    /// Who owns what in it.
    pub tree: ModuleTree,
    /// Trainable parameters and running statistics, in file order.
    pub parameters: Vec<Param>,
    /// What could not be found out.
    pub notes: Vec<String>,
}

impl Analysis {
    /// Analyses a model.
    pub fn of(model: &Model) -> Analysis {
        Analysis::with(model, &HashMap::new(), None)
    }

    /// Analyses a model that `probe` may run where shapes stay unknown otherwise, with numbers for
    /// its named sizes.
    pub fn with(model: &Model, sizes: &HashMap<String, usize>, probe: Option<&mut dyn facts::Probe>) -> Analysis {
        Analysis::as_written_with(&untie(model).model, sizes, probe)
    }

    /// Analyses a model whose merged parameters are meant to be one.
    pub fn as_written(model: &Model) -> Analysis {
        Analysis::as_written_with(model, &HashMap::new(), None)
    }

    /// As [`Analysis::with`], for a model whose merged parameters are meant to be one.
    pub fn as_written_with(
        model: &Model,
        sizes: &HashMap<String, usize>,
        probe: Option<&mut dyn facts::Probe>,
    ) -> Analysis {
        let completed = facts::complete_with(model, sizes, probe);
        let facts::Completed { model, notes, .. } = completed;
        Analysis { tree: recover(&model), parameters: parameters(&model), model, notes }
    }

    /// Returns the names of the trainable parameters, in file order.
    pub fn trainable(&self) -> Vec<&str> {
        let trainable = self.parameters.iter().filter(|parameter| parameter.role == Role::Trainable);
        trainable.map(|parameter| parameter.name.as_str()).collect()
    }
}

/// What a plan is made for.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Epochs of the run.
    pub epochs: usize,
    /// Policy, unit, patterns.
    pub options: &'a PlanOptions,
    /// Tensors that the optimizer keeps for each parameter: SGD 0, with momentum 1, Adam 2.
    pub slots: u64,
    /// A number for each named size of the model, such as the batch; see [`sizes`].
    pub sizes: HashMap<String, usize>,
}

/// A plan that cannot be made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum PlannerError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("there is no input \"{name}\" to give a shape; the model's inputs are {known}")]
    NoInput { name: String, known: String },
    #[error("the batch size and every size of a shape must be 1 or more, found 0")]
    Zero,
    #[error("input \"{name}\" is {fact} in the model and cannot have the shape {shape:?}")]
    Shape { name: String, fact: String, shape: Vec<usize> },
}

impl PlannerError {
    /// Returns the group this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        match self {
            PlannerError::Plan(error) => error.kind(),
            PlannerError::NoInput { .. } | PlannerError::Shape { .. } | PlannerError::Zero => ErrorKind::Usage,
        }
    }
}

/// Plans a run of a model read from `file`. No weight is read; [`identify`] adds the digest of the
/// file that a plan file holds.
///
/// # Errors
/// An option is out of range, or a pattern matches nothing.
pub fn plan(file: &OnnxFile, analysis: &Analysis, request: &Request<'_>) -> Result<FreezePlan, PlannerError> {
    let sized = facts::with_sizes(&analysis.model, &request.sizes);
    let units = units(&analysis.tree, request.options.unit);
    let steps = CostModel::new(&sized, &analysis.tree, request.slots);
    let costs = steps.units(&analysis.tree, &units);
    let model = model_info(file, analysis);
    let inputs = Inputs { model: &model, units: &units, costs: &costs, step_costs: &steps, epochs: request.epochs };
    let mut plan = plan::build(&inputs, request.options)?;
    record(&mut plan, request.options);
    plan.summary.notes.extend(analysis.notes.iter().cloned());
    let uncounted = steps.notes();
    plan.summary.notes.extend(uncounted.iter().take(2).cloned());
    if uncounted.len() > 2 {
        plan.summary.notes.push(format!("{} more nodes count as 0 for the same reason", uncounted.len() - 2));
    }
    Ok(plan)
}

/// Writes down which file a plan is for: the digest of all its bytes, which this reads.
pub fn identify(plan: &mut FreezePlan, file: &OnnxFile) {
    plan.model.sha256 = sha256_hex(&file.bytes);
}

/// Returns a number for every named size of the model's inputs: those of `shapes` for the inputs
/// that it names, otherwise `batch` for the first dimension.
///
/// # Errors
/// A shape is for no input of the model, or does not fit it.
pub fn sizes(
    graph: &Graph,
    batch: usize,
    shapes: &[(String, Vec<usize>)],
) -> Result<HashMap<String, usize>, PlannerError> {
    if batch == 0 || shapes.iter().any(|(_, shape)| shape.contains(&0)) {
        return Err(PlannerError::Zero);
    }
    let mut sizes = HashMap::new();
    for id in graph.inputs() {
        if let Some(Dim::Symbol(symbol)) = graph.fact(*id).dim(0) {
            sizes.insert(symbol.clone(), batch);
        }
    }
    for (name, shape) in shapes {
        let input = graph.find(name).filter(|id| graph.inputs().contains(id));
        let known = || graph.inputs().iter().map(|id| graph.value_name(*id)).collect::<Vec<_>>().join(", ");
        let input = input.ok_or_else(|| PlannerError::NoInput { name: name.clone(), known: known() })?;
        let fact = graph.fact(input);
        if !fits(fact, shape) {
            return Err(PlannerError::Shape { name: name.clone(), fact: fact.to_string(), shape: shape.clone() });
        }
        for (dim, size) in fact.shape.iter().flatten().zip(shape) {
            if let Dim::Symbol(symbol) = dim {
                sizes.insert(symbol.clone(), *size);
            }
        }
    }
    Ok(sizes)
}

fn fits(fact: &Fact, shape: &[usize]) -> bool {
    fact.shape.as_ref().is_none_or(|dims| {
        dims.len() == shape.len()
            && dims.iter().zip(shape).all(|(dim, size)| dim.known().is_none_or(|known| known == *size))
    })
}

/// Writes down the options that are not the policy's own, so that a plan file says them all.
fn record(plan: &mut FreezePlan, options: &PlanOptions) {
    let settings = &mut plan.policy.settings;
    settings.insert("unit".into(), serde_json::json!(options.unit));
    settings.insert("batch_norm".into(), serde_json::json!(options.batch_norm));
    for (name, patterns) in [("freeze", &options.freeze), ("keep", &options.keep)] {
        if !patterns.is_empty() {
            settings.insert(name.into(), serde_json::json!(patterns));
        }
    }
}

fn model_info(file: &OnnxFile, analysis: &Analysis) -> ModelInfo {
    let graph = &analysis.model.graph;
    let tensors = || {
        let ids = analysis.trainable().into_iter().filter_map(|name| graph.find(name));
        ids.filter_map(|id| graph.value(id).initializer.as_ref())
    };
    ModelInfo {
        file: file.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        sha256: String::new(),
        opset: file.model.opset(),
        exporter: file.model.producer.clone(),
        parameters: tensors().map(|tensor| tensor.len() as u64).sum(),
        bytes: tensors().map(|tensor| tensor.bytes().len() as u64).sum(),
    }
}
