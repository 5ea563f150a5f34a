//! The training and the eval model of one frozen set.

use super::{ClassicError, TrainStep, names};
use crate::graph::{Attributes, Builder, DType, Fact, Graph, Model, Node, OpId, Origin, Tensor, ValueId, check};
use crate::training::{Port, Prepared, Role, names as own};
use std::collections::HashMap;

/// Domain of the training operators.
pub(super) const DOMAIN: &str = "com.microsoft";

/// The models of one frozen set, and what the checkpoint beside them holds.
#[derive(Clone, Debug)]
pub struct Phase {
    /// `training_model.onnx`.
    pub training: Model,
    /// `eval_model.onnx`.
    pub eval: Model,
    /// Names of the parameters that have a gradient, in file order.
    pub trains: Vec<String>,
    /// Names of the other state, in file order: frozen parameters, running statistics, the number of batches.
    pub frozen: Vec<String>,
    /// Those of `frozen` that the training model writes.
    pub moves: Vec<String>,
    /// What the training step is fed, in its order.
    pub inputs: Vec<Port>,
    /// What the eval step gives, in its order.
    pub outputs: Vec<Port>,
    /// The values of all state before training, by name.
    pub(super) values: HashMap<String, Tensor>,
}

impl Phase {
    /// Makes the models of a step whose frozen parameters are inputs.
    ///
    /// # Errors
    /// Nothing trains, a name is taken or would be taken for something else, or a dtype is not supported.
    pub fn of(prepared: &Prepared, step: &TrainStep) -> Result<Phase, ClassicError> {
        let model = &prepared.model.graph;
        let mut state = names::parameters(step, model);
        names::refuse_reserved(step, &state)?;
        let mut values = HashMap::new();
        for name in &state {
            let tensor = model.find(name).and_then(|id| model.value(id).initializer.clone());
            let tensor = tensor.ok_or_else(|| ClassicError::Missing { name: name.clone() })?;
            supported(step, name, tensor.dtype())?;
            values.insert(name.clone(), tensor);
        }
        let mut moves = step.moving.clone();
        if step.is_random() {
            state.push(names::COUNT.into());
            moves.push(names::COUNT.into());
            values.insert(names::COUNT.into(), Tensor::from_vec(&[1], vec![0_f32]));
        }
        let training = training(step, &state)?;
        let eval = eval(step, &state)?;
        let frozen = state.into_iter().filter(|name| !step.trained.contains(name)).collect();
        let opsets = [(DOMAIN.to_string(), 1)];
        let training = Model {
            graph: training,
            opsets: step.train.opsets.clone().into_iter().chain(opsets).collect(),
            ..step.train.clone()
        };
        let eval = Model { graph: eval, ..step.eval.clone() };
        let inputs = fed(&step.contract.train.inputs).cloned().collect();
        let outputs = step.contract.eval.outputs.clone();
        Ok(Phase { training, eval, trains: step.trained.clone(), frozen, moves, inputs, outputs, values })
    }
}

/// Refuses what a checkpoint cannot hold or an accumulator cannot write.
fn supported(step: &TrainStep, name: &String, dtype: DType) -> Result<(), ClassicError> {
    let written = step.trained.contains(name) || step.moving.contains(name);
    let held = !matches!(dtype, DType::F16 | DType::BF16) && dtype.size() > 0;
    let refuse = |can| Err(ClassicError::DType { name: name.clone(), found: dtype.to_string(), can });
    match (written, held) {
        (true, _) if dtype != DType::F32 => refuse("train float32 parameters"),
        (_, false) => refuse("hold parameters of float32, float64, bool and integers"),
        _ => Ok(()),
    }
}

/// A copy of a graph under construction.
struct Copy<'a> {
    graph: &'a Graph,
    b: Builder,
    map: HashMap<ValueId, ValueId>,
}

impl Copy<'_> {
    fn new<'a>(graph: &'a Graph, name: &str) -> Copy<'a> {
        let mut b = Builder::new(name);
        b.reserve(graph.values().map(|(_, value)| value.name.clone()));
        b.reserve(graph.nodes().iter().map(|node| node.name.clone()));
        Copy { graph, b, map: HashMap::new() }
    }

    /// Adds an input of the graph.
    fn input(&mut self, name: &str) {
        if let Some(id) = self.graph.find(name) {
            let input = self.b.input(name, self.graph.fact(id).clone());
            self.map.insert(id, input);
        }
    }

    /// Adds an input of the graph, or one of this fact where the graph has none of the name.
    fn state(&mut self, name: &str, fact: impl FnOnce() -> Fact) {
        match self.graph.find(name) {
            Some(_) => self.input(name),
            None => drop(self.b.input(name, fact())),
        }
    }

    fn initializers(&mut self) {
        for (id, ..) in self.graph.initializers() {
            let new = self.b.copy_value(self.graph, id);
            self.map.insert(id, new);
        }
    }

    fn node(&mut self, node: &Node) {
        let inputs: Vec<Option<ValueId>> = node.inputs.iter().map(|id| self.map.get(&(*id)?).copied()).collect();
        let outputs = self.b.copy_node(self.graph, node, &inputs);
        self.map.extend(node.outputs.iter().zip(outputs).filter_map(|(old, new)| Some(((*old)?, new?))));
    }

    /// Returns the copy of a value that the graph has.
    fn value(&self, name: &str) -> ValueId {
        let id = self.graph.find(name).expect("invariant: a name of the step's contract");
        self.map[&id]
    }

    fn finish(self, name: &'static str) -> Result<Graph, ClassicError> {
        let graph = self.b.finish();
        check(&graph).map_err(|error| ClassicError::Check { graph: name, reason: error.to_string() })?;
        Ok(graph)
    }
}

/// Returns what a user feeds: data, then targets.
fn fed(ports: &[Port]) -> impl Iterator<Item = &Port> {
    let of = |role| ports.iter().filter(move |port| port.role == role);
    of(Role::Data).chain(of(Role::Target))
}

fn count() -> Fact {
    Fact::fixed(DType::F32, &[1])
}

fn training(step: &TrainStep, state: &[String]) -> Result<Graph, ClassicError> {
    let mut copy = Copy::new(&step.train.graph, "training");
    fed(&step.contract.train.inputs).for_each(|port| copy.input(&port.name));
    state.iter().for_each(|name| copy.state(name, count));
    let mut buffers = Vec::with_capacity(step.trained.len());
    for name in &step.trained {
        let fact = copy.b.fact(copy.value(name)).clone();
        buffers.push(copy.b.input(&names::buffer(name), fact));
    }
    let reset = copy.b.input(names::RESET, Fact::fixed(DType::Bool, &[1]));
    copy.initializers();
    let batches = step.is_random().then(|| add_count(&mut copy));
    step.train.graph.nodes().iter().for_each(|node| copy.node(node));
    let loss = copy.value(own::LOSS);
    copy.b.mark_output(loss);
    for (name, buffer) in step.trained.iter().zip(buffers) {
        let gradient = copy.value(&own::grad(name));
        copy.b.rename(gradient, &names::gradient(name));
        write(&mut copy.b, name, buffer, gradient, reset);
    }
    let moved = step.moving.iter().map(|name| (name.clone(), copy.value(&own::next(name))));
    let moved: Vec<(String, ValueId)> = moved.chain(batches.map(|next| (names::COUNT.into(), next))).collect();
    if !moved.is_empty() {
        copy.b.enter(Origin::Update("state".into()), "state");
        let always = copy.b.constant("always", Tensor::from_vec(&[1], vec![true]));
        for (name, next) in moved {
            let state = copy.b.graph().find(&name).expect("invariant: state is an input");
            write(&mut copy.b, &name, state, next, always);
        }
    }
    copy.finish("training")
}

/// Appends the number of this batch, from 1, under the name that random values read; returns it as it is kept. Whatever
/// reads the state that it is made of comes before the node that writes that.
fn add_count(copy: &mut Copy<'_>) -> ValueId {
    let before = copy.b.graph().find(names::COUNT).expect("invariant: added with the state");
    copy.b.enter(Origin::Update(names::COUNT.into()), "count");
    let next = copy.b.shift(before, 1.0);
    let whole = copy.b.cast(next, DType::I64);
    let number = copy.b.reshape(whole, &[]);
    copy.b.rename(number, own::STEP);
    let step = copy.graph.find(own::STEP).expect("invariant: the step is random");
    copy.b.refine(number, copy.graph.fact(step));
    copy.map.insert(step, number);
    next
}

/// Appends the node that writes `value` into the memory of `state`, or adds it where `reset` is false.
fn write(b: &mut Builder, name: &str, state: ValueId, value: ValueId, reset: ValueId) {
    b.enter(Origin::Update(name.to_string()), name);
    let op = OpId { domain: DOMAIN.into(), name: "InPlaceAccumulatorV2".into() };
    let inputs = [state, value, reset].map(Some);
    let done = b.ops(&op, &inputs, Attributes::none(), 1)[0];
    b.refine(done, &Fact::fixed(DType::Bool, &[1]));
    b.output(done, &names::done(name));
}

fn eval(step: &TrainStep, state: &[String]) -> Result<Graph, ClassicError> {
    let mut copy = Copy::new(&step.eval.graph, "eval");
    fed(&step.contract.eval.inputs).for_each(|port| copy.input(&port.name));
    state.iter().for_each(|name| copy.state(name, count));
    copy.initializers();
    step.eval.graph.nodes().iter().for_each(|node| copy.node(node));
    for port in &step.contract.eval.outputs {
        let output = copy.value(&port.name);
        copy.b.mark_output(output);
    }
    copy.finish("eval")
}
