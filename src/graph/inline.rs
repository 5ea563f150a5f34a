//! Puts the bodies of functions in the place of their calls.
//!
//! Every node that comes from a body keeps its own metadata, gets that of the call where it has
//! none of that key, and under [`FUNCTION_PATH`] the calls it comes from. Names are the call's
//! name, a slash, the name in the body; outputs keep the name that the call gives them.

use super::upgrade::{UpgradeError, graph_to_known, is_known};
use super::{
    Attribute, Attributes, Builder, Function, FunctionId, Graph, Model, Node, OpId, Origin, Subgraph, ValueId, upgrade,
};
use crate::error::ErrorKind;
use std::collections::HashMap;

/// Metadata key of the calls that a node comes from, outermost first: the name of each calling
/// node, a colon, the function's name, joined by slashes.
pub const FUNCTION_PATH: &str = "freeze-plan.function";

/// Most nodes that a model may have once its functions are inlined.
const MOST_NODES: usize = 250_000;
/// Most memory that the names and lists of those nodes may take, in bytes.
const MOST_BYTES: usize = 1 << 29;
/// How deep calls may nest.
const DEEPEST: usize = 64;

/// Functions that cannot be inlined.
#[derive(Debug, thiserror::Error, PartialEq)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum InlineError {
    #[error("function \"{function}\" calls itself")]
    Recursive { function: String },
    #[error("calls of functions nest deeper than {most} at function \"{function}\"")]
    Deep { function: String, most: usize },
    #[error("the model has more than {most} {what} once its functions are inlined")]
    Large { most: usize, what: &'static str },
    #[error("function \"{function}\" is defined twice")]
    Twice { function: String },
    #[error("node \"{node}\" calls function \"{function}\" with {found} {what}, expected at most {expected}")]
    Arity { node: String, function: String, what: &'static str, found: usize, expected: usize },
    #[error("node \"{node}\" of function \"{function}\" reads \"{value}\" in a subgraph, which the call leaves out")]
    Absent { node: String, function: String, value: String },
    #[error("function \"{function}\": {source}")]
    Upgrade { function: String, source: UpgradeError },
    #[error(transparent)]
    Model(#[from] UpgradeError),
}

impl InlineError {
    /// Returns the group this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        match self {
            InlineError::Upgrade { source, .. } | InlineError::Model(source) => source.kind(),
            InlineError::Large { .. } | InlineError::Deep { .. } => ErrorKind::Unsupported,
            _ => ErrorKind::BadInput,
        }
    }
}

/// A model without functions.
#[derive(Clone, Debug)]
pub struct Inlined {
    /// The model.
    pub model: Model,
    /// For each node its position in the graph before, none for those of a body.
    pub positions: Vec<Option<usize>>,
}

/// Returns the model without functions. Where a body has another opset than the model, both are
/// brought to the range that [`upgrade`] leaves as it is.
///
/// # Errors
/// A function calls itself, the result would be too large, or a call does not fit its function.
pub fn inline(model: Model) -> Result<Inlined, InlineError> {
    if model.functions.is_empty() {
        let positions = (0..model.graph.nodes().len()).map(Some).collect();
        return Ok(Inlined { model, positions });
    }
    let model = &model;
    let mut functions = HashMap::new();
    for function in &model.functions {
        if functions.insert(&function.id, function).is_some() {
            return Err(InlineError::Twice { function: function.id.to_string() });
        }
    }
    let mut counter = Counter { functions: &functions, known: HashMap::new() };
    let count = counter.nodes(&model.graph, 0)?;
    if count.nodes > MOST_NODES.max(model.graph.nodes().len()) {
        return Err(InlineError::Large { most: MOST_NODES, what: "nodes" });
    }
    if count.bytes > MOST_BYTES {
        return Err(InlineError::Large { most: MOST_BYTES, what: "bytes of names and attributes" });
    }
    let opset = |function: &&Function| function.opsets.get("").copied();
    let used = functions.values().copied().filter(|function| counter.known.contains_key(&function.id));
    let mixed = used.into_iter().filter_map(|function| opset(&function)).any(|version| version != model.opset());
    let model = if mixed { upgrade(model)? } else { model.clone() };
    let inliner = Inliner { functions: &functions, mixed };
    let mut positions = Vec::new();
    let graph = inliner.graph(&model.graph, &[], &mut positions)?;
    let mut opsets = model.opsets.clone();
    for (domain, version) in model.functions.iter().flat_map(|function| &function.opsets) {
        opsets.entry(domain.clone()).or_insert(*version);
    }
    Ok(Inlined { model: Model { graph, opsets, functions: Vec::new(), ..model }, positions })
}

type Functions<'a> = HashMap<&'a FunctionId, &'a Function>;

#[derive(Clone, Copy)]
struct Count {
    nodes: usize,
    height: usize,
    /// Names that get that of the call before them.
    names: usize,
    bytes: usize,
}

struct Counter<'a> {
    functions: &'a Functions<'a>,
    known: HashMap<FunctionId, Option<Count>>,
}

impl Counter<'_> {
    /// Returns how many nodes a graph has once calls are inlined, and how deep they nest.
    fn nodes(&mut self, graph: &Graph, depth: usize) -> Result<Count, InlineError> {
        let mut count = Count { nodes: 0, height: 0, names: 0, bytes: 0 };
        for node in graph.nodes() {
            count.nodes = count.nodes.saturating_add(1);
            count.names = count.names.saturating_add(2 + node.outputs.len());
            count.bytes = count.bytes.saturating_add(memory(graph, node));
            let inner = subgraphs(node).map(|inner| self.nodes(&inner.graph, depth)).collect::<Vec<_>>();
            let call = self.functions.get(&FunctionId::of(node)).map(|function| self.call(function, depth));
            for part in inner.into_iter().chain(call) {
                let part = part?;
                count.nodes = count.nodes.saturating_add(part.nodes);
                count.names = count.names.saturating_add(part.names);
                let prefixes = part.names.saturating_mul(node.name.len() + 1);
                count.bytes = count.bytes.saturating_add(part.bytes).saturating_add(prefixes);
                count.height = count.height.max(part.height);
            }
        }
        Ok(count)
    }

    fn call(&mut self, function: &Function, depth: usize) -> Result<Count, InlineError> {
        let name = || function.id.to_string();
        let deep = || InlineError::Deep { function: name(), most: DEEPEST };
        match self.known.get(&function.id) {
            Some(Some(count)) if count.height + depth > DEEPEST => return Err(deep()),
            Some(Some(count)) => return Ok(*count),
            Some(None) => return Err(InlineError::Recursive { function: name() }),
            None if depth >= DEEPEST => return Err(deep()),
            None => {}
        }
        self.known.insert(function.id.clone(), None);
        let body = self.nodes(&function.graph, depth + 1)?;
        let count = Count { height: body.height + 1, ..body };
        self.known.insert(function.id.clone(), Some(count));
        Ok(count)
    }
}

/// Returns the memory of what a copy of a node does not share with it, in bytes.
fn memory(graph: &Graph, node: &Node) -> usize {
    let outputs = node.outputs.iter().flatten().map(|id| graph.value_name(*id).len());
    let metadata = node.metadata.iter().map(|(key, value)| key.len() + value.len());
    let lists = node.attributes.iter().map(|(name, value)| {
        name.len()
            + match value {
                Attribute::Ints(list) => 8 * list.len(),
                Attribute::Floats(list) => 4 * list.len(),
                Attribute::Strings(list) => 32 * list.len(),
                _ => 0,
            }
    });
    let own = node.name.len() + node.op.name.len() + 8 * (node.inputs.len() + node.outputs.len());
    outputs.chain(metadata).chain(lists).fold(own, usize::saturating_add)
}

fn subgraphs(node: &Node) -> impl Iterator<Item = &Subgraph> {
    node.attributes.iter().filter_map(|(_, value)| match value {
        Attribute::Graph(inner) => Some(inner.as_ref()),
        _ => None,
    })
}

struct Inliner<'a> {
    functions: &'a Functions<'a>,
    mixed: bool,
}

impl Inliner<'_> {
    /// Returns a graph without calls. `path` is the calls that it is inside of; `positions` gets
    /// the old position of each node.
    fn graph(&self, graph: &Graph, path: &[String], positions: &mut Vec<Option<usize>>) -> Result<Graph, InlineError> {
        let mut b = Builder::new(graph.name());
        b.reserve(graph.values().map(|(_, value)| value.name.clone()));
        b.reserve(graph.nodes().iter().map(|node| node.name.clone()));
        let mut map: HashMap<ValueId, ValueId> = HashMap::new();
        for id in graph.inputs() {
            map.insert(*id, b.input(graph.value_name(*id), graph.fact(*id).clone()));
        }
        for (id, ..) in graph.initializers() {
            map.insert(id, b.copy_value(graph, id));
        }
        for (id, node) in graph.node_ids() {
            let inputs: Vec<Option<ValueId>> = node.inputs.iter().map(|id| id.map(|id| map[&id])).collect();
            let mut node = node.clone();
            self.inline_subgraphs(&mut node.attributes, path)?;
            let outputs = match self.functions.get(&FunctionId::of(&node)) {
                None => {
                    positions.push(Some(graph.position(id)));
                    b.copy_node(graph, &node, &inputs)
                }
                Some(function) => {
                    let outputs = node.outputs.iter().map(|id| id.map(|id| b.copy_value(graph, id))).collect();
                    let call = Node { inputs, outputs, ..node.clone() };
                    self.call(&mut b, function, &call, path)?;
                    positions.resize(b.graph().nodes().len(), None);
                    call.outputs
                }
            };
            map.extend(node.outputs.iter().zip(outputs).filter_map(|(old, new)| Some(((*old)?, new?))));
        }
        for id in graph.outputs() {
            b.mark_output(map[id]);
        }
        Ok(b.finish())
    }

    fn inline_subgraphs(&self, attributes: &mut Attributes, path: &[String]) -> Result<(), InlineError> {
        for (_, value) in attributes.iter_mut() {
            if let Attribute::Graph(inner) = value {
                inner.graph = self.graph(&inner.graph, path, &mut Vec::new())?;
            }
        }
        Ok(())
    }

    /// Appends the body of a function. Inputs and outputs of `call` are values of the builder.
    fn call(&self, b: &mut Builder, function: &Function, call: &Node, path: &[String]) -> Result<(), InlineError> {
        let body = self.body(function, call)?;
        let mut path = path.to_vec();
        path.push(format!("{}:{}", call.name, function.id.name));
        let mut map: HashMap<ValueId, Option<ValueId>> = HashMap::new();
        for (index, id) in body.inputs().iter().enumerate() {
            map.insert(*id, call.input(index));
        }
        for (index, id) in body.outputs().iter().enumerate() {
            let own = body.producer(*id).is_some() && !map.contains_key(id);
            if let Some(output) = call.output(index).filter(|_| own) {
                b.refine(output, body.fact(*id));
                map.insert(*id, Some(output));
            }
        }
        for (id, value, tensor) in body.initializers() {
            b.enter(Origin::Forward, &call.name);
            let name = b.unique(&value.name);
            map.insert(id, Some(b.initializer(&name, tensor.clone())));
        }
        for node in body.nodes() {
            b.enter(Origin::Forward, &call.name);
            for id in node.outputs.iter().flatten() {
                map.entry(*id).or_insert_with(|| {
                    let name = b.unique(body.value_name(*id));
                    Some(b.declare(&name, body.fact(*id).clone()))
                });
            }
            let mapped = |ids: &[Option<ValueId>]| ids.iter().map(|id| id.and_then(|id| map[&id])).collect::<Vec<_>>();
            let (inputs, outputs) = (mapped(&node.inputs), mapped(&node.outputs));
            let mut node = Node { name: b.unique(&node.name), inputs, outputs, ..node.clone() };
            inherit(&mut node.metadata, &call.metadata);
            let outer = |name: &str| -> Option<String> {
                let id = map.get(&body.find(name)?).copied().flatten()?;
                Some(b.graph().value_name(id).to_string())
            };
            for (_, value) in node.attributes.iter_mut() {
                if let Attribute::Graph(inner) = value {
                    let absent = inner.captures.iter().find(|name| outer(name).is_none());
                    if let Some(value) = absent.cloned() {
                        let (node, function) = (node.name.clone(), function.id.to_string());
                        return Err(InlineError::Absent { node, function, value });
                    }
                    rename(inner, &outer, &call.name);
                }
            }
            self.inline_subgraphs(&mut node.attributes, &path)?;
            match self.functions.get(&FunctionId::of(&node)) {
                Some(function) => self.call(b, function, &node, &path)?,
                None => {
                    node.metadata.retain(|(key, _)| key != FUNCTION_PATH);
                    node.metadata.push((FUNCTION_PATH.to_string(), path.join("/")));
                    b.push_node(node);
                }
            }
        }
        b.enter(Origin::Forward, &call.name);
        for (index, id) in body.outputs().iter().enumerate() {
            let (Some(output), Some(Some(from))) = (call.output(index), map.get(id)) else { continue };
            if output != *from {
                b.push_identity(*from, output);
            }
        }
        Ok(())
    }

    /// Returns a function's body with the attributes of a call.
    fn body(&self, function: &Function, call: &Node) -> Result<Graph, InlineError> {
        let counts = [
            ("inputs", call.inputs.len(), function.graph.inputs().len()),
            ("outputs", call.outputs.len(), function.graph.outputs().len()),
        ];
        if let Some((what, found, expected)) = counts.into_iter().find(|(_, found, expected)| found > expected) {
            let (node, function) = (call.name.clone(), function.id.to_string());
            return Err(InlineError::Arity { node, function, what, found, expected });
        }
        let mut graph = function.graph.clone();
        resolve(&mut graph, &|name| call.attributes.get(name).or_else(|| function.defaults.get(name)).cloned());
        let opset = function.opsets.get("").copied();
        match opset.filter(|opset| self.mixed && !is_known(*opset)) {
            None => Ok(graph),
            Some(opset) => graph_to_known(&graph, opset)
                .map_err(|source| InlineError::Upgrade { function: function.id.to_string(), source }),
        }
    }
}

/// Gives references to attributes of the call their values; without one the attribute is left out.
fn resolve(graph: &mut Graph, value: &dyn Fn(&str) -> Option<Attribute>) {
    for node in &mut graph.nodes {
        let absent: Vec<String> = node
            .attributes
            .iter_mut()
            .filter_map(|(name, attribute)| {
                match attribute {
                    Attribute::Reference { attribute: of, .. } => match value(of) {
                        Some(found) => *attribute = found,
                        None => return Some(name.to_string()),
                    },
                    Attribute::Graph(inner) => resolve(&mut inner.graph, value),
                    _ => {}
                }
                None
            })
            .collect();
        absent.iter().for_each(|name| node.attributes.remove(name));
    }
}

fn inherit(metadata: &mut Vec<(String, String)>, from: &[(String, String)]) {
    let missing: Vec<_> = from.iter().filter(|(key, _)| metadata.iter().all(|(own, _)| own != key)).cloned().collect();
    metadata.extend(missing);
}

/// Renames the values of a subgraph: captured ones as the outer graph does, its own by a prefix.
fn rename(inner: &mut Subgraph, outer: &dyn Fn(&str) -> Option<String>, prefix: &str) {
    let captures = inner.captures.clone();
    let new = |name: &str| match captures.iter().any(|captured| captured == name) {
        true => outer(name).unwrap_or_else(|| name.to_string()),
        false => format!("{prefix}/{name}"),
    };
    let graph = &mut inner.graph;
    for value in &mut graph.values {
        value.name = new(&value.name);
    }
    graph.by_name =
        graph.values.iter().enumerate().map(|(index, value)| (value.name.clone(), ValueId(index))).collect();
    for node in &mut graph.nodes {
        node.name = format!("{prefix}/{}", node.name);
        for (_, value) in node.attributes.iter_mut() {
            if let Attribute::Graph(nested) = value {
                rename(nested, &|name| Some(new(name)), prefix);
            }
        }
    }
    inner.captures = captures.iter().map(|name| new(name)).collect();
}

impl Builder {
    /// Appends an `Identity` that gives a declared value the elements of another.
    fn push_identity(&mut self, from: ValueId, to: ValueId) {
        let name = self.unique("Identity");
        let fact = self.fact(from).clone();
        self.refine(to, &fact);
        self.push_node(Node {
            name,
            op: OpId::standard("Identity"),
            overload: String::new(),
            inputs: vec![Some(from)],
            outputs: vec![Some(to)],
            attributes: Attributes::none(),
            origin: Origin::Forward,
            metadata: Vec::new(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{DType, Fact, check, dump};

    /// A function of one input that calls others in turn.
    fn function(name: &str, calls: &[&str]) -> Function {
        let mut b = Builder::new(name);
        let mut y = b.input("x", Fact::fixed(DType::F32, &[2]));
        for call in calls {
            y = b.ops(&op(call), &[Some(y)], Attributes::none(), 1)[0];
        }
        b.mark_output(y);
        let id = FunctionId { domain: "f".into(), name: name.into(), overload: String::new() };
        Function { id, graph: b.finish(), defaults: Attributes::none(), opsets: [(String::new(), 18)].into() }
    }

    fn op(name: &str) -> OpId {
        let domain = if name.starts_with('f') { "f".into() } else { String::new() };
        OpId { domain, name: name.into() }
    }

    fn model(calls: &[&str], functions: Vec<Function>) -> Model {
        let main = function("main", calls).graph;
        Model { graph: main, opsets: [(String::new(), 18)].into(), ir_version: 10, functions, ..Model::default() }
    }

    #[test]
    fn bodies_take_the_place_of_calls() {
        let functions = vec![function("f1", &["Exp", "f2"]), function("f2", &["Neg"]), function("f3", &[])];
        let inlined = inline(model(&["f1", "Relu", "f2", "f3"], functions)).unwrap();
        assert_eq!(inlined.positions, [None, None, Some(1), None, None]);
        check(&inlined.model.graph).unwrap();
        let expected = "\
in  x float32[2]
f1/Exp:0 = Exp(x)
f1:0 = Neg(f1/Exp:0)
Relu:0 = Relu(f1:0)
f2:0 = Neg(Relu:0)
f3:0 = Identity(f2:0)
out f3:0 float32[2]
";
        assert_eq!(dump(&inlined.model.graph), expected);
        let path = |node: usize| inlined.model.graph.nodes()[node].metadata.clone();
        assert_eq!(path(1), [(FUNCTION_PATH.to_string(), "f1:f1/f1/f2:f2".to_string())]);
        assert!(path(2).is_empty());
    }

    #[test]
    fn what_cannot_be_inlined_is_refused() {
        let chain = |count: usize, calls: &dyn Fn(usize) -> Vec<String>| {
            let all: Vec<Function> = (0..count)
                .map(|index| {
                    let calls = calls(index);
                    function(&format!("f{index}"), &calls.iter().map(String::as_str).collect::<Vec<_>>())
                })
                .collect();
            all
        };
        let next = |index: usize| vec![format!("f{}", index + 1)];
        let cases = [
            (vec![function("f0", &["Neg", "f0"])], "function \"f.f0\" calls itself"),
            (chain(3, &|index| vec![format!("f{}", (index + 1) % 3)]), "function \"f.f0\" calls itself"),
            (chain(5000, &next), "calls of functions nest deeper than 64 at function \"f.f64\""),
            (
                chain(60, &|index| [next(index), next(index)].concat()),
                "the model has more than 250000 nodes once its functions are inlined",
            ),
            (vec![function("f0", &[]), function("f0", &[])], "function \"f.f0\" is defined twice"),
        ];
        for (functions, expected) in cases {
            assert_eq!(inline(model(&["f0"], functions)).unwrap_err().to_string(), expected);
        }
        let mut called = model(&["f0"], vec![function("f0", &["Neg"])]);
        let input = called.graph.inputs()[0];
        called.graph.nodes[0].inputs.push(Some(input));
        let error = inline(called).unwrap_err().to_string();
        assert_eq!(error, "node \"f0\" calls function \"f.f0\" with 2 inputs, expected at most 1");
    }
}
