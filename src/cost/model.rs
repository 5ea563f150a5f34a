//! The nodes of a model with their costs, ready for any frozen set.

use super::flops::{NodeFlops, Uncounted};
use super::reader::{Reader, batch, edges};
use super::whole::Whole;
use super::{Flops, StepCost};
use crate::graph::{Model, Node, ValueId};
use crate::modules::ModuleTree;
use std::collections::{BTreeMap, HashMap, HashSet};

/// The costs of a model's nodes and parameters, ready for any frozen set.
///
/// Sizes must be fixed ([`Graph::with_sizes`](crate::graph::Graph::with_sizes)) and facts complete
/// (`facts::complete`): a node whose shapes are not known counts as 0 and is named in
/// [`CostModel::notes`].
///
/// A frozen set holds the names of parameters, of running statistics that stay, and of the outputs of
/// Dropout nodes that pass their input on. A `BatchNormalization` counts by its running statistics where
/// these are in the set, otherwise by those of the batch.
#[derive(Clone, Debug)]
pub struct CostModel {
    pub(super) nodes: Vec<NodeCost>,
    pub(super) parameters: Vec<ParameterCost>,
    /// Bytes of each tensor that may be kept.
    pub(super) kept_bytes: Vec<Option<u64>>,
    /// Values that one node makes and another reads, or the model returns, with their bytes.
    pub(super) edges: Vec<Edge>,
    pub(super) batch: u64,
    /// Names beside parameters that a frozen set may hold, with their positions after those of the parameters.
    pub(super) still: Vec<String>,
    pub(super) aliases: Vec<Alias>,
    pub(super) units: Vec<Option<usize>>,
    pub(super) unit_count: usize,
    by_name: HashMap<String, usize>,
    /// Trainable names in registration order.
    order: Vec<String>,
    /// Parameters that running means stay with.
    pub(super) stays: HashMap<String, Vec<String>>,
    uncounted: Vec<(String, String, Uncounted)>,
}

#[derive(Clone, Debug)]
pub(super) struct NodeCost {
    pub(super) name: String,
    pub(super) form: Form,
    /// As `form`, of a `BatchNormalization` by its running statistics, or of a Dropout that passes its input on.
    pub(super) fixed: Option<Fixed>,
    /// Whether a gradient of an output can reach it.
    pub(super) live: bool,
    pub(super) inputs: Vec<Input>,
    /// What its outputs depend on, also where no gradient passes.
    pub(super) sources: Vec<Source>,
    /// Nothing but parameters and constants goes into it.
    pub(super) of_weights: bool,
    /// Why its outputs differ between steps for the same sample and weights.
    pub(super) varies: Option<Varies>,
}

/// What a node costs and keeps.
#[derive(Clone, Debug)]
pub(super) struct Form {
    pub(super) flops: NodeFlops,
    pub(super) keeps: Vec<Keeps>,
}

/// What the gradient to any of some inputs keeps.
#[derive(Clone, Debug)]
pub(super) struct Keeps {
    pub(super) inputs: std::ops::Range<usize>,
    /// Positions in [`CostModel::kept_bytes`].
    pub(super) tensors: Vec<usize>,
}

#[derive(Clone, Debug)]
pub(super) struct Fixed {
    pub(super) form: Form,
    /// It runs in this form when this position of a mask is false.
    pub(super) unless: usize,
    /// A `BatchNormalization` that has a trainable scale or bias.
    pub(super) affine: bool,
}

/// A tensor that is another one, or none of those that count, when a position of a mask is false.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alias {
    pub(super) tensor: usize,
    pub(super) of: Option<usize>,
    pub(super) unless: usize,
}

/// Where an input comes from, as a gradient sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// No gradient passes.
    Stop,
    /// Made by a node; `weight` when nothing but parameters and constants goes into it.
    Made { by: usize, weight: bool },
    /// A parameter.
    Parameter(usize),
}

/// What an output depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Node(usize),
    Parameter(usize),
}

/// Why a node gives other values for the same sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Varies {
    /// It normalizes by the statistics of the batch; not in its `fixed` form.
    Batch,
    /// It draws random numbers.
    Random,
    /// It runs a subgraph, or is not known.
    Unknown,
}

#[derive(Clone, Debug)]
pub(super) struct Edge {
    pub(super) from: usize,
    /// The reading nodes; `usize::MAX` stands for the model's outputs.
    pub(super) to: Vec<usize>,
    pub(super) bytes: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ParameterCost {
    pub(super) elements: u64,
    pub(super) bytes: u64,
    pub(super) slots: u64,
}

impl ParameterCost {
    pub(super) fn slot_bytes(&self) -> u64 {
        self.bytes.saturating_mul(self.slots)
    }
}

impl CostModel {
    /// Returns the costs of a model whose optimizer keeps `slots` tensors for each parameter (SGD 0, with
    /// momentum 1, Adam 2).
    pub fn new(model: &Model, tree: &ModuleTree, slots: u64) -> CostModel {
        CostModel::with_wholes(model, tree, slots, &[])
    }

    /// As [`CostModel::new`], where groups of nodes are one operator when gradients are built.
    pub fn with_wholes(model: &Model, tree: &ModuleTree, slots: u64, wholes: &[Whole]) -> CostModel {
        let graph = &model.graph;
        let mut costs = CostModel {
            nodes: Vec::with_capacity(graph.nodes().len()),
            parameters: Vec::new(),
            kept_bytes: Vec::new(),
            edges: Vec::new(),
            batch: batch(graph),
            still: Vec::new(),
            aliases: Vec::new(),
            units: vec![None; graph.nodes().len()],
            unit_count: 0,
            by_name: HashMap::new(),
            order: Vec::new(),
            stays: HashMap::new(),
            uncounted: Vec::new(),
        };
        let mut of_value: HashMap<ValueId, usize> = HashMap::new();
        let trainable: HashSet<&str> = tree.registration().into_iter().collect();
        for (id, value, tensor) in graph.initializers().filter(|(_, value, _)| trainable.contains(value.name.as_str()))
        {
            let elements = tensor.len() as u64;
            let bytes = elements.saturating_mul(tensor.dtype().size() as u64);
            of_value.insert(id, costs.parameters.len());
            costs.by_name.insert(value.name.clone(), costs.parameters.len());
            costs.parameters.push(ParameterCost { elements, bytes, slots });
        }
        let statistics = tree.iter().flat_map(|(_, module)| &module.statistics).filter_map(|name| graph.find(name));
        let known = tree.registration().into_iter().filter(|name| costs.by_name.contains_key(*name));
        costs.order = known.map(String::from).collect();
        Reader::new(graph, statistics.collect(), &of_value).with_wholes(wholes).read(&mut costs);
        costs.edges = edges(graph);
        costs
    }

    /// Returns these costs where the optimizer keeps another number of tensors for these parameters.
    pub fn with_own_slots(mut self, own: &HashMap<String, u64>) -> CostModel {
        for (name, slots) in own {
            let parameter = self.by_name.get(name).and_then(|index| self.parameters.get_mut(*index));
            parameter.into_iter().for_each(|parameter| parameter.slots = *slots);
        }
        self
    }

    /// Returns what was counted as 0, for a person.
    pub fn notes(&self) -> Vec<String> {
        let mut groups: BTreeMap<Uncounted, (BTreeMap<&str, usize>, &str)> = BTreeMap::new();
        for (node, op, reason) in &self.uncounted {
            let group = groups.entry(*reason).or_insert((BTreeMap::new(), node));
            *group.0.entry(op).or_default() += 1;
        }
        let mut notes = Vec::new();
        for (reason, (ops, first)) in groups {
            let why = match reason {
                Uncounted::Shapes => "shapes are not known",
                Uncounted::Operator => "the operator is not known",
                Uncounted::Subgraph => "how often they run a graph is not known",
            };
            let list: Vec<String> = ops.iter().map(|(op, count)| format!("{count} {op}")).collect();
            notes.push(format!("counted as 0, because {why}: {} (the first is \"{first}\")", list.join(", ")));
        }
        let unknown = self.kept(&self.mask(|_| true)).filter(|bytes| bytes.is_none()).count();
        if unknown > 0 {
            let tensors = if unknown == 1 { "1 tensor" } else { &format!("{unknown} tensors") };
            notes.push(format!("without {tensors} of unknown shape in the bytes kept for the backward pass"));
        }
        notes
    }

    /// Returns how many nodes have no count.
    pub fn uncounted(&self) -> usize {
        self.uncounted.len()
    }

    /// Returns the number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns true for a model without nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Returns the trainable parameters in registration order.
    pub fn trainable(&self) -> &[String] {
        &self.order
    }

    /// Returns the costs for selections that take statistics along: by the name of a running mean, the parameters with
    /// which its `BatchNormalization` is frozen. When none of them trains, it runs by its running statistics. Only
    /// [`CostModel::reach`] looks at this.
    pub fn with_stays(self, stays: HashMap<String, Vec<String>>) -> CostModel {
        CostModel { stays, ..self }
    }

    /// Returns the cost of a step in which exactly the given parameters train, and statistics and Dropout with them.
    pub fn step(&self, trainable: &HashSet<String>) -> StepCost {
        self.step_of(&self.mask(|name| trainable.contains(name)))
    }

    /// Returns the cost of a step in which everything trains but what is in the frozen set.
    pub fn step_frozen(&self, frozen: &HashSet<String>) -> StepCost {
        self.step_while(|name| frozen.contains(name))
    }

    /// As [`CostModel::step_frozen`]; `frozen` answers whether a name is in the set.
    pub fn step_while(&self, frozen: impl Fn(&str) -> bool) -> StepCost {
        self.step_of(&self.mask_while(frozen))
    }

    /// Returns the flops of each node, by position, in a step in which exactly the given parameters
    /// train.
    pub fn node_costs(&self, trainable: &HashSet<String>) -> Vec<Flops> {
        self.flops_of(&self.mask(|name| trainable.contains(name)))
    }

    /// Returns for each parameter, by position, whether it is registered and `trains` says so; after the
    /// parameters, true for each statistic and each Dropout.
    pub(super) fn mask(&self, trains: impl Fn(&str) -> bool) -> Vec<bool> {
        let mut mask = vec![false; self.parameters.len()];
        for name in self.order.iter().filter(|name| trains(name)) {
            mask[self.by_name[name]] = true;
        }
        mask.resize(self.parameters.len() + self.still.len(), true);
        mask
    }

    /// Returns the mask of what is not in a frozen set.
    pub(super) fn mask_while(&self, frozen: impl Fn(&str) -> bool) -> Vec<bool> {
        let mut mask = self.mask(|name| !frozen(name));
        for (name, runs) in self.still.iter().zip(mask.iter_mut().skip(self.parameters.len())) {
            *runs = !frozen(name);
        }
        mask
    }

    /// Returns the position in a mask of a name that is no parameter.
    pub(super) fn stays(&mut self, name: &str) -> usize {
        let known = self.still.iter().position(|known| known == name);
        self.parameters.len()
            + known.unwrap_or_else(|| {
                self.still.push(name.to_string());
                self.still.len() - 1
            })
    }

    /// Adds a tensor that may be kept and returns its position.
    pub(super) fn keep(&mut self, bytes: Option<u64>) -> usize {
        self.kept_bytes.push(bytes);
        self.kept_bytes.len() - 1
    }

    /// Says that a node has no count.
    pub(super) fn miss(&mut self, node: &Node, reason: Uncounted) {
        self.uncounted.push((node.name.clone(), node.op.to_string(), reason));
    }

    /// Returns the position of a trainable parameter.
    pub(super) fn parameter(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }
}
