//! The graphs of one phase.

use super::contract::{Contract, FORMAT, Role, describe};
use super::forward::{Forward, Mode, forward};
use super::scaled::Scale;
use super::terms::{self, add_loss, targets};
use super::{Prepared, Rate, Rates, TrainingError, check_in_place, groups, names};
use crate::autodiff::{
    Form, decompose, dependents, gradients_from, gradients_of, lower_to, reads, recognise_but, simplify,
};
use crate::graph::{DType, Fact, Graph, INTERNAL_DOMAIN, Model, Node, Origin, Tensor, ValueId, check, prune};
use crate::losses::LossSpec;
use crate::optim::{OptimizerSpec, Parameter};
use std::collections::{BTreeMap, HashSet};

/// What a phase trains, and how.
#[derive(Clone, Debug)]
pub struct PhaseOptions<'a> {
    /// Names of what is frozen: parameters; running statistics, which then stay and are used; outputs
    /// of Dropout nodes, which then pass their input on.
    pub frozen: HashSet<&'a str>,
    /// Frozen parameters and statistics are inputs of the train graph and not its constants: the graphs then hold for
    /// any values of them.
    pub frozen_inputs: bool,
    /// What the learning rate of a parameter is multiplied with, where that is not 1.
    pub rates: Rates<'a>,
    /// The loss.
    pub loss: &'a LossSpec,
    /// The optimizer.
    pub optimizer: &'a OptimizerSpec,
    /// The model output that a loss reads which names none; the first where `None`.
    pub output: Option<&'a str>,
    /// Seed of everything random in the model; all phases of a run take the same.
    pub seed: u64,
}

impl<'a> PhaseOptions<'a> {
    /// Returns a phase in which everything trains at the optimizer's rate, on the first output, with seed 0.
    pub fn of(loss: &'a LossSpec, optimizer: &'a OptimizerSpec) -> PhaseOptions<'a> {
        let (frozen, rates) = (HashSet::new(), Rates::new());
        PhaseOptions { frozen, frozen_inputs: false, rates, loss, optimizer, output: None, seed: 0 }
    }
}

/// The train and optimizer graphs of a phase with their contract.
#[derive(Clone, Debug)]
pub struct TrainStep {
    /// Loss, gradients and next running statistics of one batch.
    pub train: Model,
    /// The update of everything that trains; `None` when nothing does.
    pub optimizer: Option<Model>,
    /// Loss and outputs in inference form.
    pub eval: Model,
    /// Inputs and outputs of all three.
    pub contract: Contract,
    /// Names of the parameters that have a gradient, in file order.
    pub trained: Vec<String>,
    /// Names of the state whose next value the train graph makes: running statistics.
    pub moving: Vec<String>,
    /// What the update remembers between steps beside `trained` and `moving`.
    pub slots: Vec<Slot>,
    /// Outputs of the train graph that the optimizer graph reads: gradients, and for a training
    /// step of the file also others.
    pub passed: Vec<(String, Fact)>,
    /// Names of the state whose next value the optimizer graph makes.
    pub updated: Vec<String>,
    /// Those of `moving` and `updated` that must not be written where they are read.
    pub copied: Vec<String>,
    /// True where the train graph adds gradients up over batches.
    pub accumulates: bool,
}

impl TrainStep {
    /// Returns true when the train graph reads the number of the step, because something is random.
    pub fn is_random(&self) -> bool {
        self.contract.train.inputs.iter().any(|port| port.role == Role::Step)
    }

    /// Returns true when the train graph reads a scale of the loss.
    pub fn is_scaled(&self) -> bool {
        self.contract.train.inputs.iter().any(|port| port.role == Role::LossScale)
    }

    /// Returns the length of the optimizer graph's input `lr_scale`; `None` where it has no such
    /// input, because no rate of what trains varies on its own.
    pub fn lr_scales(&self) -> Option<usize> {
        let graph = &self.optimizer.as_ref()?.graph;
        self.contract.optimizer.inputs.iter().find(|port| port.role == Role::LrScale)?;
        graph.fact(graph.find(names::LR_SCALE)?).sizes()?.first().copied()
    }
}

/// State of the update.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// Name in the optimizer graph.
    pub name: String,
    /// Value before the first step.
    pub initial: Tensor,
}

/// Builds the graphs of a phase.
///
/// # Errors
/// A name is taken, the loss does not fit the output, or a gradient cannot be built.
pub fn build(prepared: &Prepared, options: &PhaseOptions<'_>) -> Result<TrainStep, TrainingError> {
    let parameters: HashSet<&str> = prepared.trainable().into_iter().collect();
    let statistics: HashSet<&str> = prepared.statistics().into_iter().collect();
    let updated = groups::parameters(prepared, options.optimizer, &options.rates)?;
    refuse_collisions(prepared, options, &updated)?;
    let names: Vec<&str> = prepared.trainable().into_iter().filter(|name| !options.frozen.contains(name)).collect();
    let graph = &differentiable(prepared, &prepared.model.graph, &names)?;
    let mode = Mode::Train {
        frozen: &options.frozen,
        frozen_inputs: options.frozen_inputs,
        seed: Some(options.seed),
        as_written: false,
    };
    let mut f = forward(graph, "train", &mode, &statistics, &parameters)?;
    let fused = match prepared.form {
        Form::Native if has_own_rule(prepared, options)? => None,
        Form::Native => terms::add_fused_loss(&mut f, graph, options.loss, options.output)?,
        Form::Portable => None,
    };
    let loss = match &fused {
        Some(fused) => fused.loss,
        None => add_loss(&mut f, graph, options.loss, options.output)?,
    };
    let wrt: Vec<ValueId> = names.iter().filter_map(|name| f.b.graph().find(name)).collect();
    let opset = prepared.model.opset();
    let mut scale = Scale::of(prepared, &mut f.b);
    let factor = scale.as_ref().map(|scale| scale.like(&mut f.b, loss));
    let grads = match &fused {
        Some(fused) => {
            f.b.enter(Origin::Backward(names::LOSS.into()), "loss/grad");
            let dloss = factor.unwrap_or_else(|| f.b.like(loss, 1.0));
            let seed = (fused.prediction, fused.grad(&mut f.b, dloss));
            gradients_from(&prepared.manner(), &mut f.b, opset, seed, &wrt)
        }
        None => gradients_of(&prepared.manner(), &mut f.b, opset, (loss, factor), &wrt),
    };
    let grads = grads.map_err(|source| prepared.at(source))?;
    finish_outputs(&mut f, graph, loss);
    let (mut trained, mut unused) = (Vec::new(), Vec::new());
    for (name, grad) in names.iter().zip(grads) {
        match grad {
            Some(grad) => {
                let grad = scale.as_mut().map_or(grad, |scale| scale.divided(&mut f.b, name, grad));
                f.b.output(grad, &names::grad(name));
                trained.push((*name).to_string());
            }
            None => unused.push((*name).to_string()),
        }
    }
    let mut moving = Vec::new();
    for (statistic, value) in std::mem::take(&mut f.moved) {
        f.b.output(value, &names::next(&statistic));
        moving.push(statistic);
    }
    let train = finish(f.b.finish(), "train", prepared.form)?;
    check_in_place(&train, &pairs(&moving))?;
    let updated: Vec<Parameter> = updated.into_iter().filter(|own| trained.contains(&own.name)).collect();
    let optimizer = optimizer(&updated, options, prepared.form)?;
    let eval = eval(prepared, options.loss, options.output)?;
    let given = terms::reserved(graph, options.loss, options.output);
    let given: HashSet<&str> = given.iter().map(|(name, _)| name.as_str()).collect();
    let describe = |part: &Graph, optimizer| describe(part, graph, &parameters, &statistics, &given, optimizer);
    let contract = Contract {
        format: FORMAT.into(),
        frozen: prepared.trainable().iter().filter(|n| options.frozen.contains(*n)).map(ToString::to_string).collect(),
        unused,
        lr_scale: updated.iter().filter_map(|own| Some((own.name.clone(), own.element?))).collect(),
        train: describe(&train, false),
        optimizer: optimizer.as_ref().map_or_else(Default::default, |graph| describe(graph, true)),
        eval: describe(&eval.graph, false),
    };
    let slots = updated.iter().flat_map(|own| slots(options.optimizer, own)).collect::<Vec<Slot>>();
    let passed = updated.iter().map(|own| (names::grad(&own.name), own.fact.clone())).collect();
    let updated = trained.iter().cloned().chain(slots.iter().map(|slot| slot.name.clone())).collect();
    let model = |graph: Graph| as_model(prepared, graph);
    Ok(TrainStep {
        train: model(train),
        optimizer: optimizer.map(model),
        eval,
        contract,
        trained,
        moving,
        slots,
        passed,
        updated,
        copied: Vec::new(),
        accumulates: false,
    })
}

/// Returns true where the loss is written in an operator that has a rule of the caller.
fn has_own_rule(prepared: &Prepared, options: &PhaseOptions<'_>) -> Result<bool, TrainingError> {
    if prepared.rules.is_empty() {
        return Ok(false);
    }
    let (graph, opset) = (eval(prepared, options.loss, options.output)?.graph, prepared.model.opset());
    Ok(graph.nodes().iter().any(|node| node.origin == Origin::Loss && prepared.rules.holds(&node.op, opset)))
}

/// Returns the graph with what depends on one of the named initializers in a form that has
/// gradients, and short ones: operators that the model wrote as primitives are one node again. The
/// rest of the graph stays as it is.
pub(super) fn differentiable(prepared: &Prepared, graph: &Graph, names: &[&str]) -> Result<Graph, TrainingError> {
    let moving = dependents(graph, names.iter().filter_map(|name| graph.find(name)));
    let (rules, opset) = (&prepared.rules, prepared.model.opset());
    let own = |node: &Node| rules.holds(&node.op, opset);
    let wanted = |node: &Node| reads(graph, node, &moving) && !own(node);
    let graph = decompose(graph, &prepared.model.opsets, wanted).map_err(|source| prepared.at(source))?;
    let moving = dependents(&graph, names.iter().filter_map(|name| graph.find(name)));
    let variable: HashSet<&str> = prepared.trainable().into_iter().chain(prepared.statistics()).collect();
    Ok(recognise_but(&graph, opset, &variable, &moving, own))
}

fn slots(optimizer: &OptimizerSpec, own: &Parameter) -> Vec<Slot> {
    let slot = |slot: crate::optim::SlotSpec| {
        let shape = if slot.scalar { Vec::new() } else { own.fact.sizes().unwrap_or_default() };
        let dtype = if slot.scalar { DType::F32 } else { own.fact.dtype.unwrap_or(DType::F32) };
        let initial = Tensor::float_full(dtype, &shape, slot.initial);
        Slot { name: names::slot(&own.name, slot.name), initial }
    };
    optimizer.slots_of(own).into_iter().map(slot).collect()
}

/// Builds the eval graph: the model in inference form with its loss, parameters and statistics
/// as inputs.
///
/// # Errors
/// The loss does not fit the output.
pub fn eval(prepared: &Prepared, loss: &LossSpec, output: Option<&str>) -> Result<Model, TrainingError> {
    let graph = &prepared.model.graph;
    free(graph, terms::reserved(graph, loss, output))?;
    let parameters: HashSet<&str> = prepared.trainable().into_iter().collect();
    let statistics: HashSet<&str> = prepared.statistics().into_iter().collect();
    let mut f = forward(graph, "eval", &Mode::Eval, &statistics, &parameters)?;
    let loss = add_loss(&mut f, graph, loss, output)?;
    finish_outputs(&mut f, graph, loss);
    Ok(as_model(prepared, finish(f.b.finish(), "eval", prepared.form)?))
}

/// Returns the fact that the target without a name must have; nothing is known of one that is not there.
///
/// # Errors
/// The loss does not fit the output.
pub fn target_fact(prepared: &Prepared, loss: &LossSpec, output: Option<&str>) -> Result<Fact, TrainingError> {
    let found = targets(prepared, loss, output)?.into_iter().find(|target| target.name.is_none());
    Ok(found.map(|target| target.fact).unwrap_or_default())
}

/// Makes the loss and the model's outputs outputs; the loss may be one of them.
fn finish_outputs(f: &mut Forward, graph: &Graph, loss: ValueId) {
    let loss = f.b.output(loss, names::LOSS);
    for output in graph.outputs().iter().filter(|output| f.map[output] != loss) {
        let value = f.map[output];
        f.b.output(value, graph.value_name(*output));
    }
}

pub(super) fn finish(graph: Graph, name: &'static str, form: Form) -> Result<Graph, TrainingError> {
    let graph = lower_to(form, &simplify(&prune(&graph)));
    check(&graph).map_err(|source| TrainingError::Check { graph: name, source })?;
    Ok(graph)
}

fn optimizer(updated: &[Parameter], options: &PhaseOptions<'_>, form: Form) -> Result<Option<Graph>, TrainingError> {
    if updated.is_empty() {
        return Ok(None);
    }
    let spec = options.optimizer;
    let graph = spec.graph_of(updated, groups::scales(&options.rates), form == Form::Native)?;
    check(&graph).map_err(|source| TrainingError::Check { graph: "optimizer", source })?;
    let mut state = Vec::new();
    for own in updated {
        state.push(own.name.clone());
        state.extend(spec.slots_of(own).iter().map(|slot| names::slot(&own.name, slot.name)));
    }
    check_in_place(&graph, &pairs(&state))?;
    Ok(Some(graph))
}

fn pairs(state: &[String]) -> Vec<(String, String)> {
    state.iter().map(|name| (name.clone(), names::next(name))).collect()
}

pub(super) fn as_model(prepared: &Prepared, graph: Graph) -> Model {
    let source = &prepared.model;
    let mut opsets = BTreeMap::from([(String::new(), source.opset())]);
    for node in graph.nodes_within().into_iter().filter(|node| !node.op.domain.is_empty()) {
        // A rule of the caller may append operators of a domain that the model does not have.
        opsets.insert(node.op.domain.clone(), source.opsets.get(&node.op.domain).copied().unwrap_or(1));
    }
    if prepared.form == Form::Native {
        opsets.insert(INTERNAL_DOMAIN.into(), 1);
    }
    Model {
        graph,
        opsets,
        ir_version: source.ir_version.clamp(8, 10),
        producer: format!("freeze-plan {}", env!("CARGO_PKG_VERSION")),
        ..Model::default()
    }
}

fn refuse_collisions(
    prepared: &Prepared,
    options: &PhaseOptions<'_>,
    updated: &[Parameter],
) -> Result<(), TrainingError> {
    let graph = &prepared.model.graph;
    let mut reserved = terms::reserved(graph, options.loss, options.output);
    if prepared.scaled {
        reserved.push((names::SCALE.into(), "the scale of the loss".into()));
    }
    if options.rates.values().any(|rate| matches!(rate, Rate::Varies(_))) {
        reserved.push((names::LR_SCALE.into(), "the factors of the learning rate".into()));
    }
    for own in updated {
        let name = own.name.as_str();
        reserved.push((names::grad(name), format!("the gradient of \"{name}\"")));
        reserved.push((names::next(name), format!("the next value of \"{name}\"")));
        for slot in options.optimizer.slots_of(own) {
            reserved.push((names::slot(name, slot.name), format!("a slot of \"{name}\"")));
        }
    }
    for name in prepared.statistics() {
        reserved.push((names::next(name), format!("the next value of \"{name}\"")));
    }
    free(graph, reserved)
}

/// Refuses names that the model has.
fn free(graph: &Graph, reserved: Vec<(String, String)>) -> Result<(), TrainingError> {
    match reserved.into_iter().find(|(name, _)| graph.find(name).is_some()) {
        Some((name, meaning)) => Err(TrainingError::Collision { name, meaning }),
        None => Ok(()),
    }
}
