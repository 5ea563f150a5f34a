//! What the training of each parameter needs, as items that selections share.
//!
//! A gradient passes a node when one of the parameters trains that reach it through values that
//! carry a gradient. So every part of a step's cost is there exactly when the trained set meets a
//! set of parameters: an input gradient, the parameters that reach that input; a weight gradient, its
//! parameter; a kept tensor, the parameters of every gradient that reads it. Parts with the same
//! set are one item, so a chain of `n` parameters has about `2 n` items, whatever its nodes.
//!
//! A `BatchNormalization` that changes its form when its scale and bias are frozen costs more by the
//! statistics of the batch. What it costs more is an item with two sets: it is paid when the trained set
//! meets both those that reach the node's input and those that keep the form. [`Reach::cost`] then is
//! what the [`CostModel`] says for every set, to the last flop and byte, as long as the
//! form by the running statistics costs no more, and what it alone keeps is not wanted while it is in use;
//! otherwise the item counts the larger of the two forms, and the sum is at most that difference too high.

use super::bits::Bits;
use super::model::{CostModel, Form, Input, NodeCost};
use super::{Flops, StepCost};
use std::collections::{BTreeMap, HashMap};
use std::ops::AddAssign;
use std::rc::Rc;

/// What a step costs, without what a cache could save.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Flops of the forward pass and of what remains of the backward pass.
    pub flops: Flops,
    /// Bytes of the gradients of what trains.
    pub gradient_bytes: u64,
    /// Bytes of the optimizer's slots of what trains.
    pub slot_bytes: u64,
    /// Bytes that the forward pass makes and the backward pass reads.
    pub activation_bytes: u64,
}

impl Needs {
    /// Returns the bytes of gradients, slots and kept activations together.
    pub fn bytes(&self) -> u64 {
        self.gradient_bytes.saturating_add(self.slot_bytes).saturating_add(self.activation_bytes)
    }
}

impl AddAssign for Needs {
    fn add_assign(&mut self, other: Needs) {
        self.flops = self.flops.plus(other.flops);
        self.gradient_bytes = self.gradient_bytes.saturating_add(other.gradient_bytes);
        self.slot_bytes = self.slot_bytes.saturating_add(other.slot_bytes);
        self.activation_bytes = self.activation_bytes.saturating_add(other.activation_bytes);
    }
}

impl From<StepCost> for Needs {
    fn from(step: StepCost) -> Needs {
        let StepCost { flops, gradient_bytes, slot_bytes, activation_bytes, .. } = step;
        Needs { flops, gradient_bytes, slot_bytes, activation_bytes }
    }
}

/// A part of a step's cost that is there or not as a whole.
#[derive(Clone, Debug)]
pub struct ReachItem {
    /// It is there when one of these parameters trains, by position in [`Reach::parameters`] ..
    pub any: Rc<Bits>,
    /// .. and one of these, if there are some.
    pub and: Option<Rc<Bits>>,
    /// What it costs.
    pub needs: Needs,
}

/// What the training of each parameter needs.
#[derive(Clone, Debug)]
pub struct Reach {
    parameters: Vec<String>,
    constant: Needs,
    items: Vec<ReachItem>,
}

impl Reach {
    /// Returns the parameters by position.
    pub fn parameters(&self) -> &[String] {
        &self.parameters
    }

    /// Returns what a step costs in which nothing trains.
    pub fn constant(&self) -> Needs {
        self.constant
    }

    /// Returns the parts of a step's cost; no two have the same sets.
    pub fn items(&self) -> &[ReachItem] {
        &self.items
    }

    /// Returns the set of the parameters for which `holds` answers true.
    pub fn set(&self, holds: impl Fn(&str) -> bool) -> Bits {
        let numbers = self.parameters.iter().enumerate().filter(|(_, name)| holds(name)).map(|(index, _)| index);
        Bits::of(self.parameters.len(), numbers)
    }

    /// Returns what a step costs in which exactly the given parameters train.
    pub fn cost(&self, trains: &Bits) -> Needs {
        let mut sum = self.constant;
        let there = |item: &&ReachItem| {
            item.any.meets(trains) && item.and.as_ref().is_none_or(|parameters| parameters.meets(trains))
        };
        self.items.iter().filter(there).for_each(|item| sum += item.needs);
        sum
    }
}

impl CostModel {
    /// Returns what the training of each parameter needs, where every Dropout drops, and statistics move but those of
    /// [`CostModel::with_stays`].
    pub fn reach(&self) -> Reach {
        let mut parameters = vec![String::new(); self.parameters.len()];
        for name in self.trainable() {
            if let Some(place) = self.parameter(name).and_then(|index| parameters.get_mut(index)) {
                place.clone_from(name);
            }
        }
        let mut parts = Parts::new(self.parameters.len(), self.kept_bytes.len());
        for node in &self.nodes {
            let switch = node.fixed.as_ref().and_then(|fixed| {
                let name = self.still.get(fixed.unless.checked_sub(self.parameters.len())?)?;
                let affine: Vec<usize> = self.stays.get(name)?.iter().filter_map(|name| self.parameter(name)).collect();
                (!affine.is_empty()).then_some((fixed, affine))
            });
            match switch {
                Some((fixed, affine)) => {
                    let affine = parts.sets.of(&affine);
                    parts.read(node, &node.form, Some((&fixed.form, affine)));
                }
                None => parts.read(node, &node.form, None),
            }
        }
        for (index, parameter) in self.parameters.iter().enumerate() {
            let (gradient_bytes, slot_bytes) = (parameter.bytes, parameter.slot_bytes());
            let alone = parts.sets.of(&[index]);
            parts.add(alone, None, Needs { gradient_bytes, slot_bytes, ..Needs::default() });
        }
        for (tensor, bytes) in self.kept_bytes.iter().enumerate() {
            if let (Some(activation_bytes), Some((any, and))) = (*bytes, parts.tensors[tensor]) {
                parts.add(any, and, Needs { activation_bytes, ..Needs::default() });
            }
        }
        let Parts { sets, items, constant, .. } = parts;
        let set = |id: usize| Rc::clone(&sets.sets[id]);
        let items = items.into_iter().map(|((any, and), needs)| ReachItem { any: set(any), and: and.map(set), needs });
        Reach { parameters, constant, items: items.collect() }
    }
}

/// Sets of parameters, each kept once.
struct Sets {
    size: usize,
    sets: Vec<Rc<Bits>>,
    ids: HashMap<Rc<Bits>, usize>,
}

const EMPTY: usize = 0;

impl Sets {
    fn of(&mut self, parameters: &[usize]) -> usize {
        self.id(Bits::of(self.size, parameters.iter().copied()))
    }

    fn id(&mut self, set: Bits) -> usize {
        if let Some(id) = self.ids.get(&set) {
            return *id;
        }
        let set = Rc::new(set);
        self.sets.push(Rc::clone(&set));
        self.ids.insert(set, self.sets.len() - 1);
        self.sets.len() - 1
    }

    fn union(&mut self, ids: impl IntoIterator<Item = usize>) -> usize {
        let mut ids: Vec<usize> = ids.into_iter().filter(|id| *id != EMPTY).collect();
        ids.sort_unstable();
        ids.dedup();
        match ids[..] {
            [] => EMPTY,
            [id] => id,
            _ => {
                let mut set = Bits::none(self.size);
                ids.iter().for_each(|id| set.join(&self.sets[*id]));
                self.id(set)
            }
        }
    }

    fn is_within(&self, set: usize, other: usize) -> bool {
        self.sets[set].is_within(&self.sets[other])
    }
}

/// The parts of a step's cost while the nodes are read.
struct Parts {
    sets: Sets,
    /// The parameters that reach each node.
    reaching: Vec<usize>,
    items: BTreeMap<(usize, Option<usize>), Needs>,
    /// When each tensor is kept.
    tensors: Vec<Option<(usize, Option<usize>)>>,
    constant: Needs,
}

impl Parts {
    fn new(parameters: usize, tensors: usize) -> Parts {
        let mut sets = Sets { size: parameters, sets: Vec::new(), ids: HashMap::new() };
        sets.id(Bits::none(parameters));
        Parts {
            sets,
            reaching: Vec::new(),
            items: BTreeMap::new(),
            tensors: vec![None; tensors],
            constant: Needs::default(),
        }
    }

    fn add(&mut self, any: usize, and: Option<usize>, needs: Needs) {
        let and = and.filter(|and| !self.sets.is_within(any, *and));
        if any != EMPTY && needs != Needs::default() {
            *self.items.entry((any, and)).or_default() += needs;
        }
    }

    /// Adds a part that costs `more` when the trained set meets the switch, and `needs` when it does not.
    fn add_switched(&mut self, any: usize, more: Needs, less: Option<(Needs, usize)>) {
        let Some((needs, switch)) = less.filter(|(_, switch)| !self.sets.is_within(any, *switch)) else {
            return self.add(any, None, more);
        };
        self.add(any, None, needs);
        let extra = |more: u64, less: u64| more.saturating_sub(less);
        let flops = Flops {
            forward: extra(more.flops.forward, needs.flops.forward),
            input_grad: extra(more.flops.input_grad, needs.flops.input_grad),
            weight_grad: extra(more.flops.weight_grad, needs.flops.weight_grad),
        };
        self.add(any, Some(switch), Needs { flops, ..Needs::default() });
    }

    /// Adds a node; `fixed` is its form when the trained set does not meet a set, with that set.
    fn read(&mut self, node: &NodeCost, form: &Form, fixed: Option<(&Form, usize)>) {
        let inputs: Vec<usize> = node.inputs.iter().map(|input| self.of_input(input)).collect();
        let reaching = if node.live { self.sets.union(inputs.iter().copied()) } else { EMPTY };
        self.reaching.push(reaching);
        let forward = |flops: u64| Needs { flops: Flops { forward: flops, ..Flops::default() }, ..Needs::default() };
        let always = fixed.map_or(form, |(fixed, _)| fixed).flops.forward;
        self.constant += forward(always);
        if let Some((_, switch)) = fixed {
            self.add(switch, None, forward(form.flops.forward.saturating_sub(always)));
        }
        if !node.live {
            return;
        }
        for (index, (input, any)) in node.inputs.iter().zip(&inputs).enumerate() {
            let weight = matches!(input, Input::Parameter(_) | Input::Made { weight: true, .. });
            let count = |form: &Form| {
                let flops = form.flops.input_grads.get(index).copied().unwrap_or(0);
                let (input_grad, weight_grad) = if weight { (0, flops) } else { (flops, 0) };
                Needs { flops: Flops { forward: 0, input_grad, weight_grad }, ..Needs::default() }
            };
            self.add_switched(*any, count(form), fixed.map(|(fixed, switch)| (count(fixed), switch)));
        }
        let through = |form: &Form| Needs {
            flops: Flops { input_grad: form.flops.through, ..Flops::default() },
            ..Needs::default()
        };
        self.add_switched(reaching, through(form), fixed.map(|(fixed, switch)| (through(fixed), switch)));
        self.keep(form, &inputs, fixed.map(|(_, switch)| switch));
        if let Some((fixed, switch)) = fixed {
            let outside = inputs.iter().map(|set| if self.sets.is_within(*set, switch) { EMPTY } else { *set });
            let outside: Vec<usize> = outside.collect();
            self.keep(fixed, &outside, None);
        }
    }

    fn of_input(&mut self, input: &Input) -> usize {
        match *input {
            Input::Stop => EMPTY,
            Input::Made { by, .. } => self.reaching.get(by).copied().unwrap_or(EMPTY),
            Input::Parameter(parameter) => self.sets.of(&[parameter]),
        }
    }

    /// Notes when the tensors are kept that the gradients of a form read.
    fn keep(&mut self, form: &Form, inputs: &[usize], and: Option<usize>) {
        for keeps in &form.keeps {
            let any = self.sets.union(inputs.get(keeps.inputs.clone()).unwrap_or_default().iter().copied());
            if any == EMPTY {
                continue;
            }
            for tensor in &keeps.tensors {
                let both = match self.tensors[*tensor] {
                    None => (any, and),
                    Some((before, other)) => (self.sets.union([before, any]), and.filter(|_| and == other)),
                };
                self.tensors[*tensor] = Some(both);
            }
        }
    }
}
