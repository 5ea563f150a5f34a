//! The graphs of a phase of a [`Stage`].

use super::prepare::ancestors;
use super::update::{Demand, Ports, update_graph};
use super::{Binding, Holder, Stage, StageError};
use crate::autodiff::gradients_of;
use crate::graph::{DType, Fact, Graph, Model, Origin, ValueId, prune};
use crate::training::contract::{Contract, FORMAT, Role, ports};
use crate::training::forward::{Forward, Mode, fixed_statistics, forward};
use crate::training::step::{as_model, differentiable, finish};
use crate::training::{Prepared, Slot, TrainStep, TrainingError, check_in_place, names};
use std::collections::{BTreeMap, HashMap, HashSet};

/// What a phase trains.
#[derive(Clone, Debug)]
pub struct StageOptions<'a> {
    /// Names of what is frozen: parameters; running statistics of a BatchNormalization in training
    /// form, which then stay and are used; outputs of Dropout nodes, which then pass their input on.
    pub frozen: HashSet<&'a str>,
    /// Frozen parameters and statistics are inputs of the train graph and not its constants.
    pub frozen_inputs: bool,
    /// Seed of random Dropout; another phase takes another one.
    pub seed: u64,
    /// Reads the learning rate from the input `lr` instead of the step's own.
    pub schedule: bool,
}

/// Builds the graphs of a phase.
///
/// # Errors
/// A gradient cannot be built, or the step cannot be cut at its gradients.
pub fn build(prepared: &Prepared, stage: &Stage, options: &StageOptions<'_>) -> Result<TrainStep, TrainingError> {
    if options.schedule && stage.rate.is_none() {
        return Err(StageError::Rate.into());
    }
    if prepared.scaled {
        return Err(TrainingError::Scaled);
    }
    let graph = &prepared.model.graph;
    if options.schedule && stage.bindings.iter().any(|binding| graph.value_name(binding.key) == names::LR) {
        return Err(TrainingError::Collision { name: names::LR.into(), meaning: "the learning rate".into() });
    }
    let parameters: HashSet<&str> = prepared.trainable().into_iter().collect();
    let statistics: HashSet<&str> = prepared.statistics().into_iter().collect();
    let mode = Mode::Train {
        frozen: &options.frozen,
        frozen_inputs: options.frozen_inputs,
        seed: Some(options.seed),
        as_written: true,
    };
    let still = fixed_statistics(graph, &mode, &statistics);
    let active = active(graph, stage, options, &still);
    let trained: Vec<String> = names_of(graph, &active, Holder::Parameter);
    let (moving, updated) = split(graph, stage, options, &active);
    let demand = Demand::of(graph, stage, &options.frozen, &updated, options.schedule);
    let mut outputs = vec![stage.loss()];
    outputs.extend(demand.gradients.iter().map(|(gradient, _)| stage.gradients[*gradient].y));
    outputs.extend(demand.passed.iter().copied().chain(moving.iter().map(|binding| binding.value)));
    let before = ancestors(graph, stage.loss());
    let shown: Vec<ValueId> =
        model_outputs(graph, stage).filter(|id| before.contains(id) && *id != stage.loss()).collect();
    outputs.extend(&shown);
    let xs = demand.gradients.iter().filter_map(|(gradient, x)| stage.gradients.get(*gradient)?.xs.get(*x));
    let xs: Vec<&str> = xs.map(|x| graph.value_name(*x)).collect();
    let step = differentiable(prepared, &part(graph, stage, &outputs), &xs)?;
    let mut f = forward(&step, "train", &mode, &statistics, &parameters)?;
    let at = |f: &Forward, id: ValueId| f.map[&step.find(graph.value_name(id)).expect("invariant: the part has it")];
    let loss = at(&f, stage.loss());
    let loss = output_loss(&mut f, loss);
    for id in shown {
        let value = at(&f, id);
        f.b.output(value, graph.value_name(id));
    }
    let found = differentiate(&mut f, prepared, stage, &demand, &at, loss)?;
    let mut given = Ports::default();
    for (key, value) in demand.gradients.iter().zip(found) {
        let gradient = &stage.gradients[key.0];
        let output = graph.node(gradient.node).outputs[key.1].expect("invariant: somebody reads it");
        let x = graph.value_name(gradient.xs[key.1]);
        let plain = names::grad(x);
        let taken = given.list.iter().any(|port| port.name == plain);
        let name = if parameters.contains(x) && !taken { plain } else { graph.value_name(output).to_string() };
        let value = f.b.output(value, &name);
        let x = f.b.fact(at(&f, gradient.xs[key.1])).clone();
        f.b.refine(value, &x);
        given.add(output, name, f.b.fact(value).clone())?;
    }
    for id in &demand.passed {
        let value = at(&f, *id);
        let name = graph.value_name(*id);
        let name = if graph.producer(*id).is_some() { name.to_string() } else { f.b.unique(&format!("{name}.passed")) };
        let value = f.b.output(value, &name);
        given.add(*id, name, f.b.fact(value).clone())?;
    }
    for binding in &moving {
        let value = at(&f, binding.value);
        f.b.output(value, &names::next(graph.value_name(binding.key)));
    }
    let train = finish(f.b.finish(), "train", prepared.form)?;
    let optimizer = match trained.is_empty() {
        true => None,
        false => {
            Some(finish(update_graph(graph, stage, options, &demand, &given, &updated)?, "optimizer", prepared.form)?)
        }
    };
    let name = |binding: &&Binding| graph.value_name(binding.key).to_string();
    let mut copied = late(&train, &moving.iter().map(name).collect::<Vec<_>>());
    if let Some(optimizer) = &optimizer {
        copied.extend(late(optimizer, &updated.iter().map(name).collect::<Vec<_>>()));
    }
    let eval = eval(prepared, stage)?;
    let contract = Contract {
        format: FORMAT.into(),
        frozen: prepared.trainable().iter().filter(|n| options.frozen.contains(*n)).map(ToString::to_string).collect(),
        unused: Vec::new(),
        lr_scale: BTreeMap::new(),
        train: described(&train, prepared, stage, &given),
        optimizer: optimizer.as_ref().map(|g| described(g, prepared, stage, &given)).unwrap_or_default(),
        eval: described(&eval.graph, prepared, stage, &given),
    };
    let slots = stage.slots.iter().filter(|slot| slot.owner.as_ref().is_none_or(|owner| trained.contains(owner)));
    let slots = slots.map(|slot| Slot { name: slot.name.clone(), initial: slot.initial.clone() }).collect();
    let model = |graph: Graph| as_model(prepared, graph);
    Ok(TrainStep {
        train: model(train),
        updated: if optimizer.is_some() { updated.iter().map(name).collect() } else { Vec::new() },
        optimizer: optimizer.map(model),
        eval,
        contract,
        trained,
        moving: moving.iter().map(name).collect(),
        slots,
        passed: given.list.into_iter().map(|port| (port.name, port.fact)).collect(),
        copied,
        accumulates: false,
    })
}

/// Builds the eval graph: the model in inference form with its loss, parameters and statistics
/// as inputs.
///
/// # Errors
/// A node cannot be brought into inference form.
pub fn eval(prepared: &Prepared, stage: &Stage) -> Result<Model, TrainingError> {
    let graph = &prepared.model.graph;
    let parameters: HashSet<&str> = prepared.trainable().into_iter().collect();
    let statistics: HashSet<&str> = prepared.statistics().into_iter().collect();
    let shown: Vec<ValueId> = model_outputs(graph, stage).filter(|id| *id != stage.loss()).collect();
    let step = part(graph, stage, &[&[stage.loss()], shown.as_slice()].concat());
    let mut f = forward(&step, "eval", &Mode::Eval, &statistics, &parameters)?;
    let at = |f: &Forward, id: ValueId| f.map[&step.find(graph.value_name(id)).expect("invariant: the part has it")];
    let loss = at(&f, stage.loss());
    output_loss(&mut f, loss);
    for id in shown {
        let value = at(&f, id);
        f.b.output(value, graph.value_name(id));
    }
    Ok(as_model(prepared, finish(f.b.finish(), "eval", prepared.form)?))
}

/// Returns the bindings of a phase: without frozen parameters, their slots, and statistics that
/// stay.
fn active<'a>(graph: &Graph, stage: &'a Stage, options: &StageOptions<'_>, still: &HashSet<&str>) -> Vec<&'a Binding> {
    let owner = |name: &str| stage.slots.iter().find(|slot| slot.name == name).and_then(|slot| slot.owner.as_deref());
    let moves = |binding: &&Binding| {
        let name = graph.value_name(binding.key);
        match binding.holder {
            Holder::Parameter => !options.frozen.contains(name),
            Holder::Statistic => !still.contains(name),
            Holder::Slot => owner(name).is_none_or(|owner| !options.frozen.contains(owner)),
        }
    };
    stage.bindings.iter().filter(moves).collect()
}

fn names_of(graph: &Graph, bindings: &[&Binding], holder: Holder) -> Vec<String> {
    let of = bindings.iter().filter(|binding| binding.holder == holder);
    of.map(|binding| graph.value_name(binding.key).to_string()).collect()
}

/// Splits the bindings into those of the train graph, which need data and no gradient, and those
/// of the optimizer graph. What the optimizer graph reads changes there.
fn split<'a>(
    graph: &Graph,
    stage: &Stage,
    options: &StageOptions<'_>,
    active: &[&'a Binding],
) -> (Vec<&'a Binding>, Vec<&'a Binding>) {
    let dependence = &stage.dependence;
    let early = |binding: &Binding| {
        binding.holder != Holder::Parameter
            && dependence.data.contains(&binding.value)
            && !dependence.after.contains(&binding.value)
    };
    let (mut moving, mut updated): (Vec<&Binding>, Vec<&Binding>) = active.iter().partition(|binding| early(binding));
    loop {
        let demand = Demand::of(graph, stage, &options.frozen, &updated, options.schedule);
        let read = moving.iter().position(|binding| demand.needed.contains(&binding.key));
        let Some(position) = read else { return (moving, updated) };
        updated.push(moving.remove(position));
    }
}

/// Returns the outputs of the inference graph: those outputs of the step that do not depend on a
/// gradient.
fn model_outputs<'a>(graph: &'a Graph, stage: &'a Stage) -> impl Iterator<Item = ValueId> + 'a {
    graph.outputs().iter().copied().filter(|id| stage.shown.contains(graph.value_name(*id)))
}

/// Returns what some values that depend on no gradient are computed from, without the slots that
/// nothing in it reads.
fn part(graph: &Graph, stage: &Stage, outputs: &[ValueId]) -> Graph {
    let mut whole = graph.clone();
    let mut seen = HashSet::new();
    whole.outputs = outputs.iter().copied().filter(|id| seen.insert(*id)).collect();
    let mut part = prune(&whole);
    let mut read: HashSet<ValueId> = part.outputs.iter().copied().collect();
    for node in part.nodes() {
        read.extend(node.inputs.iter().flatten());
        read.extend(node.captured().filter_map(|name| part.find(name)));
    }
    let slots: HashSet<ValueId> = stage.slots.iter().filter_map(|slot| part.find(&slot.name)).collect();
    part.inputs.retain(|id| !slots.contains(id) || read.contains(id));
    part
}

/// Makes a value the output `loss` and returns it as a scalar.
fn output_loss(f: &mut Forward, value: ValueId) -> ValueId {
    let loss = scalar(f, value);
    if loss != value && f.b.graph().find(names::LOSS) == Some(value) {
        let name = f.b.unique("loss/whole");
        f.b.rename(value, &name);
    }
    f.b.output(loss, names::LOSS);
    loss
}

/// Returns a loss as a scalar; where nothing is known of it, it is taken for one of float32.
fn scalar(f: &mut Forward, value: ValueId) -> ValueId {
    let guess = Fact { dtype: Some(DType::F32), shape: None };
    f.b.refine(value, &guess);
    if f.b.fact(value).rank() == Some(0) {
        return value;
    }
    f.b.enter(Origin::Loss, "loss");
    f.b.reshape(value, &[])
}

/// Appends every gradient that the update reads, in the order of the demand. Those of one value
/// with respect to values that no node computes share one backward pass.
fn differentiate(
    f: &mut Forward,
    prepared: &Prepared,
    stage: &Stage,
    demand: &Demand,
    at: &dyn Fn(&Forward, ValueId) -> ValueId,
    loss: ValueId,
) -> Result<Vec<ValueId>, TrainingError> {
    let graph = &prepared.model.graph;
    let mut groups: Vec<(ValueId, Option<usize>, Vec<usize>)> = Vec::new();
    for (position, (gradient, x)) in demand.gradients.iter().enumerate() {
        let Some(entry) = stage.gradients.get(*gradient) else { continue };
        let alone = graph.producer(entry.xs[*x]).map(|_| *gradient);
        match groups.iter_mut().find(|group| (group.0, group.1) == (entry.y, alone)) {
            Some(group) => group.2.push(position),
            None => groups.push((entry.y, alone, vec![position])),
        }
    }
    let mut found: HashMap<usize, ValueId> = HashMap::new();
    for (y, _, positions) in groups {
        let of = |position: &usize| {
            let (gradient, x) = demand.gradients[*position];
            stage.gradients[gradient].xs[x]
        };
        let wrt: Vec<ValueId> = positions.iter().map(|position| at(f, of(position))).collect();
        let value = if y == stage.loss() { loss } else { at(f, y) };
        let value = scalar(f, value);
        let grads = gradients_of(&prepared.manner(), &mut f.b, prepared.model.opset(), (value, None), &wrt);
        let grads = grads.map_err(|source| prepared.at(source))?;
        for ((position, grad), x) in positions.into_iter().zip(grads).zip(wrt) {
            let grad = grad.unwrap_or_else(|| {
                let zero = f.b.like(x, 0.0);
                f.b.expand_like(zero, x)
            });
            found.insert(position, grad);
        }
    }
    Ok((0..demand.gradients.len()).map(|position| found[&position]).collect())
}

/// Returns the state that must not be written where it is read.
fn late(graph: &Graph, state: &[String]) -> Vec<String> {
    let unsafe_in_place = |name: &&String| check_in_place(graph, &[((*name).clone(), names::next(name))]).is_err();
    state.iter().filter(unsafe_in_place).cloned().collect()
}

fn described(graph: &Graph, prepared: &Prepared, stage: &Stage, given: &Ports) -> crate::training::GraphContract {
    let holder = |name: &str| {
        let parameter = prepared.parameters.iter().find(|parameter| parameter.name == name);
        match parameter.map(|parameter| parameter.role) {
            Some(crate::modules::Role::Trainable) => Some(Holder::Parameter),
            Some(_) => Some(Holder::Statistic),
            None => stage.slots.iter().any(|slot| slot.name == name).then_some(Holder::Slot),
        }
    };
    let passed = |name: &str| {
        let gradient = name.strip_suffix(".grad").is_some_and(|p| holder(p) == Some(Holder::Parameter));
        given.list.iter().any(|port| port.name == name).then_some(if gradient { Role::Gradient } else { Role::Value })
    };
    let input = |name: &str| match holder(name) {
        Some(Holder::Parameter) => Role::Parameter,
        Some(Holder::Statistic) => Role::Statistic,
        Some(Holder::Slot) => Role::Slot,
        None if name == names::LR => Role::LearningRate,
        None if name == names::STEP && prepared.model.graph.find(name).is_none() => Role::Step,
        None if name == names::TARGET && stage.target.is_some() => Role::Target,
        None => passed(name).unwrap_or(Role::Data),
    };
    let output = |name: &str| match name.strip_suffix(".next").and_then(holder) {
        Some(Holder::Parameter) => Role::NextParameter,
        Some(Holder::Statistic) => Role::NextStatistic,
        Some(Holder::Slot) => Role::NextSlot,
        None if name == names::LOSS => Role::Loss,
        None if name == names::LR => Role::LearningRate,
        None => passed(name).unwrap_or(Role::Output),
    };
    ports(graph, &input, &output)
}
