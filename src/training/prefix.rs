//! What of a train graph is frozen and lies before everything that trains, as a graph of its own.
//!
//! The prefix is every node that depends on the samples and on nothing that trains, moves or is random
//! (`Depends`). A cut is a set of its values: the prefix makes them, the rest of the train graph reads them, and on any
//! graph there may be several, skips among them.
//!
//! - To run the prefix as inference, [`Prefix::deepest`] takes all of it. What it makes of the batch as a whole may be
//!   in it.
//! - To keep values for each sample, [`Prefix::cheapest`] takes the cut that costs least: the seconds to read its values
//!   and to compute the nodes between it and the rest, a minimum cut over nodes and values. Only values whose parts
//!   depend on one sample each are taken. Reading what a cut needs may cost more than computing it: then there is none.
//!
//! What does not depend on samples is no part of a cut: the graphs on both sides hold it as constants. A value's
//! [`fingerprint`](Prefix::fingerprint) tells of the operators and constants that it is made by, so equal ones hold the
//! same for the same samples, in every phase and process.

use super::depends::{Depends, depends, elements};
use super::min_cut::{NEVER, Network};
use crate::cost::node_flops;
use crate::graph::{Attribute, Attributes, Builder, DType, Dim, Graph, Model, Node, NodeId, OpId, Tensor, ValueId};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};

/// What computing and reading take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prices {
    /// Seconds of a flop.
    pub flop: f64,
    /// Seconds of a byte that a node writes.
    pub written: f64,
    /// Seconds of a byte that is read back.
    pub read: f64,
}

/// What a sample has of a value that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Elements along the first axis.
    pub group: usize,
    /// The other axes.
    pub shape: Vec<usize>,
    /// Element type.
    pub dtype: DType,
}

impl Part {
    /// Returns the bytes of a sample.
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.group * self.dtype.size()
    }

    /// Returns the shape of the value for so many samples.
    pub fn of(&self, samples: usize) -> Vec<usize> {
        [&[samples * self.group], self.shape.as_slice()].concat()
    }
}

/// A value that crosses from the prefix to the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct Crossing {
    /// Its name, in both graphs.
    pub name: String,
    /// What each sample has of it; `None` where it is of the whole batch, or follows from the number of samples alone.
    pub part: Option<Part>,
    /// Whether it is the same for every batch of the same size.
    pub counts: bool,
    /// Tells of everything that it is made by.
    pub fingerprint: [u8; 32],
}

/// A train graph in two.
#[derive(Clone, Debug)]
pub struct Split {
    /// From the samples to the values that cross.
    pub prefix: Model,
    /// From them to the outputs.
    pub rest: Model,
    /// The values that cross, in the order of the prefix's outputs.
    pub cut: Vec<Crossing>,
    /// Flops of the prefix for one sample.
    pub flops: u64,
    /// Nodes of the prefix.
    pub nodes: usize,
}

impl Split {
    /// Returns the bytes for each sample of the values that cross.
    pub fn sample_bytes(&self) -> usize {
        self.cut.iter().filter_map(|crossing| crossing.part.as_ref()).map(Part::bytes).sum()
    }
}

/// The frozen part of a train graph before everything that trains.
pub struct Prefix<'a> {
    model: &'a Model,
    /// The graph with all that is frozen as constants.
    graph: Graph,
    data: HashSet<&'a str>,
    /// Outputs of the train graph that are read.
    outputs: Vec<ValueId>,
    depends: Vec<Depends>,
    /// Elements for each sample.
    elements: HashMap<ValueId, usize>,
    consumers: Vec<Vec<NodeId>>,
}

impl<'a> Prefix<'a> {
    /// Looks at a train graph; `data` names the inputs that samples come in by, `outputs` what is read of it, and `frozen`
    /// the inputs that stay as they are, with their elements: constants of the prefix, and inputs of the rest. `None` where
    /// one of the outputs does not depend on the step.
    pub fn of(
        model: &'a Model,
        data: &[&'a str],
        outputs: &[&str],
        frozen: &BTreeMap<String, Tensor>,
    ) -> Option<Prefix<'a>> {
        let graph = model.graph.with_inputs_fixed(frozen);
        let data: HashSet<&str> = data.iter().copied().collect();
        let outputs: Vec<ValueId> = outputs.iter().filter_map(|name| graph.find(name)).collect();
        let depends = depends(&graph, &data);
        let of_step = |id: &ValueId| depends.get(id.0) == Some(&Depends::Step);
        if !outputs.iter().all(of_step) {
            return None;
        }
        let (elements, consumers) = (elements(&graph, &data), graph.consumers());
        Some(Prefix { model, graph, data, outputs, depends, elements, consumers })
    }

    /// Returns the cut after all nodes of the prefix; `None` where there is none.
    pub fn deepest(&self) -> Option<Vec<ValueId>> {
        let crosses = |id: &ValueId| self.is_made(*id) && self.readers(*id).any(|node| !self.is_inside(node));
        let cut: Vec<ValueId> = self.made().filter(crosses).collect();
        (!cut.is_empty()).then_some(cut)
    }

    /// Returns the cut of values that are kept for each sample which costs least in a step; `None` where computing costs
    /// less than reading any.
    ///
    /// What samples come in by is not read where all that follows from it can be kept: then the next phase can grow from it,
    /// too.
    pub fn cheapest(&self, prices: &Prices) -> Option<Vec<ValueId>> {
        self.cut_at(prices, NEVER).or_else(|| self.cut_at(prices, 1))
    }

    /// Returns the cheapest cut where reading what samples come in by has a price.
    fn cut_at(&self, prices: &Prices, data: u64) -> Option<Vec<ValueId>> {
        let graph = &self.graph;
        let by_sample = |id: ValueId| matches!(self.on(id), Depends::Sample(_) | Depends::Count);
        let inside = |node: &Node| node.outputs.iter().flatten().all(|id| by_sample(*id)) && !self.is_fixed(node);
        let nodes: Vec<(NodeId, &Node)> = graph.node_ids().filter(|(_, node)| inside(node)).collect();
        let place: HashMap<NodeId, usize> = nodes.iter().map(|(id, _)| *id).zip(2..).collect();
        let values = graph.values().map(|(id, _)| id).filter(|id| match graph.producer(*id) {
            Some(node) => place.contains_key(&node),
            None => self.is_data(*id),
        });
        let values: Vec<ValueId> = values.collect();
        let (source, sink) = (0, 1);
        let mut network = Network::new(2 + nodes.len() + values.len());
        let one = self.of_one_sample();
        let seconds: Vec<u64> = nodes.iter().map(|(id, node)| price(self.seconds(&one, *id, node, prices))).collect();
        for ((id, _), seconds) in nodes.iter().zip(&seconds) {
            network.edge(source, place[id], *seconds);
        }
        for (value, vertex) in values.iter().zip(2 + nodes.len()..) {
            match graph.producer(*value) {
                Some(node) => network.edge(place[&node], vertex, self.price(*value, prices.read)),
                None => {
                    let elsewhere = self.readers_by_id(*value).any(|reader| !place.contains_key(&reader));
                    network.edge(source, vertex, if elsewhere { 1 } else { data });
                }
            }
            for reader in self.readers_by_id(*value) {
                network.edge(vertex, place.get(&reader).copied().unwrap_or(sink), NEVER);
            }
        }
        let side = network.cut(source, sink);
        let kept = values.iter().zip(2 + nodes.len()..).filter(|(value, vertex)| {
            let by = graph.producer(**value).and_then(|node| place.get(&node));
            by.is_some_and(|by| side[*by]) && !side[*vertex]
        });
        let cut: Vec<ValueId> = kept.map(|(value, _)| *value).collect();
        let unread = |(value, vertex): (&ValueId, usize)| {
            let inside = || self.readers_by_id(*value).all(|reader| place.contains_key(&reader));
            data < NEVER || side[vertex] || !self.is_data(*value) || !inside()
        };
        let possible = values.iter().zip(2 + nodes.len()..).all(unread);
        let again = nodes.iter().zip(&seconds).filter(|((id, _), _)| !side[place[id]]).map(|(_, seconds)| *seconds);
        let cost = cut.iter().map(|id| self.price(*id, prices.read)).chain(again).fold(0u64, u64::saturating_add);
        let all = seconds.iter().copied().fold(0u64, u64::saturating_add);
        let of_samples = cut.iter().any(|id| matches!(self.on(*id), Depends::Sample(_)));
        (possible && of_samples && cost < all).then_some(cut)
    }

    /// Returns the values that can be kept for each sample.
    pub fn samples(&self) -> Vec<ValueId> {
        self.made().filter(|id| self.part(*id).is_some()).collect()
    }

    /// Returns why what follows a cut of samples is not kept: the first node that brings samples together, or whose effect
    /// on them is not known.
    pub fn ends_at(&self) -> Option<&Node> {
        let graph = &self.graph;
        let first = |node: &&Node| {
            let reads = node.inputs.iter().flatten().any(|id| matches!(self.on(*id), Depends::Sample(_)));
            reads && node.outputs.iter().flatten().any(|id| self.on(*id) == Depends::Batch)
        };
        graph.nodes().iter().find(first)
    }

    /// Returns the two graphs of a cut.
    pub fn split(&self, cut: &[ValueId]) -> Split {
        let graph = &self.graph;
        let one = self.of_one_sample();
        let prefix = part(graph, "prefix", cut, &HashSet::new(), "");
        let given: HashSet<ValueId> = cut.iter().copied().collect();
        let rest = part(&self.model.graph, graph.name(), &self.outputs, &given, "");
        let nodes = leading(graph, cut, &HashSet::new());
        let flops = nodes.iter().filter_map(|id| node_flops(&one, one.node(*id)).ok());
        let flops = flops.fold(0u64, |sum, flops| sum.saturating_add(flops.forward)) / self.fixed();
        let mut prints = HashMap::new();
        let crossing = |id: &ValueId| Crossing {
            name: graph.value_name(*id).to_string(),
            part: self.part(*id),
            counts: self.on(*id) == Depends::Count,
            fingerprint: self.print(*id, &mut prints),
        };
        let cut = cut.iter().map(crossing).collect();
        let nodes = nodes.len();
        Split { prefix: self.model.with_graph(prefix), rest: self.model.with_graph(rest), cut, flops, nodes }
    }

    /// Returns the graph from values that were kept in another phase, by their fingerprints, to the values of a cut;
    /// `None` where these need more than them. The inputs have the names of the values in this graph, which are returned
    /// with it in the order of the fingerprints, and `/kept` after them.
    pub fn growth(&self, cut: &[ValueId], kept: &[[u8; 32]]) -> Option<(Model, Vec<String>)> {
        let graph = &self.graph;
        let mut prints = HashMap::new();
        let made: HashMap<[u8; 32], ValueId> = self
            .made()
            .filter(|id| matches!(self.on(*id), Depends::Sample(0)))
            .map(|id| (self.print(id, &mut prints), id))
            .collect();
        let given: Vec<ValueId> = kept.iter().map(|print| made.get(print).copied()).collect::<Option<_>>()?;
        let known: HashSet<ValueId> = given.iter().copied().collect();
        let wanted: Vec<ValueId> =
            cut.iter().copied().filter(|id| matches!(self.on(*id), Depends::Sample(_))).collect();
        let grown = part(graph, "growth", &wanted, &known, KEPT);
        let all = grown.inputs().iter().all(|id| grown.value_name(*id).ends_with(KEPT));
        let names = given.iter().map(|id| format!("{}{KEPT}", graph.value_name(*id))).collect();
        all.then(|| (self.model.with_graph(grown), names))
    }

    /// Returns what tells of everything that a value is made by.
    pub fn fingerprint(&self, value: ValueId) -> [u8; 32] {
        self.print(value, &mut HashMap::new())
    }

    fn on(&self, value: ValueId) -> Depends {
        self.depends.get(value.0).copied().unwrap_or(Depends::Step)
    }

    fn is_made(&self, value: ValueId) -> bool {
        matches!(self.on(value), Depends::Sample(_) | Depends::Count | Depends::Batch)
    }

    fn is_data(&self, value: ValueId) -> bool {
        let graph = &self.graph;
        graph.inputs().contains(&value) && self.data.contains(graph.value_name(value))
    }

    fn is_inside(&self, node: &Node) -> bool {
        node.outputs.iter().flatten().all(|id| self.on(*id) != Depends::Step)
    }

    fn is_fixed(&self, node: &Node) -> bool {
        node.outputs.iter().flatten().all(|id| self.on(*id) == Depends::Nothing)
    }

    /// Returns the values that nodes make, in order.
    fn made(&self) -> impl Iterator<Item = ValueId> {
        self.graph.nodes().iter().flat_map(|node| node.outputs.iter().flatten().copied())
    }

    fn readers_by_id(&self, value: ValueId) -> impl Iterator<Item = NodeId> {
        self.consumers.get(value.0).into_iter().flatten().copied()
    }

    fn readers(&self, value: ValueId) -> impl Iterator<Item = &Node> {
        self.readers_by_id(value).map(|id| self.graph.node(id))
    }

    /// Returns the size of the batch of a model that has a fixed one; 1 where it is open.
    fn fixed(&self) -> u64 {
        let graph = &self.graph;
        let sizes =
            graph.inputs().iter().filter(|id| self.is_data(**id)).filter_map(|id| graph.fact(*id).dim(0)?.known());
        sizes.max().unwrap_or(1).max(1) as u64
    }

    /// Returns the graph for a batch of one sample, where the batch is open.
    fn of_one_sample(&self) -> Graph {
        let graph = &self.graph;
        let dims = graph.inputs().iter().filter(|id| self.is_data(**id)).filter_map(|id| graph.fact(*id).dim(0));
        let names = dims.filter_map(|dim| if let Dim::Symbol(name) = dim { Some((name.clone(), 1)) } else { None });
        graph.with_sizes(&names.collect())
    }

    fn bytes(&self, value: ValueId) -> Option<usize> {
        Some(self.elements.get(&value)? * self.graph.fact(value).dtype?.size())
    }

    fn part(&self, value: ValueId) -> Option<Part> {
        if self.on(value) != Depends::Sample(0) {
            return None;
        }
        let fact = self.graph.fact(value);
        let shape = fact.shape.as_ref()?.get(1..)?.iter().map(Dim::known).collect::<Option<Vec<usize>>>()?;
        let inner = shape.iter().product::<usize>();
        let elements = *self.elements.get(&value)?;
        let whole = inner > 0 && elements.is_multiple_of(inner);
        whole.then(|| Part { group: elements / inner, shape, dtype: fact.dtype.unwrap_or(DType::F32) })
    }

    /// Returns the price of keeping a value.
    fn price(&self, value: ValueId, byte: f64) -> u64 {
        match self.on(value) {
            Depends::Count => 1,
            Depends::Sample(_) => self.part(value).map_or(NEVER, |part| price(part.bytes() as f64 * byte)),
            _ => NEVER,
        }
    }

    fn seconds(&self, one: &Graph, id: NodeId, node: &Node, prices: &Prices) -> f64 {
        let flops = node_flops(one, one.node(id)).map_or(0, |flops| flops.forward) / self.fixed();
        let bytes: usize = node.outputs.iter().flatten().filter_map(|id| self.bytes(*id)).sum();
        flops as f64 * prices.flop + bytes as f64 * prices.written
    }

    fn print(&self, value: ValueId, known: &mut HashMap<ValueId, [u8; 32]>) -> [u8; 32] {
        let graph = &self.graph;
        let mut open = vec![value];
        while let Some(next) = open.last().copied() {
            if known.contains_key(&next) {
                open.pop();
                continue;
            }
            let node = graph.producer(next).map(|id| graph.node(id));
            let unknown: Vec<ValueId> = node
                .iter()
                .flat_map(|node| node.inputs.iter().flatten())
                .filter(|id| !known.contains_key(id))
                .copied()
                .collect();
            if !unknown.is_empty() {
                open.extend(unknown);
                continue;
            }
            let print = match node {
                Some(node) => self.print_of_node(next, node, known),
                None => print_of_source(graph, next),
            };
            known.insert(next, print);
        }
        known[&value]
    }

    fn print_of_node(&self, value: ValueId, node: &Node, known: &HashMap<ValueId, [u8; 32]>) -> [u8; 32] {
        let mut hasher = Sha256::new();
        let version = self.model.opsets.get(&node.op.domain).copied().unwrap_or(0);
        let output = node.outputs.iter().position(|id| *id == Some(value));
        hasher.update(format!("node {} {version} {output:?} {}\n", node.op, node.inputs.len()));
        for (name, attribute) in node.attributes.iter() {
            match attribute {
                Attribute::Tensor(tensor) => {
                    hasher.update(format!("{name} "));
                    hash_tensor(&mut hasher, tensor);
                }
                other => hasher.update(format!("{name} {other:?}\n")),
            }
        }
        for input in &node.inputs {
            hasher.update(input.map_or([0; 32], |id| known[&id]));
        }
        hasher.finalize().into()
    }
}

/// What the names of the inputs of a growth end with.
const KEPT: &str = "/kept";

fn price(seconds: f64) -> u64 {
    // Picoseconds; one at least, so that of two cuts which cost nothing the deeper one is taken.
    ((seconds * 1e12) as u64).clamp(1, NEVER / 1_000_000)
}

fn print_of_source(graph: &Graph, value: ValueId) -> [u8; 32] {
    let mut hasher = Sha256::new();
    match &graph.value(value).initializer {
        Some(tensor) => hash_tensor(&mut hasher, tensor),
        None => hasher.update(format!("input {} {}\n", graph.value_name(value), graph.fact(value))),
    }
    hasher.finalize().into()
}

fn hash_tensor(hasher: &mut Sha256, tensor: &Tensor) {
    hasher.update(format!("tensor {} {:?}\n", tensor.dtype(), tensor.shape()));
    hasher.update(tensor.bytes());
}

/// Returns the nodes that lead from `given` values, inputs and initializers to `outputs`.
fn leading(graph: &Graph, outputs: &[ValueId], given: &HashSet<ValueId>) -> Vec<NodeId> {
    let mut needed: HashSet<ValueId> = outputs.iter().copied().collect();
    let mut nodes = Vec::new();
    for (id, node) in graph.node_ids().collect::<Vec<_>>().into_iter().rev() {
        if node.outputs.iter().flatten().any(|output| needed.contains(output) && !given.contains(output)) {
            nodes.push(id);
            needed.extend(node.inputs.iter().flatten());
            needed.extend(node.captured().filter_map(|name| graph.find(name)));
        }
    }
    nodes.reverse();
    nodes
}

/// Returns the graph of these nodes. The values that are `given` become inputs with `suffix` after their names; with one,
/// an output that is given is passed on.
fn part(graph: &Graph, name: &str, outputs: &[ValueId], given: &HashSet<ValueId>, suffix: &str) -> Graph {
    let nodes = leading(graph, outputs, given);
    let mut needed: HashSet<ValueId> = outputs.iter().copied().collect();
    for node in nodes.iter().map(|id| graph.node(*id)) {
        needed.extend(node.inputs.iter().flatten());
        needed.extend(node.captured().filter_map(|name| graph.find(name)));
    }
    let mut b = Builder::new(name);
    b.reserve(graph.values().map(|(_, value)| value.name.clone()));
    let mut map: HashMap<ValueId, ValueId> = HashMap::new();
    for id in graph.inputs().iter().filter(|id| needed.contains(id)) {
        map.insert(*id, b.input(graph.value_name(*id), graph.fact(*id).clone()));
    }
    for (id, value) in graph.values().filter(|(id, _)| needed.contains(id) && given.contains(id)) {
        map.insert(id, b.input(&format!("{}{suffix}", value.name), value.fact.clone()));
    }
    for (id, ..) in graph.initializers().filter(|(id, ..)| needed.contains(id)) {
        map.insert(id, b.copy_value(graph, id));
    }
    for node in nodes.iter().map(|id| graph.node(*id)) {
        b.enter(node.origin.clone(), &node.name);
        let inputs: Vec<Option<ValueId>> = node.inputs.iter().map(|input| input.map(|id| map[&id])).collect();
        let mut outputs = Vec::with_capacity(node.outputs.len());
        for output in &node.outputs {
            // What is given stands for itself, also where its node is needed for another output.
            outputs.push(output.map(|id| match given.contains(&id) {
                true => {
                    let again = b.unique("again");
                    b.declare(&again, graph.fact(id).clone())
                }
                false => {
                    let new = b.copy_value(graph, id);
                    map.insert(id, new);
                    new
                }
            }));
        }
        b.push_node(Node { inputs, outputs, ..node.clone() });
    }
    for output in outputs {
        if given.contains(output) && !suffix.is_empty() {
            let value = b.ops(&OpId::standard("Identity"), &[Some(map[output])], Attributes::none(), 1)[0];
            b.refine(value, graph.fact(*output));
            b.rename(value, graph.value_name(*output));
            b.mark_output(value);
        } else {
            b.mark_output(map[output]);
        }
    }
    b.finish()
}
