//! The cost of a step for any frozen set, by exact reachability.
//!
//! With a set of trainable parameters, `R` is the set of nodes that a trainable parameter reaches
//! through values that carry a gradient and that reach an output. The backward pass costs the
//! input gradients of `R`'s nodes for inputs made in `R`, and the weight gradients of the trainable
//! parameters that `R`'s nodes read. Freezing a parameter removes input gradients only where it
//! makes `R` smaller.

use super::flops::{NodeFlops, node_flops};
use super::{Flops, StepCost, UnitCost};
use crate::graph::{DType, Graph, Model, NodeId, ValueId};
use crate::modules::uses::carries_gradient;
use crate::modules::{ModuleTree, Unit};
use std::collections::{HashMap, HashSet};

/// The costs of a model's nodes and parameters, ready for any frozen set.
///
/// Sizes must be fixed ([`Graph::with_sizes`]) and facts complete (`facts::complete`): a node whose
/// shapes are not known counts as 0 and is named in [`CostModel::notes`].
#[derive(Clone, Debug)]
pub struct CostModel {
    nodes: Vec<NodeCost>,
    parameters: HashMap<String, ParameterCost>,
    /// Trainable names in registration order.
    order: Vec<String>,
    slots: u64,
    notes: Vec<String>,
}

#[derive(Clone, Debug)]
struct NodeCost {
    flops: NodeFlops,
    /// Whether an output can be reached from it.
    live: bool,
    inputs: Vec<Input>,
}

#[derive(Clone, Debug)]
enum Input {
    /// No gradient passes.
    Stop,
    /// Made by a node; `weight` when nothing but parameters and constants goes into it.
    Made { by: NodeId, weight: bool },
    /// A parameter.
    Parameter(String),
}

#[derive(Clone, Copy, Debug)]
struct ParameterCost {
    elements: u64,
    bytes: u64,
}

impl CostModel {
    /// Returns the costs of a model whose optimizer keeps `slots` tensors for each parameter (SGD 0, with
    /// momentum 1, Adam 2).
    pub fn new(model: &Model, tree: &ModuleTree, slots: u64) -> CostModel {
        let graph = &model.graph;
        let mut costs = CostModel {
            nodes: Vec::new(),
            parameters: HashMap::new(),
            order: tree.registration().into_iter().map(String::from).collect(),
            slots,
            notes: Vec::new(),
        };
        let mut names: HashMap<ValueId, String> = HashMap::new();
        for name in tree.registration() {
            let Some(value) = graph.find(name) else { continue };
            let Some(tensor) = &graph.value(value).initializer else { continue };
            let elements = tensor.len() as u64;
            let bytes = elements.saturating_mul(tensor.dtype().size() as u64);
            costs.parameters.insert(name.to_string(), ParameterCost { elements, bytes });
            names.insert(value, name.to_string());
        }
        let live = live(graph);
        let mut weight_only = vec![false; graph.nodes().len()];
        for (id, node) in graph.node_ids() {
            let flops = node_flops(graph, node).unwrap_or_else(|| {
                costs
                    .notes
                    .push(format!("node \"{}\" ({}) counts as 0: operator or shapes not known", node.name, node.op));
                NodeFlops { forward: 0, input_grads: vec![0; node.inputs.len()] }
            });
            let of_weight = |value: &ValueId| match graph.producer(*value) {
                Some(producer) => weight_only[producer.0],
                None => !graph.inputs().contains(value),
            };
            weight_only[id.0] = node.captured().next().is_none() && node.inputs.iter().flatten().all(of_weight);
            let input = |(index, value): (usize, &Option<ValueId>)| {
                let Some(value) = value else { return Input::Stop };
                let float = graph.fact(*value).dtype.is_none_or(DType::is_float);
                if !float || !carries_gradient(node, index) {
                    return Input::Stop;
                }
                match (names.get(value), graph.producer(*value)) {
                    (Some(name), _) => Input::Parameter(name.clone()),
                    (None, Some(by)) => Input::Made { by, weight: weight_only[by.0] },
                    (None, None) => Input::Stop,
                }
            };
            let inputs = node.inputs.iter().enumerate().map(input).collect();
            costs.nodes.push(NodeCost { flops, live: live[id.0], inputs });
        }
        costs
    }

    /// Returns what was counted as 0, for a person.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Returns the trainable parameters in registration order.
    pub fn trainable(&self) -> &[String] {
        &self.order
    }

    /// Returns the cost of a step in which exactly the given parameters train.
    pub fn step(&self, trainable: &HashSet<String>) -> StepCost {
        let reached = self.reached(trainable);
        let mut cost = StepCost::default();
        for (index, node) in self.nodes.iter().enumerate() {
            cost.forward = cost.forward.saturating_add(node.flops.forward);
            for (input, flops) in node.inputs.iter().zip(&node.flops.input_grads) {
                let needed = match input {
                    Input::Made { by, .. } => reached[by.0],
                    Input::Parameter(name) => trainable.contains(name),
                    Input::Stop => false,
                };
                if reached[index] && needed {
                    cost.backward = cost.backward.saturating_add(*flops);
                }
            }
        }
        let states = trainable.iter().filter_map(|name| self.parameters.get(name));
        cost.state_bytes = states.fold(0, |sum, parameter| sum.saturating_add(self.state_bytes(parameter)));
        cost
    }

    /// Returns the cost of a step in which everything trains but the given parameters.
    pub fn step_frozen(&self, frozen: &HashSet<String>) -> StepCost {
        self.step(&self.order.iter().filter(|name| !frozen.contains(*name)).cloned().collect())
    }

    /// Returns what each unit costs while everything trains.
    ///
    /// A unit's nodes are those of its module and, for a unit that is a block, of the modules below;
    /// the nodes that read its parameters where these are not all the module's. A node counts for
    /// the first such unit only. Nodes of modules without parameters are in no unit.
    pub fn units(&self, tree: &ModuleTree, units: &[Unit]) -> Vec<UnitCost> {
        let all: HashSet<String> = self.order.iter().cloned().collect();
        let reached = self.reached(&all);
        let mut taken = vec![false; self.nodes.len()];
        units.iter().map(|unit| self.unit(unit, tree, &reached, &mut taken)).collect()
    }

    fn unit(&self, unit: &Unit, tree: &ModuleTree, reached: &[bool], taken: &mut [bool]) -> UnitCost {
        let mut cost = UnitCost::default();
        for parameter in unit.parameters.iter().filter_map(|name| self.parameters.get(name)) {
            cost.elements = cost.elements.saturating_add(parameter.elements);
            cost.parameter_bytes = cost.parameter_bytes.saturating_add(parameter.bytes);
        }
        cost.gradient_bytes = cost.parameter_bytes;
        cost.slot_bytes = cost.parameter_bytes.saturating_mul(self.slots);
        for index in self.unit_nodes(unit, tree) {
            if std::mem::replace(&mut taken[index], true) {
                continue;
            }
            let node = &self.nodes[index];
            cost.flops = add(cost.flops, node, reached[index], reached);
        }
        cost
    }

    fn unit_nodes(&self, unit: &Unit, tree: &ModuleTree) -> Vec<usize> {
        let held = |id| tree.module(id).parameters.len();
        if let Some(id) = tree.get(&unit.path) {
            let below = tree.below(id);
            let whole: usize = below.iter().map(|id| held(*id)).sum();
            let modules = if whole == unit.parameters.len() { below } else { vec![id] };
            return modules.iter().flat_map(|id| tree.module(*id).nodes.iter().map(|node| node.0)).collect();
        }
        let views = self.reached_by(|name| unit.parameters.contains(name), false);
        let reads = |node: &NodeCost| {
            node.inputs.iter().any(|input| match input {
                Input::Parameter(name) => unit.parameters.contains(name),
                Input::Made { by, weight } => *weight && views[by.0],
                Input::Stop => false,
            })
        };
        (0..self.nodes.len()).filter(|index| reads(&self.nodes[*index])).collect()
    }

    /// Returns the trainable parameters that keep the backward pass running through a frozen part:
    /// they are registered before a frozen parameter, and a gradient on its way to them passes a node
    /// that this one goes into.
    pub fn keeps_backward_alive(&self, trainable: &HashSet<String>) -> Vec<String> {
        let frozen = |name: &String| self.parameters.contains_key(name) && !trainable.contains(name);
        let Some(last) = self.order.iter().rposition(frozen) else { return Vec::new() };
        let early = self.order[..last].iter().enumerate().filter(|(_, name)| trainable.contains(*name));
        let found = early.filter(|(place, name)| {
            let reached = self.reached(&HashSet::from([(*name).clone()]));
            let later: HashSet<&String> = self.order[place + 1..].iter().filter(|name| frozen(name)).collect();
            let weights = self.reached_by(|name| later.contains(name), false);
            self.nodes.iter().enumerate().any(|(index, node)| {
                let data = |input: &Input| matches!(input, Input::Made { by, weight: false } if reached[by.0]);
                let weight = |input: &Input| match input {
                    Input::Parameter(name) => later.contains(name),
                    Input::Made { by, weight } => *weight && weights[by.0],
                    Input::Stop => false,
                };
                reached[index] && node.inputs.iter().any(data) && node.inputs.iter().any(weight)
            })
        });
        found.map(|(_, name)| name.clone()).collect()
    }

    fn state_bytes(&self, parameter: &ParameterCost) -> u64 {
        parameter.bytes.saturating_mul(self.slots.saturating_add(1))
    }

    fn reached(&self, trainable: &HashSet<String>) -> Vec<bool> {
        self.reached_by(|name| trainable.contains(name), true)
    }

    fn reached_by(&self, trains: impl Fn(&String) -> bool, live: bool) -> Vec<bool> {
        let mut reached = vec![false; self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            reached[index] = (node.live || !live)
                && node.inputs.iter().any(|input| match input {
                    Input::Parameter(name) => trains(name),
                    Input::Made { by, .. } => reached[by.0],
                    Input::Stop => false,
                });
        }
        reached
    }
}

fn add(mut flops: Flops, node: &NodeCost, in_reach: bool, reached: &[bool]) -> Flops {
    flops.forward = flops.forward.saturating_add(node.flops.forward);
    for (input, count) in node.inputs.iter().zip(&node.flops.input_grads).filter(|_| in_reach) {
        match input {
            Input::Made { by, weight: false } if reached[by.0] => {
                flops.input_grad = flops.input_grad.saturating_add(*count);
            }
            Input::Made { by, weight: true } if reached[by.0] => {
                flops.weight_grad = flops.weight_grad.saturating_add(*count);
            }
            Input::Parameter(_) => flops.weight_grad = flops.weight_grad.saturating_add(*count),
            _ => {}
        }
    }
    flops
}

/// Returns for each node whether a gradient of a graph output can reach it.
fn live(graph: &Graph) -> Vec<bool> {
    let float = |value: &ValueId| graph.fact(*value).dtype.is_none_or(DType::is_float);
    let mut wanted: HashSet<ValueId> = graph.outputs().iter().copied().filter(float).collect();
    let mut live = vec![false; graph.nodes().len()];
    for (id, node) in graph.node_ids().collect::<Vec<_>>().into_iter().rev() {
        live[id.0] = node.outputs.iter().flatten().any(|output| wanted.contains(output));
        if live[id.0] {
            let inputs = node.inputs.iter().enumerate().filter(|(index, _)| carries_gradient(node, *index));
            wanted.extend(inputs.filter_map(|(_, value)| *value).filter(float));
        }
    }
    live
}
