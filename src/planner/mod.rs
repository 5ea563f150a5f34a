//! From a model to its plan, for programs that embed the planner: needs no ONNX Runtime.
//!
//! [`Planning`] is all of it in one expression. Underneath, [`Loaded`] is a file that was read, [`Analysis`] a model with its
//! facts, its module tree and its parameters; [`plan()`] makes a [`FreezePlan`] of it. Everything below (`facts`, `modules`,
//! `cost`, [`mod@crate::plan`]) can be used by itself.
//!
//! What this module does not do: differentiate the model or run it; an operator without a gradient can be planned.

mod attached;
mod companions;
mod exports;
mod loaded;
mod planning;
mod request;

pub use crate::analysis::Analysis;
pub use attached::{KEY as ATTACHED, attach, attached, identity, read_plan, retargeted};
pub use companions::companions;
#[cfg(feature = "runner")]
pub(crate) use loaded::Carried;
pub use loaded::Loaded;
pub use planning::{Opened, Planning, PolicyChoice};
pub use request::PlanRequest;

use crate::artifacts::ArtifactsError;
use crate::autodiff;
use crate::cost::{CostModel, UnitCost, Whole};
use crate::error::ErrorKind;
use crate::facts;
use crate::graph::{Dim, Fact, Graph, Model, ValueId};
use crate::modules::{Param, Role, Unit, units};
use crate::onnx::{OnnxError, OnnxFile};
use crate::plan::{
    self, Accompanied, Assumed, BatchNorm, Companions, FreezePlan, FrozenDropout, Inputs, ModelInfo, OnReturn,
    PlanError, PlanOptions, Planner, Policy,
};
use std::collections::{BTreeMap, HashMap};

/// What a plan is made for.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Epochs of the run.
    pub epochs: usize,
    /// Steps of an epoch; 0 where they are not known.
    pub steps_per_epoch: usize,
    /// Policy, unit, patterns.
    pub options: &'a PlanOptions,
    /// Tensors that the optimizer keeps for each parameter: SGD 0, with momentum 1, Adam 2.
    pub slots: u64,
    /// The number for parameters of which it keeps another, by name.
    pub own_slots: HashMap<String, u64>,
    /// A number for each named size of the model, such as the batch; see [`sizes`].
    pub sizes: HashMap<String, usize>,
}

/// A plan that cannot be made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum PlannerError {
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    #[error(transparent)]
    Artifacts(#[from] ArtifactsError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("there is no input \"{name}\" to give a shape; the model's inputs are {known}")]
    NoInput { name: String, known: String },
    #[error("the plan asks for other parameters and buffers than the analysis was made with")]
    OtherRoles,
    #[error("the batch size and every size of a shape must be 1 or more, found 0")]
    Zero,
    #[error("input \"{name}\" is {fact} in the model and cannot have the shape {shape:?}")]
    Shape { name: String, fact: String, shape: Vec<usize> },
    #[error("{name}: {reason}")]
    Option { name: &'static str, reason: String },
    #[error("{name} is {value}: {reason}")]
    Value { name: String, value: String, reason: String },
    #[error("no plan is attached to {}", .path.display())]
    NotAttached { path: std::path::PathBuf },
    #[error(
        "the plan is for {planned} (sha256 {expected}), not for {} (sha256 {found})", .path.display()
    )]
    OtherModel { path: std::path::PathBuf, planned: String, expected: String, found: String },
    #[error("the plan is for {planned} with other parameters than {}: {reason}", .path.display())]
    OtherParameters { path: std::path::PathBuf, planned: String, reason: String },
}

impl PlannerError {
    /// Returns the group this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        match self {
            PlannerError::Onnx(error) => error.kind(),
            PlannerError::Artifacts(error) => error.kind(),
            PlannerError::Plan(error) => error.kind(),
            PlannerError::NotAttached { .. }
            | PlannerError::OtherModel { .. }
            | PlannerError::OtherParameters { .. } => ErrorKind::BadInput,
            PlannerError::OtherRoles => ErrorKind::Internal,
            PlannerError::NoInput { .. }
            | PlannerError::Shape { .. }
            | PlannerError::Zero
            | PlannerError::Option { .. }
            | PlannerError::Value { .. } => ErrorKind::Usage,
        }
    }
}

/// Returns the groups of nodes that are one operator when gradients are built.
pub fn wholes(model: &Model, parameters: &[Param]) -> Vec<Whole> {
    let graph = &model.graph;
    let named = |role: Role| parameters.iter().filter(move |parameter| parameter.role == role);
    let trainable = named(Role::Trainable).filter_map(|parameter| graph.find(&parameter.name));
    let moving = autodiff::dependents(graph, trainable);
    let variable = named(Role::Trainable).chain(named(Role::Statistic)).map(|parameter| parameter.name.as_str());
    let groups = autodiff::patterns(graph, model.opset(), &variable.collect(), &moving);
    let whole = |group: autodiff::Group| Whole {
        root: group.root,
        axis: group.attributes.int("axis", -1).ok().and_then(|axis| usize::try_from(axis).ok()),
        parts: group.parts,
        op: group.op.name,
        inputs: group.inputs,
    };
    groups.into_iter().map(whole).collect()
}

/// What plans of a model are made from. A run that decides as it goes keeps it.
pub struct Basis {
    model: ModelInfo,
    units: Vec<Unit>,
    costs: Vec<UnitCost>,
    steps: CostModel,
    companions: Companions,
    policy: Box<dyn Policy>,
    options: PlanOptions,
    epochs: usize,
    steps_per_epoch: usize,
    assumed: Assumed,
    notes: Vec<String>,
}

impl Basis {
    /// Returns what plans of a model read from `file` are made from. No weight is read.
    ///
    /// # Errors
    /// An option is out of range, or the options have patterns for parameters or buffers that the analysis was not
    /// made with ([`Analysis::with_roles`]).
    pub fn of(file: &OnnxFile, analysis: &Analysis, request: &Request<'_>) -> Result<Basis, PlannerError> {
        Basis::with(file, analysis, request, plan::policies::find(request.options)?)
    }

    /// As [`Basis::of`], for a policy of the caller; `request.options` is looked at for all but the policy.
    ///
    /// # Errors
    /// As [`Basis::of`].
    pub fn with(
        file: &OnnxFile,
        analysis: &Analysis,
        request: &Request<'_>,
        policy: Box<dyn Policy>,
    ) -> Result<Basis, PlannerError> {
        let options = request.options;
        if (&options.parameter, &options.buffer) != (&analysis.asked.0, &analysis.asked.1) {
            return Err(PlannerError::OtherRoles);
        }
        let sized = facts::with_sizes(&analysis.model, &request.sizes);
        let units = units(&analysis.tree, options.unit());
        let wholes = wholes(&sized, &analysis.parameters);
        let mut steps =
            CostModel::with_wholes(&sized, &analysis.tree, request.slots, &wholes).with_own_slots(&request.own_slots);
        let costs = steps.units(&analysis.tree, &units);
        let companions = companions(analysis, true);
        if options.batch_norm == BatchNorm::Frozen {
            steps = steps.with_stays(companions.statistics_with_affine());
        }
        let mut notes = exports::notes(&analysis.model, &analysis.tree);
        notes.extend(analysis.notes.iter().cloned());
        Ok(Basis {
            model: model_info(file, analysis),
            units,
            costs,
            steps,
            companions,
            policy,
            options: options.clone(),
            epochs: request.epochs,
            steps_per_epoch: request.steps_per_epoch,
            assumed: assumed(&sized.graph, request.slots, request.steps_per_epoch),
            notes,
        })
    }

    /// Returns what is frozen as one, from the input side.
    pub fn units(&self) -> &[Unit] {
        &self.units
    }

    /// Returns what each unit costs.
    pub fn costs(&self) -> &[UnitCost] {
        &self.costs
    }

    /// Returns what a step costs with any set of parameters frozen.
    pub fn step_costs(&self) -> &CostModel {
        &self.steps
    }

    /// Returns the planner.
    ///
    /// # Errors
    /// A pattern matches nothing, or the policy does not fit the units.
    pub fn planner(&self) -> Result<Planner<'_>, PlannerError> {
        let inputs = Inputs {
            model: &self.model,
            units: &self.units,
            costs: &self.costs,
            step_costs: &self.steps,
            epochs: self.epochs,
            steps_per_epoch: self.steps_per_epoch,
            accompanied: Some(Accompanied {
                companions: &self.companions,
                batch_norm: self.options.batch_norm,
                dropout: self.options.dropout,
            }),
        };
        Ok(Planner::new(inputs, self.policy.as_ref(), &self.options.freeze, &self.options.keep)?)
    }

    /// Returns the plan as it can be told ahead.
    ///
    /// # Errors
    /// A pattern matches nothing, or the policy does not fit the units.
    pub fn plan(&self) -> Result<FreezePlan, PlannerError> {
        let mut plan = self.planner()?.plan()?;
        record(&mut plan, &self.options);
        plan.assumed = self.assumed.clone();
        plan.summary.notes.extend(self.notes.iter().cloned());
        Ok(plan)
    }
}

/// Plans a run of a model read from `file`. No weight is read; [`identify`] adds the digest of the
/// file that a plan file holds.
///
/// # Errors
/// An option is out of range, a pattern matches nothing, or the options have patterns for parameters or
/// buffers that the analysis was not made with ([`Analysis::with_roles`]).
pub fn plan(file: &OnnxFile, analysis: &Analysis, request: &Request<'_>) -> Result<FreezePlan, PlannerError> {
    Basis::of(file, analysis, request)?.plan()
}

/// Writes down which file a plan is for: the digest of all its bytes but those of an attached plan, which this reads.
pub fn identify(plan: &mut FreezePlan, file: &OnnxFile) {
    plan.model.sha256 = attached::identity(file);
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
    settings.insert("unit".into(), serde_json::json!(options.unit()));
    settings.insert("batch_norm".into(), serde_json::json!(options.batch_norm));
    if options.on_return != OnReturn::default() {
        settings.insert("on_return".into(), serde_json::json!(options.on_return));
        settings.insert("warm_up_steps".into(), serde_json::json!(options.warm_up_steps));
    }
    if let Some(rollback) = &options.rollback {
        settings.insert("rollback".into(), serde_json::json!(rollback));
    }
    if options.dropout != FrozenDropout::default() {
        settings.insert("dropout".into(), serde_json::json!(options.dropout));
    }
    let patterns = [
        ("freeze", &options.freeze),
        ("keep", &options.keep),
        ("parameter", &options.parameter),
        ("buffer", &options.buffer),
    ];
    for (name, patterns) in patterns {
        if !patterns.is_empty() {
            settings.insert(name.into(), serde_json::json!(patterns));
        }
    }
}

/// Returns what the costs are counted for.
fn assumed(graph: &Graph, slots: u64, steps_per_epoch: usize) -> Assumed {
    let shape = |id: &ValueId| Some((graph.value_name(*id).to_string(), graph.fact(*id).sizes()?));
    let inputs: BTreeMap<String, Vec<usize>> = graph.inputs().iter().filter_map(shape).collect();
    let mut first = inputs.values().filter_map(|shape| shape.first().copied());
    let batch = first.next().filter(|batch| first.all(|other| other == *batch)).unwrap_or(0);
    Assumed { batch, inputs, slots, steps_per_epoch }
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
