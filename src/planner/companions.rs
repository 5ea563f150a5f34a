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
mod tests {
    use super::*;
    use crate::graph::{Attributes, Builder, DType, Dim, Fact, Model, OpId, Tensor};

    /// A model under construction, of values `[batch, 4]`.
    struct Net(Builder);

    impl Net {
        fn new() -> (Net, ValueId) {
            let mut b = Builder::new("net");
            let x = b.input("x", Fact::new(DType::F32, vec![Dim::Symbol("batch".into()), Dim::Known(4)]));
            (Net(b), x)
        }

        fn tensor(&mut self, name: &str, shape: &[usize]) -> ValueId {
            let count = shape.iter().product::<usize>();
            let elements = (0..count).map(|index| 0.1 + index as f32 / 8.0 + name.len() as f32).collect();
            self.0.initializer(name, Tensor::from_vec::<f32>(shape, elements))
        }

        fn linear(&mut self, x: ValueId, name: &str) -> ValueId {
            let w = self.tensor(&format!("{name}.weight"), &[4, 4]);
            self.0.op("MatMul", &[x, w], Attributes::none())
        }

        fn norm(&mut self, x: ValueId, [scale, bias, mean, var]: [ValueId; 4]) -> ValueId {
            self.0.op("BatchNormalization", &[x, scale, bias, mean, var], Attributes::none())
        }

        fn norm_of(&mut self, x: ValueId, name: &str) -> ValueId {
            let parts = ["weight", "bias", "running_mean", "running_var"];
            let parts = parts.map(|part| self.tensor(&format!("{name}.{part}"), &[4]));
            self.norm(x, parts)
        }

        fn plain_norm(&mut self, x: ValueId, name: &str) -> ValueId {
            let [one, zero] = ["one", "zero"].map(|part| self.0.constant(part, Tensor::zeros(DType::F32, &[4])));
            let [mean, var] = ["running_mean", "running_var"].map(|part| self.tensor(&format!("{name}.{part}"), &[4]));
            self.norm(x, [one, zero, mean, var])
        }

        fn drop_with(&mut self, x: ValueId, name: &str, flag: Option<bool>, outputs: usize) -> ValueId {
            let ratio = self.0.constant("ratio", Tensor::scalar(0.5f32));
            let flag = flag.map(|flag| self.0.constant("flag", Tensor::scalar(flag)));
            let inputs = [Some(x), Some(ratio), flag];
            let made = self.0.ops(&OpId::standard("Dropout"), &inputs, Attributes::none(), outputs);
            self.0.rename(made[0], name);
            if let Some(mask) = made.get(1) {
                self.0.mark_output(*mask);
            }
            made[0]
        }

        fn drop(&mut self, x: ValueId, name: &str) -> ValueId {
            self.drop_with(x, name, Some(true), 1)
        }

        fn finish(mut self, y: ValueId) -> Model {
            self.0.mark_output(y);
            Model { graph: self.0.finish(), opsets: [(String::new(), 18)].into(), ir_version: 8, ..Model::default() }
        }
    }

    fn shown(analysis: &Analysis, every_dropout: bool) -> Vec<String> {
        let names = analysis.trainable();
        let set = |set: &ParameterSet| set.iter().map(|place| names[place]).collect::<Vec<_>>().join(" ");
        let found = companions(analysis, every_dropout);
        let show = |companion: &Companion| {
            let sets: Vec<String> = companion.freezes_with.iter().map(set).collect();
            format!("{} | {} | {}", companion.names.join(" "), companion.affine.join(" "), sets.join(" or "))
        };
        found.iter().map(show).collect()
    }

    #[test]
    fn statistics_go_with_scale_and_bias_and_dropout_between_frozen_parts() {
        let (mut net, x) = Net::new();
        let y = net.drop(x, "of_input");
        let y = net.linear(y, "body.fc1");
        let y = net.norm_of(y, "body.bn1");
        let y = net.drop(y, "inside");
        let y = net.linear(y, "body.fc2");
        let y = net.plain_norm(y, "body.bn2");
        let y = net.0.unary("Relu", y);
        let y = net.drop(y, "before_head");
        let y = net.linear(y, "head");
        let y = net.drop_with(y, "last", Some(true), 2);
        let body = "body.fc1.weight body.bn1.weight body.bn1.bias body.fc2.weight";
        let all = &format!("{body} head.weight");
        let expected = [
            format!("of_input |  | {all}"),
            "body.bn1.running_mean body.bn1.running_var | body.bn1.weight body.bn1.bias | body.bn1.weight body.bn1.bias"
                .to_string(),
            format!("inside |  | {body} or body.bn1.weight body.bn1.bias"),
            format!("body.bn2.running_mean body.bn2.running_var |  | {all} or {body}"),
            format!("before_head |  | {all} or {body}"),
            format!("last |  | {all} or head.weight"),
        ];
        let analysis = Analysis::of(&net.finish(y)).with_roles(&[], &["one".into(), "zero".into()]).unwrap();
        assert_eq!(shown(&analysis, false), expected);
    }

    #[test]
    fn a_batch_norm_that_several_nodes_run_is_one_companion() {
        let (mut net, x) = Net::new();
        let [mean, var] = ["bn.running_mean", "bn.running_var"].map(|name| net.tensor(name, &[4]));
        let [w, b, other_w, other_b] =
            ["bn.weight", "bn.bias", "twin.weight", "twin.bias"].map(|name| net.tensor(name, &[4]));
        let y = net.norm(x, [w, b, mean, var]);
        let y = net.linear(y, "fc");
        let y = net.norm(y, [w, b, mean, var]);
        let y = net.norm(y, [other_w, other_b, mean, var]);
        let affine = "bn.weight bn.bias twin.weight twin.bias";
        let analysis = Analysis::of(&net.finish(y));
        let expected = format!("bn.running_mean bn.running_var | {affine} | {affine}");
        assert_eq!(shown(&analysis, false), [expected]);
    }

    #[test]
    fn only_a_scale_that_trains_and_one_that_is_computed_count() {
        let (mut net, x) = Net::new();
        let y = net.linear(x, "fc");
        let y = net.norm_of(y, "bn");
        let gamma = net.tensor("shifted.gamma", &[4]);
        let scale = net.0.shift(gamma, 1.0);
        let [bias, mean, var] =
            ["bias", "running_mean", "running_var"].map(|n| net.tensor(&format!("shifted.{n}"), &[4]));
        let y = net.norm(y, [scale, bias, mean, var]);
        let analysis =
            Analysis::of(&net.finish(y)).with_roles(&[], &["bn.bias".into(), "shifted.bias".into()]).unwrap();
        let expected = [
            "bn.running_mean bn.running_var | bn.weight | bn.weight",
            "shifted.running_mean shifted.running_var | shifted.gamma | shifted.gamma",
        ];
        assert_eq!(shown(&analysis, false), expected);
    }

    #[test]
    fn without_running_statistics_there_is_nothing_to_freeze_but_scale_and_bias() {
        let (mut net, x) = Net::new();
        let y = net.linear(x, "fc");
        let [mean, square] = [y, net.0.mul(y, y)].map(|value| net.0.reduce("ReduceMean", value, &[0], false));
        let less = net.0.mul(mean, mean);
        let var = net.0.sub(square, less);
        let [w, b] = ["bn.weight", "bn.bias"].map(|name| net.tensor(name, &[4]));
        let inputs = [y, w, b, mean, var].map(Some);
        let attributes = Attributes::none().with("training_mode", 1);
        let y = net.0.ops(&OpId::standard("BatchNormalization"), &inputs, attributes, 3)[0];
        assert_eq!(shown(&Analysis::of(&net.finish(y)), false), [" | bn.weight bn.bias | bn.weight bn.bias"]);
    }

    #[test]
    fn dropout_is_a_companion_when_it_drops() {
        for (flag, every, expected) in
            [(None, false, 0), (Some(false), false, 0), (Some(true), false, 1), (None, true, 1), (Some(false), true, 1)]
        {
            let (mut net, x) = Net::new();
            let y = net.linear(x, "fc");
            let y = net.drop_with(y, "y", flag, 1);
            let analysis = Analysis::of(&net.finish(y));
            assert_eq!(shown(&analysis, every).len(), expected, "{flag:?} {every}");
        }
    }

    #[test]
    fn each_of_many_blocks_brings_its_own_companions() {
        let (mut net, mut y) = Net::new();
        for index in 0..50 {
            for part in 0..8 {
                y = net.linear(y, &format!("blocks.{index}.fc{part}"));
            }
            y = net.norm_of(y, &format!("blocks.{index}.bn"));
            y = net.drop(y, &format!("drop{index}"));
        }
        let analysis = Analysis::of(&net.finish(y));
        let found = companions(&analysis, false);
        let names = analysis.trainable();
        assert_eq!((found.iter().count(), names.len()), (100, 500));
        for count in (0..=500).step_by(50) {
            let frozen: HashSet<&str> = names[..count].iter().copied().collect();
            let held = found.held(&frozen, &frozen, crate::plan::BatchNorm::Frozen, crate::plan::FrozenDropout::Off);
            assert_eq!(held.statistics.len(), count / 10 * 2);
            assert_eq!(held.dropout_off.len(), count / 10, "the last goes with the norm, which is its module");
        }
    }
}
