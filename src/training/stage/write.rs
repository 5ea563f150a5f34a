//! A phase as training information of the ONNX standard, for another program or a later run.
//!
//! The algorithm is the loss, one `Gradient` node for the parameters that train, and the update.
//! SGD with momentum, without a limit on the gradient's norm and with one learning rate is the
//! operator `Momentum`; every other update is written in the standard operators of the optimizer
//! graph: `Momentum` has one rate for all, and `Adam` of the standard adds `epsilon` before its bias
//! correction and so is another one. Where the forward pass of training differs from the model
//! (BatchNormalization by the batch, Dropout), the algorithm holds the part that differs.
//!
//! What is frozen is in neither `xs` nor the bindings. The initialization sets slots and the step
//! count to their first values.

use super::PREVIEW;
use crate::autodiff::Form;
use crate::graph::{Attribute, Attributes, Builder, DType, Fact, Graph, Model, Node, OpId, Origin, Tensor, ValueId};
use crate::onnx::NewTrainingInfo;
use crate::optim::OptimizerKind;
use crate::training::forward::{Mode, forward};
use crate::training::step::finish;
use crate::training::terms::add_loss;
use crate::training::{PhaseOptions, Prepared, Rate, TrainStep, TrainingError, names};
use std::collections::{HashMap, HashSet};

/// Name of the step count.
const STEP: &str = "update.step";

/// Returns the training information of a phase that [`build`](crate::training::build) has built. `base` is the model
/// that the file will hold; its values are not repeated.
///
/// # Errors
/// A name of the algorithm is taken by the model, or the learning rate of a parameter is given with
/// each step.
pub fn training_info(
    base: &Model,
    prepared: &Prepared,
    options: &PhaseOptions<'_>,
    step: &TrainStep,
) -> Result<NewTrainingInfo, TrainingError> {
    if let Some(parameter) = step.contract.lr_scale.keys().next() {
        return Err(TrainingError::Varies { parameter: parameter.clone() });
    }
    let mut w = Writer::new(&base.graph);
    let forward = forward_part(prepared, options)?;
    w.join(&forward)?;
    let mut update_binding: Vec<(String, String)> = Vec::new();
    for statistic in &step.moving {
        let value = w.value(&forward, &names::next(statistic))?;
        update_binding.push((statistic.clone(), w.b.graph().value_name(value).to_string()));
    }
    let loss = w.value(&forward, names::LOSS)?;
    let loss = w.b.graph().value_name(loss).to_string();
    w.mark(&loss);
    let mut starts = Builder::new("initialization");
    let mut initialization_binding = Vec::new();
    if !step.trained.is_empty() {
        w.gradient(&forward, &step.trained, &loss)?;
        w.constant(names::LR, Tensor::scalar(options.optimizer.lr() as f32), "the learning rate")?;
        for slot in &step.slots {
            w.constant(&slot.name, slot.initial.clone(), "a slot")?;
            initialization_binding.push((slot.name.clone(), start(&mut starts, &slot.name, &slot.initial)));
        }
        let spec = options.optimizer;
        let plain = spec.uniform() && spec.clip_norm.is_none() && spec.clip_value.is_none() && spec.dampening.is_none();
        let one_rate = step.trained.iter().all(|name| match options.rates.get(name.as_str()) {
            Some(Rate::Fixed(factor)) => *factor == 1.0,
            _ => true,
        });
        let velocity = spec.kind == OptimizerKind::Sgd && !step.slots.is_empty() && plain && one_rate;
        if velocity {
            let first = Tensor::scalar(0i64);
            w.constant(STEP, first.clone(), "the step count")?;
            initialization_binding.push((STEP.into(), start(&mut starts, STEP, &first)));
            w.momentum(step, options)?;
            update_binding.push((STEP.into(), names::next(STEP)));
        } else if let Some(optimizer) = &step.optimizer {
            w.join(&optimizer.graph)?;
        }
        update_binding.extend(step.updated.iter().map(|name| (name.clone(), names::next(name))));
    }
    for (_, value) in &update_binding {
        w.mark(value);
    }
    Ok(NewTrainingInfo {
        algorithm: w.b.finish(),
        outer: w.outer,
        initialization: starts.finish(),
        initialization_binding,
        update_binding,
        opsets: vec![(PREVIEW.to_string(), 1)],
        metadata: Vec::new(),
    })
}

fn forward_part(prepared: &Prepared, options: &PhaseOptions<'_>) -> Result<Graph, TrainingError> {
    let graph = &prepared.model.graph;
    let parameters: HashSet<&str> = prepared.trainable().into_iter().collect();
    let statistics: HashSet<&str> = prepared.statistics().into_iter().collect();
    let mode = Mode::Train { frozen: &options.frozen, frozen_inputs: false, seed: None, as_written: false };
    let mut f = forward(graph, "algorithm", &mode, &statistics, &parameters)?;
    let loss = add_loss(&mut f, graph, options.loss, options.output)?;
    f.b.output(loss, names::LOSS);
    for (statistic, value) in std::mem::take(&mut f.moved) {
        f.b.output(value, &names::next(&statistic));
    }
    finish(f.b.finish(), "algorithm", Form::Portable)
}

/// Appends a starting value of one number throughout and returns its name.
fn start(b: &mut Builder, name: &str, initial: &Tensor) -> String {
    let shape: Vec<i64> = initial.shape().iter().map(|size| *size as i64).collect();
    let shape = b.ints("shape", &shape);
    let number = match initial.dtype() {
        DType::I64 => Tensor::ints(&initial.to_ints().unwrap_or_default()[..1]),
        dtype => {
            let number = initial.to_f64s().and_then(|numbers| numbers.first().copied()).unwrap_or(0.0);
            Tensor::float_full(dtype, &[1], number)
        }
    };
    b.enter(Origin::Loss, name);
    let value = b.op("ConstantOfShape", &[shape], Attributes::none().with("value", number));
    let output = format!("{name}.start");
    b.output(value, &output);
    output
}

struct Writer<'a> {
    b: Builder,
    base: &'a Graph,
    outer: HashSet<String>,
    /// Values of the joined graphs by name there.
    map: HashMap<String, ValueId>,
    marked: HashSet<String>,
}

impl<'a> Writer<'a> {
    fn new(base: &'a Graph) -> Writer<'a> {
        let mut b = Builder::new("algorithm");
        b.reserve(base.values().map(|(_, value)| value.name.clone()));
        b.reserve(base.nodes().iter().map(|node| node.name.clone()));
        Writer { b, base, outer: HashSet::new(), map: HashMap::new(), marked: HashSet::new() }
    }

    /// Appends a graph. Its values that the model has too are those of the model; other inputs are
    /// what was appended before, or inputs of the algorithm.
    fn join(&mut self, graph: &Graph) -> Result<(), TrainingError> {
        for id in graph.inputs() {
            let name = graph.value_name(*id);
            if !self.map.contains_key(name) && self.base.find(name).is_none() {
                let input = self.b.input(name, graph.fact(*id).clone());
                self.map.insert(name.to_string(), input);
            }
        }
        let mut shared: HashSet<ValueId> =
            graph.inputs().iter().copied().filter(|id| !self.map.contains_key(graph.value_name(*id))).collect();
        for (id, value, tensor) in graph.initializers() {
            if self.base.find(&value.name).is_some() {
                shared.insert(id);
            } else {
                let constant = self.b.initializer(&value.name, tensor.clone());
                self.map.insert(value.name.clone(), constant);
            }
        }
        for node in graph.nodes() {
            if self.same(graph, node, &shared) {
                shared.extend(node.outputs.iter().flatten());
                continue;
            }
            let mut inputs = Vec::with_capacity(node.inputs.len());
            for input in &node.inputs {
                inputs.push(input.map(|id| self.read(graph, id)));
            }
            let renamed = |name: &&str| self.map.get(*name).is_some_and(|id| self.b.graph().value_name(*id) != *name);
            if let Some(name) = node.captured().find(renamed) {
                let reason = format!("reads \"{name}\" inside a subgraph, which the training information renames");
                return Err(TrainingError::Node { node: node.name.clone(), reason });
            }
            let outputs = node.outputs.iter().map(|output| output.map(|id| self.declare(graph, id))).collect();
            let name = self.b.unique(&format!("training/{}", node.name));
            self.b.push_node(Node { name, inputs, outputs, ..node.clone() });
        }
        Ok(())
    }

    /// Returns true where the model computes the same by the same node.
    fn same(&self, graph: &Graph, node: &Node, shared: &HashSet<ValueId>) -> bool {
        let output = node.outputs.iter().flatten().next().map(|id| graph.value_name(*id));
        let other = output.and_then(|name| self.base.find(name)).and_then(|id| self.base.producer(id));
        let Some(other) = other.map(|id| self.base.node(id)) else { return false };
        let names = |graph: &Graph, ids: &[Option<ValueId>]| -> Vec<Option<String>> {
            ids.iter().map(|id| id.map(|id| graph.value_name(id).to_string())).collect()
        };
        node.op == other.op
            && node.attributes == other.attributes
            && node.inputs.iter().flatten().all(|input| shared.contains(input))
            && node.captured().filter_map(|name| graph.find(name)).all(|id| shared.contains(&id))
            && names(graph, &node.inputs) == names(self.base, &other.inputs)
            && names(graph, &node.outputs) == names(self.base, &other.outputs)
    }

    fn read(&mut self, graph: &Graph, id: ValueId) -> ValueId {
        self.named(graph.value_name(id), graph.fact(id))
    }

    fn named(&mut self, name: &str, fact: &Fact) -> ValueId {
        if let Some(value) = self.map.get(name) {
            return *value;
        }
        let outer = self.b.input(name, fact.clone());
        self.outer.insert(name.to_string());
        self.map.insert(name.to_string(), outer);
        outer
    }

    fn declare(&mut self, graph: &Graph, id: ValueId) -> ValueId {
        let name = graph.value_name(id);
        let taken = self.base.find(name).is_some() || self.b.graph().find(name).is_some();
        let own = if taken { self.b.unique(&format!("training/{name}")) } else { name.to_string() };
        let value = self.b.declare(&own, graph.fact(id).clone());
        self.map.insert(name.to_string(), value);
        value
    }

    /// Returns the value that stands for an output of a joined graph.
    fn value(&mut self, graph: &Graph, name: &str) -> Result<ValueId, TrainingError> {
        let id = graph.find(name);
        let fact = id.map(|id| graph.fact(id).clone()).unwrap_or_default();
        Ok(self.named(name, &fact))
    }

    /// Adds an initializer of the algorithm.
    fn constant(&mut self, name: &str, tensor: Tensor, meaning: &str) -> Result<ValueId, TrainingError> {
        if self.base.find(name).is_some() || self.b.graph().find(name).is_some() {
            return Err(TrainingError::Collision { name: name.into(), meaning: meaning.into() });
        }
        let value = self.b.initializer(name, tensor);
        self.map.insert(name.to_string(), value);
        Ok(value)
    }

    /// Makes a value an output of the algorithm, where it is one of the algorithm.
    fn mark(&mut self, name: &str) {
        if let Some(id) = self.b.graph().find(name).filter(|_| !self.outer.contains(name))
            && self.marked.insert(name.to_string())
        {
            self.b.mark_output(id);
        }
    }

    fn push(&mut self, domain: &str, op: &str, inputs: Vec<ValueId>, outputs: Vec<ValueId>, attributes: Attributes) {
        let name = self.b.unique(op);
        self.b.push_node(Node {
            name,
            op: OpId { domain: domain.into(), name: op.into() },
            overload: String::new(),
            inputs: inputs.into_iter().map(Some).collect(),
            outputs: outputs.into_iter().map(Some).collect(),
            attributes,
            origin: Origin::Loss,
            metadata: Vec::new(),
        });
    }

    fn gradient(&mut self, forward: &Graph, trained: &[String], loss: &str) -> Result<(), TrainingError> {
        let fact = |name: &str| forward.find(name).map(|id| forward.fact(id).clone()).unwrap_or_default();
        let xs: Vec<ValueId> = trained.iter().map(|name| self.named(name, &fact(name))).collect();
        let state: HashSet<&str> = trained.iter().map(String::as_str).collect();
        let others = forward.inputs().iter().map(|id| forward.value_name(*id)).filter(|name| !state.contains(name));
        let others: Vec<String> = others.filter(|name| !names_statistic(forward, name)).map(str::to_string).collect();
        let zs: Vec<ValueId> = others.iter().map(|name| self.named(name, &fact(name))).collect();
        let mut outputs = Vec::with_capacity(trained.len());
        for name in trained {
            let grad = names::grad(name);
            let value = self.b.declare(&grad, fact(name));
            self.map.insert(grad, value);
            outputs.push(value);
        }
        let strings = |names: &[String]| {
            Attribute::Strings(names.iter().map(|name| bytes::Bytes::copy_from_slice(name.as_bytes())).collect())
        };
        let mut attributes = Attributes::none().with("xs", strings(trained)).with("y", loss);
        if !others.is_empty() {
            attributes.set("zs", strings(&others));
        }
        self.push(PREVIEW, "Gradient", [xs, zs].concat(), outputs, attributes);
        Ok(())
    }

    fn momentum(&mut self, step: &TrainStep, options: &PhaseOptions<'_>) -> Result<(), TrainingError> {
        let spec = options.optimizer;
        let at = |w: &Self, name: &str| w.map[name];
        let mut inputs = vec![at(self, names::LR), at(self, STEP)];
        inputs.extend(step.trained.iter().map(|name| at(self, name)));
        inputs.extend(step.trained.iter().map(|name| at(self, &names::grad(name))));
        inputs.extend(step.slots.iter().map(|slot| at(self, &slot.name)));
        let mut outputs = Vec::new();
        for name in step.trained.iter().chain(step.slots.iter().map(|slot| &slot.name)) {
            let fact = self.b.fact(at(self, name)).clone();
            outputs.push(self.b.declare(&names::next(name), fact));
        }
        let number = |value: f64| Attribute::Float(value as f32);
        let attributes = Attributes::none()
            .with("alpha", number(spec.momentum.unwrap_or(0.0)))
            .with("beta", number(1.0))
            .with("mode", if spec.nesterov == Some(true) { "nesterov" } else { "standard" })
            .with("norm_coefficient", number(spec.weight_decay.unwrap_or(0.0)));
        self.push(PREVIEW, "Momentum", inputs, outputs, attributes);
        let one = self.constant("one", Tensor::scalar(1i64), "the increment of the step count")?;
        let next = self.b.declare(&names::next(STEP), Fact::fixed(DType::I64, &[]));
        self.push("", "Add", vec![self.map[STEP], one], vec![next], Attributes::none());
        Ok(())
    }
}

/// Returns true for an input that is a running statistic: one that has a next value.
fn names_statistic(forward: &Graph, name: &str) -> bool {
    forward.find(&names::next(name)).is_some()
}
