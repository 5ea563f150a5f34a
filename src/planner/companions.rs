//! Finds what goes with frozen parameters without being one, from a model and its module tree.
//!
//! A BatchNormalization with trainable scale or bias goes with these. One without, and a Dropout, goes
//!
//! - with the frozen prefix: everything upstream, and the first parameters downstream. What stands
//!   just before the part that trains belongs to that part;
//! - or with its module: the parameters of the nearest enclosing module that has any.

use super::Analysis;
use crate::graph::{Graph, Node, NodeId, ValueId};
use crate::modules::{ModuleId, ModuleTree, Role};
use crate::plan::{Companion, CompanionKind, Companions, ParameterSet};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

/// Returns the companions of an analysed model. A Dropout is one when it drops while the model trains: when its
/// `training_mode` is a constant that is true, or by `every_dropout`, where the run makes all of them random.
pub fn companions(analysis: &Analysis, every_dropout: bool) -> Companions {
    let names = analysis.trainable();
    let reader = Reader::new(analysis, &names);
    let graph = reader.graph;
    let mut groups: Vec<Group> = Vec::new();
    let mut of_statistic: HashMap<ValueId, usize> = HashMap::new();
    for (id, node) in graph.node_ids() {
        if node.op.is("BatchNormalization") {
            let values = [3, 4].into_iter().filter_map(|index| node.input(index));
            let statistics: Vec<ValueId> = values.filter(|value| reader.statistics.contains(value)).collect();
            let affine = reader.affine(node);
            if statistics.is_empty() && affine.is_empty() {
                continue;
            }
            let known = statistics.iter().find_map(|value| of_statistic.get(value).copied());
            let place = known.unwrap_or(groups.len());
            if known.is_none() {
                groups.push(Group::new(CompanionKind::Statistics, id));
            }
            let group = &mut groups[place];
            group.nodes.insert(id);
            group.affine.extend(&affine);
            for value in statistics {
                of_statistic.insert(value, place);
                if !group.names.contains(&value) {
                    group.names.push(value);
                }
            }
        } else if node.op.is("Dropout") && (every_dropout || is_told_to_train(graph, node)) {
            groups.extend(node.output(0).map(|y| Group { names: vec![y], ..Group::new(CompanionKind::Dropout, id) }));
        }
    }
    let list = groups.iter().map(|group| reader.companion(group, &names)).collect();
    Companions::new(names.iter().map(ToString::to_string), list)
}

fn is_told_to_train(graph: &Graph, node: &Node) -> bool {
    let flag = node.input(2).and_then(|flag| graph.constant(flag)?.to_f64s());
    flag.is_some_and(|flag| flag.first().is_some_and(|value| *value != 0.0))
}

/// Nodes that are one companion.
struct Group {
    kind: CompanionKind,
    nodes: BTreeSet<NodeId>,
    names: Vec<ValueId>,
    affine: ParameterSet,
}

impl Group {
    fn new(kind: CompanionKind, node: NodeId) -> Group {
        Group { kind, nodes: BTreeSet::from([node]), names: Vec::new(), affine: ParameterSet::default() }
    }
}

struct Reader<'a> {
    graph: &'a Graph,
    tree: &'a ModuleTree,
    parameters: HashMap<ValueId, usize>,
    statistics: HashSet<ValueId>,
    inputs: HashSet<ValueId>,
    consumers: Vec<Vec<NodeId>>,
    /// The parameters that each node's outputs depend on.
    upstream: Vec<Rc<ParameterSet>>,
    /// Whether an input of the model goes into it.
    of_data: Vec<bool>,
    /// The parameters in and below each module.
    below: HashMap<ModuleId, ParameterSet>,
}

impl<'a> Reader<'a> {
    fn new(analysis: &'a Analysis, names: &[&str]) -> Reader<'a> {
        let (graph, tree) = (&analysis.model.graph, &analysis.tree);
        let places: HashMap<&str, usize> = names.iter().copied().zip(0..).collect();
        let statistics = analysis.parameters.iter().filter(|parameter| parameter.role == Role::Statistic);
        let mut reader = Reader {
            graph,
            tree,
            parameters: names.iter().zip(0..).filter_map(|(name, place)| Some((graph.find(name)?, place))).collect(),
            statistics: statistics.map(|parameter| parameter.value).collect(),
            inputs: graph.inputs().iter().copied().collect(),
            consumers: graph.consumers(),
            upstream: Vec::with_capacity(graph.nodes().len()),
            of_data: Vec::with_capacity(graph.nodes().len()),
            below: HashMap::new(),
        };
        for node in graph.nodes() {
            let sources: Vec<ValueId> = sources(graph, node).collect();
            reader.of_data.push(sources.iter().any(|value| reader.is_of_data(*value)));
            let mut set: Rc<ParameterSet> = Rc::default();
            for other in sources.iter().filter_map(|value| reader.set_of(*value)) {
                if set.is_subset(&other) {
                    set = other;
                } else if !other.is_subset(&set) {
                    Rc::make_mut(&mut set).extend(&other);
                }
            }
            reader.upstream.push(set);
        }
        let modules: Vec<ModuleId> = tree.iter().map(|(id, _)| id).collect();
        for id in modules.into_iter().rev() {
            let module = tree.module(id);
            let held = module.parameters.iter().chain(&module.shared).filter_map(|name| places.get(name.as_str()));
            let mut set = reader.below.remove(&id).unwrap_or_default();
            held.for_each(|place| set.insert(*place));
            if let Some(parent) = module.parent {
                reader.below.entry(parent).or_default().extend(&set);
            }
            reader.below.insert(id, set);
        }
        reader
    }

    fn is_of_data(&self, value: ValueId) -> bool {
        match self.graph.producer(value) {
            Some(NodeId(by)) => self.of_data.get(by).copied().unwrap_or(true),
            None => self.inputs.contains(&value),
        }
    }

    /// Returns the parameters that a value is or depends on.
    fn set_of(&self, value: ValueId) -> Option<Rc<ParameterSet>> {
        if let Some(NodeId(by)) = self.graph.producer(value) {
            return self.upstream.get(by).cloned();
        }
        let mut set = ParameterSet::default();
        set.insert(*self.parameters.get(&value)?);
        Some(Rc::new(set))
    }

    /// Returns the trainable parameters that scale and bias are, or are made of.
    fn affine(&self, node: &Node) -> ParameterSet {
        let values = [1, 2].into_iter().filter_map(|index| node.input(index));
        self.weights(values)
    }

    /// Returns the trainable parameters that those of the values which no data goes into are made of.
    fn weights(&self, values: impl Iterator<Item = ValueId>) -> ParameterSet {
        let mut set = ParameterSet::default();
        for value in values.filter(|value| !self.is_of_data(*value)) {
            self.set_of(value).into_iter().for_each(|other| set.extend(&other));
        }
        set
    }

    /// Returns the parameters of the first node after this one, in evaluation order, that reads any.
    fn next(&self, node: NodeId) -> ParameterSet {
        let mut open: BTreeSet<NodeId> = self.readers(node).collect();
        while let Some(reader) = open.pop_first() {
            let found = self.weights(sources(self.graph, self.graph.node(reader)));
            if !found.is_empty() {
                return found;
            }
            open.extend(self.readers(reader));
        }
        ParameterSet::default()
    }

    fn readers(&self, node: NodeId) -> impl Iterator<Item = NodeId> {
        let outputs = self.graph.node(node).outputs.iter().flatten();
        outputs.flat_map(|value| self.consumers.get(value.0).into_iter().flatten().copied())
    }

    /// Returns the parameters of the nearest module around a node that has any.
    fn around(&self, node: NodeId) -> Option<&ParameterSet> {
        let mut module = Some(self.tree.module_of_node(node));
        while let Some(id) = module {
            if let Some(set) = self.below.get(&id).filter(|set| !set.is_empty()) {
                return Some(set);
            }
            module = self.tree.module(id).parent;
        }
        None
    }

    fn companion(&self, group: &Group, names: &[&str]) -> Companion {
        let freezes_with = if group.affine.is_empty() {
            let (mut prefix, mut module) = (ParameterSet::default(), ParameterSet::default());
            for node in &group.nodes {
                let upstream = self.upstream.get(node.0).filter(|set| !set.is_empty());
                if let Some(upstream) = upstream {
                    prefix.extend(upstream);
                    prefix.extend(&self.next(*node));
                }
                self.around(*node).into_iter().for_each(|set| module.extend(set));
            }
            if prefix == module { vec![module] } else { vec![prefix, module] }
        } else {
            vec![group.affine.clone()]
        };
        let first = group.nodes.first().copied();
        let path = first.map(|node| self.tree.module(self.tree.module_of_node(node)).path.clone());
        Companion {
            kind: group.kind,
            node: first.map(|node| self.graph.node(node).name.clone()).unwrap_or_default(),
            module: path.unwrap_or_default(),
            names: group.names.iter().map(|value| self.graph.value_name(*value).to_string()).collect(),
            affine: group.affine.iter().filter_map(|place| Some((*names.get(place)?).to_string())).collect(),
            freezes_with: freezes_with.into_iter().filter(|set| !set.is_empty()).collect(),
        }
    }
}

/// Returns what a node reads, also in its subgraphs.
fn sources<'a>(graph: &'a Graph, node: &'a Node) -> impl Iterator<Item = ValueId> + 'a {
    let captured = node.captured().filter_map(|name| graph.find(name));
    node.inputs.iter().flatten().copied().chain(captured)
}

#[cfg(test)]
mod tests;
