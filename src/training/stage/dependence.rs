//! What every value of a step depends on: data, gradients of parameters, slots.

use super::{Binding, Gradient, Holder, Rule};
use crate::graph::{Graph, NodeId, ValueId};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Dependences of the values of a step.
#[derive(Clone, Debug)]
pub(super) struct Dependence {
    /// Values that depend on a gradient, or that an optimizer node makes.
    pub after: HashSet<ValueId>,
    /// Values that depend on an input that is no state.
    pub data: HashSet<ValueId>,
}

/// A set of small numbers.
#[derive(Clone, Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn insert(&mut self, bit: usize) {
        if self.0.len() <= bit / 64 {
            self.0.resize(bit / 64 + 1, 0);
        }
        self.0[bit / 64] |= 1 << (bit % 64);
    }

    fn contains(&self, bit: usize) -> bool {
        self.0.get(bit / 64).is_some_and(|word| word & (1 << (bit % 64)) != 0)
    }

    fn add(&mut self, other: &Bits) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }
}

impl Dependence {
    /// Walks the graph once; `slots` are the inputs that are state.
    pub fn of(graph: &Graph, gradients: &[Gradient], rules: &BTreeMap<NodeId, Rule>, slots: &HashSet<ValueId>) -> Self {
        let mut after = HashSet::new();
        let mut data: HashSet<ValueId> = graph.inputs().iter().copied().filter(|id| !slots.contains(id)).collect();
        let starts: HashSet<NodeId> = gradients.iter().map(|g| g.node).chain(rules.keys().copied()).collect();
        for (id, node) in graph.node_ids() {
            let captured: Vec<ValueId> = node.captured().filter_map(|name| graph.find(name)).collect();
            let inputs = || node.inputs.iter().flatten().chain(&captured);
            if starts.contains(&id) || inputs().any(|input| after.contains(input)) {
                after.extend(node.outputs.iter().flatten());
            }
            // What gives another value each time runs once, in the train graph.
            if inputs().any(|input| data.contains(input)) || node.op.is_random() {
                data.extend(node.outputs.iter().flatten());
            }
        }
        Dependence { after, data }
    }
}

/// Returns the parameter that each slot belongs to, by the slot's value.
pub(super) fn owners(
    graph: &Graph,
    gradients: &[Gradient],
    rules: &BTreeMap<NodeId, Rule>,
    bindings: &[Binding],
) -> HashMap<ValueId, ValueId> {
    let keys = |holder: Holder| bindings.iter().filter(move |binding| binding.holder == holder);
    let parameters: HashMap<ValueId, usize> =
        keys(Holder::Parameter).enumerate().map(|(bit, binding)| (binding.key, bit)).collect();
    let slots: HashMap<ValueId, usize> =
        keys(Holder::Slot).enumerate().map(|(bit, binding)| (binding.key, parameters.len() + bit)).collect();
    let reached = reached(graph, gradients, rules, &parameters, &slots);
    let reads = |value: ValueId, bit: usize| reached.get(&value).is_some_and(|bits| bits.contains(bit));
    let mut owners = HashMap::new();
    for binding in keys(Holder::Slot) {
        let bit = slots[&binding.key];
        let mut readers = keys(Holder::Parameter).filter(|parameter| reads(parameter.value, bit));
        if let (Some(owner), None) = (readers.next(), readers.next())
            && reads(binding.value, parameters[&owner.key])
        {
            owners.insert(binding.key, owner.key);
        }
    }
    // What another state reads stays with that state, or moves on its own.
    loop {
        let shared = owners.iter().find(|(slot, owner)| {
            bindings.iter().any(|other| {
                let same = other.key == **slot || other.key == **owner || owners.get(&other.key) == Some(owner);
                !same && reads(other.value, slots[slot])
            })
        });
        let Some(slot) = shared.map(|(slot, _)| *slot) else { return owners };
        owners.remove(&slot);
    }
}

/// Returns for each value the gradients of parameters and the slots that it depends on.
fn reached(
    graph: &Graph,
    gradients: &[Gradient],
    rules: &BTreeMap<NodeId, Rule>,
    parameters: &HashMap<ValueId, usize>,
    slots: &HashMap<ValueId, usize>,
) -> HashMap<ValueId, Bits> {
    let mut reached: HashMap<ValueId, Bits> = HashMap::new();
    for (slot, bit) in slots {
        reached.entry(*slot).or_default().insert(*bit);
    }
    let union = |reached: &HashMap<ValueId, Bits>, values: &mut dyn Iterator<Item = ValueId>| {
        let mut bits = Bits::default();
        values.filter_map(|value| reached.get(&value)).for_each(|more| bits.add(more));
        bits
    };
    // Twice: what a gradient differentiates is no input of its node and may come behind it.
    for (id, node) in graph.node_ids().chain(graph.node_ids()) {
        if let Some(gradient) = gradients.iter().find(|gradient| gradient.node == id) {
            let base = union(&reached, &mut std::iter::once(gradient.y));
            for (x, output) in gradient.xs.iter().zip(&node.outputs) {
                let mut bits = base.clone();
                parameters.get(x).into_iter().for_each(|bit| bits.insert(*bit));
                output.iter().for_each(|output| drop(reached.insert(*output, bits.clone())));
            }
        } else if let Some(rule) = rules.get(&id) {
            for (position, output) in node.outputs.iter().enumerate() {
                let (index, _) = rule.output(position);
                let shared = [node.input(0), node.input(1)].into_iter().flatten();
                let bits = union(&reached, &mut rule.inputs(node, index).into_iter().chain(shared));
                output.iter().for_each(|output| drop(reached.insert(*output, bits.clone())));
            }
        } else {
            let captured: Vec<ValueId> = node.captured().filter_map(|name| graph.find(name)).collect();
            let bits = union(&reached, &mut node.inputs.iter().flatten().copied().chain(captured));
            for output in node.outputs.iter().flatten() {
                reached.insert(*output, bits.clone());
            }
        }
    }
    reached
}
