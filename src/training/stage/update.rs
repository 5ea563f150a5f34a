//! The optimizer graph of a phase of a [`Stage`].

use super::rule::Scalars;
use super::{Binding, Holder, Stage, StageError, StageOptions};
use crate::graph::{Builder, DType, Fact, Graph, Node, NodeId, Origin, Tensor, ValueId};
use crate::training::names;
use std::collections::{BTreeSet, HashMap, HashSet};

/// What the optimizer graph has, and what it needs of the train graph.
#[derive(Clone, Debug, Default)]
pub(super) struct Demand {
    /// Every value that the graph has.
    pub needed: HashSet<ValueId>,
    /// Gradients that it reads: which node, which of its outputs.
    pub gradients: Vec<(usize, usize)>,
    /// Other values of the train graph that it reads.
    pub passed: Vec<ValueId>,
    /// Gradients of frozen parameters, with the parameter.
    absent: HashMap<ValueId, ValueId>,
    /// Next values of frozen parameters, with the parameter.
    held: HashMap<ValueId, ValueId>,
}

/// Values that the train graph gives to the optimizer graph.
#[derive(Clone, Debug, Default)]
pub(super) struct Ports {
    pub list: Vec<Port>,
}

/// One such value and its name there.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub value: ValueId,
    pub name: String,
    pub fact: Fact,
}

impl Ports {
    /// Adds a value, whose shape must be fixed: it has one buffer.
    pub fn add(&mut self, value: ValueId, name: String, fact: Fact) -> Result<(), StageError> {
        if fact.sizes().is_none() {
            return Err(StageError::Passed { value: name, fact: fact.to_string() });
        }
        self.list.push(Port { value, name, fact });
        Ok(())
    }
}

impl Demand {
    /// Walks back from the values of the bindings.
    pub fn of(graph: &Graph, stage: &Stage, frozen: &HashSet<&str>, bindings: &[&Binding], schedule: bool) -> Demand {
        let mut demand = Demand::default();
        let frozen_binding =
            |binding: &&Binding| binding.holder == Holder::Parameter && frozen.contains(graph.value_name(binding.key));
        demand.held = stage.bindings.iter().filter(frozen_binding).map(|b| (b.value, b.key)).collect();
        demand.needed.extend(bindings.iter().map(|binding| binding.value));
        let mut passed = BTreeSet::new();
        let mut gradients = BTreeSet::new();
        let outside =
            |value: &ValueId| stage.dependence.data.contains(value) && !stage.dependence.after.contains(value);
        for (id, node) in graph.node_ids().collect::<Vec<_>>().into_iter().rev() {
            let mut wanted = Vec::new();
            for (position, output) in node.outputs.iter().enumerate() {
                let Some(output) = output.filter(|output| demand.needed.contains(output)) else { continue };
                match demand.held.get(&output) {
                    Some(parameter) => drop(demand.needed.insert(*parameter)),
                    None => wanted.push((position, output)),
                }
            }
            if wanted.is_empty() {
                continue;
            }
            if let Some(index) = stage.gradients.iter().position(|gradient| gradient.node == id) {
                for (position, output) in wanted {
                    let x = stage.gradients[index].xs[position];
                    if frozen.contains(graph.value_name(x)) {
                        demand.absent.insert(output, x);
                    } else {
                        gradients.insert((index, position));
                    }
                }
            } else if outside(&wanted[0].1) {
                passed.extend(wanted.into_iter().map(|(_, output)| output));
            } else if let Some(rule) = stage.rules.get(&id) {
                let shared = if schedule { vec![node.input(1)] } else { vec![node.input(0), node.input(1)] };
                demand.needed.extend(shared.into_iter().flatten());
                for (position, _) in wanted {
                    demand.needed.extend(rule.inputs(node, rule.output(position).0));
                }
            } else {
                demand.needed.extend(node.inputs.iter().flatten());
                demand.needed.extend(node.captured().filter_map(|name| graph.find(name)));
            }
        }
        let slots: HashSet<&str> = stage.slots.iter().map(|slot| slot.name.as_str()).collect();
        let data = graph.inputs().iter().filter(|id| !slots.contains(graph.value_name(**id)));
        passed.extend(data.filter(|id| demand.needed.contains(id)));
        demand.passed = passed.into_iter().collect();
        demand.gradients = gradients.into_iter().collect();
        demand
    }
}

/// Returns the graph that makes the next value of every binding.
pub(super) fn update_graph(
    graph: &Graph,
    stage: &Stage,
    options: &StageOptions<'_>,
    demand: &Demand,
    given: &Ports,
    bindings: &[&Binding],
) -> Result<Graph, StageError> {
    let mut b = Builder::new("optimizer");
    b.reserve(graph.values().map(|(_, value)| value.name.clone()));
    let lr = options.schedule.then(|| b.input(names::LR, Fact::fixed(DType::F32, &[])));
    let bindings = ordered(graph, stage, bindings);
    let mut u = Update { b, graph, stage, demand, map: HashMap::new(), lr, scalars: HashMap::new() };
    for binding in &bindings {
        u.state(binding.key);
        let grad = names::grad(graph.value_name(binding.key));
        given.list.iter().filter(|port| port.name == grad).for_each(|port| u.port(port));
    }
    given.list.iter().for_each(|port| u.port(port));
    u.leaves(&options.frozen);
    for (id, node) in graph.node_ids() {
        u.node(id, node);
    }
    for binding in bindings {
        let (key, value) = (graph.value_name(binding.key), u.map[&binding.value]);
        let held = graph.fact(binding.key);
        let found = u.b.fact(value).clone();
        if found.dtype.is_some_and(|dtype| Some(dtype) != held.dtype)
            || found.sizes().is_some_and(|s| Some(s) != held.sizes())
        {
            let value = graph.value_name(binding.value).to_string();
            return Err(StageError::Binding { key: key.into(), value, reason: format!("{held} cannot hold {found}") });
        }
        u.b.enter(Origin::Update(key.to_string()), key);
        u.b.refine(value, held);
        u.b.output(value, &names::next(key));
    }
    u.rate();
    Ok(u.b.finish())
}

/// Each parameter with its slots behind it, then the rest.
fn ordered<'a>(graph: &Graph, stage: &Stage, bindings: &[&'a Binding]) -> Vec<&'a Binding> {
    let place = |binding: &&Binding| {
        let name = graph.value_name(binding.key);
        let slot = stage.slots.iter().find(|slot| slot.name == name);
        let of = match (binding.holder, slot.and_then(|slot| slot.owner.as_deref())) {
            (Holder::Parameter, _) => Some(name),
            (_, owner) => owner,
        };
        of.and_then(|of| bindings.iter().position(|b| b.holder == Holder::Parameter && graph.value_name(b.key) == of))
            .unwrap_or(usize::MAX)
    };
    let mut ordered = bindings.to_vec();
    ordered.sort_by_key(|binding| (place(binding), binding.holder != Holder::Parameter));
    ordered
}

struct Update<'a> {
    b: Builder,
    graph: &'a Graph,
    stage: &'a Stage,
    demand: &'a Demand,
    map: HashMap<ValueId, ValueId>,
    lr: Option<ValueId>,
    scalars: HashMap<(NodeId, DType), Scalars>,
}

impl Update<'_> {
    fn state(&mut self, key: ValueId) {
        if self.demand.needed.contains(&key) && !self.map.contains_key(&key) {
            let input = self.b.input(self.graph.value_name(key), self.graph.fact(key).clone());
            self.map.insert(key, input);
        }
    }

    fn port(&mut self, port: &Port) {
        if !self.map.contains_key(&port.value) {
            let input = self.b.input(&port.name, port.fact.clone());
            self.map.insert(port.value, input);
        }
    }

    /// Adds what no node makes: other state, constants, zeros for gradients of what is frozen.
    fn leaves(&mut self, frozen: &HashSet<&str>) {
        for (id, value) in self.graph.values().filter(|(id, _)| self.demand.needed.contains(id)) {
            if self.map.contains_key(&id) || self.graph.producer(id).is_some() {
                continue;
            }
            let bound = self.stage.bindings.iter().any(|binding| binding.key == id);
            if value.initializer.is_some() && (!bound || frozen.contains(value.name.as_str())) {
                let constant = self.b.copy_value(self.graph, id);
                self.map.insert(id, constant);
            } else {
                self.state(id);
            }
        }
        let mut absent: Vec<(ValueId, ValueId)> = self.demand.absent.iter().map(|(a, b)| (*a, *b)).collect();
        absent.sort();
        for (gradient, parameter) in absent {
            let fact = self.graph.fact(parameter);
            let zeros = Tensor::zeros(fact.dtype.unwrap_or(DType::F32), &fact.sizes().unwrap_or_default());
            let zeros = self.b.constant("frozen", zeros);
            self.map.insert(gradient, zeros);
        }
        for (value, parameter) in &self.demand.held {
            if let Some(constant) = self.map.get(parameter).copied() {
                self.map.insert(*value, constant);
            }
        }
    }

    fn node(&mut self, id: NodeId, node: &Node) {
        let open = |u: &Self, output: &ValueId| u.demand.needed.contains(output) && !u.map.contains_key(output);
        if let Some(rule) = self.stage.rules.get(&id) {
            for index in 0..rule.count {
                let mine = node.outputs.iter().enumerate().filter(|(position, _)| rule.output(*position).0 == index);
                let mine: Vec<(usize, ValueId)> =
                    mine.filter_map(|(position, output)| Some((rule.output(position).1, (*output)?))).collect();
                if mine.iter().any(|(_, output)| open(self, output)) {
                    let made = self.step(id, node, index);
                    for (which, output) in mine {
                        self.map.entry(output).or_insert(made[which]);
                    }
                }
            }
        } else if node.outputs.iter().flatten().any(|output| open(self, output)) {
            let inputs: Vec<Option<ValueId>> = node.inputs.iter().map(|input| input.map(|id| self.map[&id])).collect();
            let outputs = self.b.copy_node(self.graph, node, &inputs);
            for (old, new) in node.outputs.iter().zip(outputs) {
                if let (Some(old), Some(new)) = (old, new) {
                    self.map.entry(*old).or_insert(new);
                }
            }
        }
    }

    fn step(&mut self, id: NodeId, node: &Node, index: usize) -> Vec<ValueId> {
        let rule = &self.stage.rules[&id];
        let inputs = rule.inputs(node, index);
        let name = self.graph.value_name(inputs[0]).to_string();
        let tensors: Vec<ValueId> = inputs.iter().map(|input| self.map[input]).collect();
        let dtype = self.b.dtype(tensors[0]);
        let scalars = match self.scalars.get(&(id, dtype)) {
            Some(scalars) => *scalars,
            None => {
                self.b.enter(Origin::Update(node.name.clone()), &format!("{}/rate", node.name));
                let r = self.lr.or_else(|| node.input(0).map(|id| self.map[&id]));
                let wide = [r, node.input(1).map(|id| self.map[&id])].map(|value| {
                    let value = value.expect("invariant: R and T are there");
                    let value = if self.b.fact(value).rank() == Some(0) { value } else { self.b.reshape(value, &[]) };
                    self.b.cast(value, DType::F64)
                });
                let scalars = rule.scalars(&mut self.b, wide[0], wide[1], dtype);
                self.scalars.insert((id, dtype), scalars);
                scalars
            }
        };
        self.b.enter(Origin::Update(name.clone()), &format!("{}/{name}", node.name));
        let made = rule.step(&mut self.b, &scalars, &tensors);
        for value in &made {
            self.b.refine(*value, self.graph.fact(inputs[0]));
        }
        made
    }

    /// Shows the learning rate of the step, where all optimizer nodes read the same one.
    fn rate(&mut self) {
        let mut rates = self.stage.rules.keys().filter_map(|id| self.graph.node(*id).input(0));
        let Some(rate) = rates.next() else { return };
        let free = self.b.graph().find(names::LR).is_none();
        let one = rates.all(|other| other == rate) || self.stage.rate.is_some();
        if let (true, Some(value)) = (self.lr.is_none() && free && one, self.map.get(&rate).copied()) {
            self.b.enter(Origin::Update(names::LR.into()), names::LR);
            self.b.output(value, names::LR);
        }
    }
}
