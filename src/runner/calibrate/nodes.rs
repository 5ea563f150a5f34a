//! What single nodes took, and what others like them are predicted to take.

use crate::graph::{Dim, Fact, Graph, INTERNAL_DOMAIN, Model, Node, ValueId};
use crate::runner::engine::NodeTime;
use crate::runner::native::{Target, optimize, read};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A node as its time depends on it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Key {
    name: String,
    op: String,
    /// Operator, attributes, and of inputs and outputs dtype, shape and, where the engine prepares constants, whether they
    /// are some.
    kind: u64,
    /// Bytes that it reads and writes.
    bytes: f64,
}

/// Returns the nodes of a model as the engine gets them, for batches of so many rows.
pub(super) fn keys(model: &Model, rows: usize) -> Vec<Key> {
    let model = optimize(model, Target::Processor);
    model.graph.nodes().iter().map(|node| key(&model.graph, node, rows)).collect()
}

fn key(graph: &Graph, node: &Node, rows: usize) -> Key {
    let mut hasher = DefaultHasher::new();
    let op = node.op.to_string();
    op.hash(&mut hasher);
    format!("{:?}", node.attributes).hash(&mut hasher);
    // What is constant is prepared by the engine, for its own operators only.
    let prepares = node.op.domain != INTERNAL_DOMAIN;
    let inputs = read(node);
    let values = || inputs.iter().chain(&node.outputs);
    inputs.len().hash(&mut hasher);
    for id in values() {
        let about = id.map(|id| (graph.fact(id).to_string(), prepares && graph.value(id).initializer.is_some()));
        about.hash(&mut hasher);
    }
    let bytes = values().flatten().map(|id| bytes(graph.fact(*id), rows)).sum();
    Key { name: node.name.clone(), op, kind: hasher.finish(), bytes }
}

/// Returns the bytes of a value; a size that has a name is taken for the rows of a batch.
fn bytes(fact: &Fact, rows: usize) -> f64 {
    let Some(shape) = &fact.shape else { return 0.0 };
    let size = |dim: &Dim| dim.known().unwrap_or(rows) as f64;
    fact.dtype.map_or(0.0, |dtype| dtype.size() as f64) * shape.iter().map(size).product::<f64>()
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sum {
    seconds: f64,
    /// Nodes or bytes.
    over: f64,
}

impl Sum {
    fn add(&mut self, seconds: f64, over: f64) {
        self.seconds += seconds;
        self.over += over;
    }

    fn mean(&self) -> Option<f64> {
        (self.over > 0.0).then(|| self.seconds / self.over)
    }
}

/// What nodes are predicted to take together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Told {
    pub seconds: f64,
    /// Nodes.
    pub nodes: f64,
    /// Seconds of `seconds` that are of nodes unlike all that were timed: these go by operator and bytes.
    pub guessed: f64,
}

/// What nodes took.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct NodeTimes {
    by_name: HashMap<(String, u64), Sum>,
    /// Over bytes: of a node that has other inputs or outputs in another phase.
    by_op_there: HashMap<(String, String), Sum>,
    by_kind: HashMap<u64, Sum>,
    /// Over bytes.
    by_op: HashMap<String, Sum>,
    all: Sum,
}

impl NodeTimes {
    /// Adds what the nodes of a model took. A node that the engine does not name ran as part of another, or not at all:
    /// it takes no time of its own.
    pub(super) fn add(&mut self, model: &Model, rows: usize, times: &[NodeTime]) {
        let model = optimize(model, Target::Processor);
        let graph = &model.graph;
        let owners = owners(graph);
        let mut seconds = vec![0.0; graph.nodes().len()];
        for time in times {
            if let Some(index) = owner(&owners, &time.name) {
                seconds[index] += usual(&time.seconds);
            }
        }
        for (node, seconds) in graph.nodes().iter().zip(seconds) {
            let Key { name, op, kind, bytes } = key(graph, node, rows);
            self.by_kind.entry(kind).or_default().add(seconds, 1.0);
            self.by_op_there.entry((name.clone(), op.clone())).or_default().add(seconds, bytes);
            self.by_name.entry((name, kind)).or_default().add(seconds, 1.0);
            self.by_op.entry(op).or_default().add(seconds, bytes);
            self.all.add(seconds, bytes);
        }
    }

    /// Predicts what these nodes take.
    pub(super) fn tell(&self, keys: &[Key]) -> Told {
        let mut told = Told { nodes: keys.len() as f64, ..Told::default() };
        for key in keys {
            let same = self.by_name.get(&(key.name.clone(), key.kind)).or_else(|| self.by_kind.get(&key.kind));
            match same.and_then(Sum::mean) {
                Some(seconds) => told.seconds += seconds,
                None => {
                    let there = self.by_op_there.get(&(key.name.clone(), key.op.clone())).and_then(Sum::mean);
                    let alike = || self.by_op.get(&key.op).and_then(Sum::mean).or_else(|| self.all.mean());
                    let alike = there.or_else(alike);
                    let seconds = alike.unwrap_or(0.0) * key.bytes;
                    told.seconds += seconds;
                    told.guessed += seconds;
                }
            }
        }
        told
    }
}

/// Returns the nodes by the names that an engine may give what it makes of them: their own, and those of what they
/// compute.
fn owners(graph: &Graph) -> HashMap<&str, usize> {
    let mut owners: HashMap<&str, usize> = HashMap::new();
    for (index, node) in graph.nodes().iter().enumerate() {
        let outputs = node.outputs.iter().flatten().map(|id: &ValueId| graph.value_name(*id));
        outputs.for_each(|name| _ = owners.entry(name).or_insert(index));
    }
    owners.extend(graph.nodes().iter().enumerate().map(|(index, node)| (node.name.as_str(), index)));
    owners
}

/// Returns true where a name tells the time of a node.
#[cfg(test)]
pub(super) fn owned(graph: &Graph, name: &str) -> bool {
    owner(&owners(graph), name).is_some()
}

/// Returns whose time a name tells: the node of the longest name that it begins with.
fn owner(owners: &HashMap<&str, usize>, name: &str) -> Option<usize> {
    let ends = name.char_indices().map(|(at, _)| at).skip(1).chain([name.len()]);
    ends.collect::<Vec<_>>().into_iter().rev().find_map(|end| owners.get(&name[..end]).copied())
}

/// Returns the mean of the faster half: times are whole microseconds, and what else runs only adds to them.
fn usual(seconds: &[f64]) -> f64 {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.truncate(sorted.len().div_ceil(2));
    sorted.iter().sum::<f64>() / sorted.len().max(1) as f64
}
