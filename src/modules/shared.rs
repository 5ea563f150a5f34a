//! Parameters that an exporter holds in the initializer of another module.
//!
//! PyTorch's default exporter keeps one of several initializers of equal value and lets every node
//! read it. In a fresh model all biases of one width become one tensor, which training would move
//! as one. Every node still says its module, so a tensor of a single number that nodes of several
//! modules read is taken apart: one parameter for each module and part. A module that is called
//! several times stays one.

use super::names::is_state_name;
use super::recover::node_scope;
use super::uses::{Use, Uses};
use crate::graph::{Attributes, Builder, Graph, Model, Node, OpId, Origin, Tensor, ValueId, rebuild};
use std::collections::{BTreeMap, HashMap};

/// Tensors of more elements are not looked into.
const LARGEST: usize = 1 << 16;

/// A parameter that has no initializer of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Shared {
    /// Name that it would have: its module, a dot, its part.
    pub name: String,
    /// The initializer that holds its elements.
    pub source: ValueId,
    /// Who reads it.
    pub readers: Vec<Use>,
}

/// Returns the parameters without an initializer of their own, by the order of their readers.
pub fn shared(graph: &Graph) -> Vec<Shared> {
    let scoped = graph.nodes().iter().any(|node| node_scope(node).is_some());
    if !scoped {
        return Vec::new();
    }
    let uses = Uses::new(graph);
    let mut found: Vec<Shared> = Vec::new();
    for (id, value, tensor) in graph.initializers() {
        let readers = uses.direct(id);
        let candidate = readers.len() > 1 && tensor.dtype().is_float() && (2..=LARGEST).contains(&tensor.len());
        if !candidate || !is_state_name(&value.name) || !is_uniform(tensor) {
            continue;
        }
        let Some((_, part)) = value.name.rsplit_once('.') else { continue };
        let mut parts: BTreeMap<(Use, String), Vec<Use>> = BTreeMap::new();
        let mut first: HashMap<String, Use> = HashMap::new();
        for reader in readers {
            let node = graph.node(reader.node);
            let Some(scope) = node_scope(node) else { continue };
            let name = format!("{scope}.{}", part_of(node, reader.input).unwrap_or(part));
            let first = *first.entry(name.clone()).or_insert(*reader);
            parts.entry((first, name)).or_default().push(*reader);
        }
        let own = parts.keys().find(|(_, name)| *name == value.name);
        let own = own.or_else(|| parts.keys().next()).cloned();
        parts.retain(|key, _| Some(key) != own.as_ref());
        for ((_, name), readers) in parts {
            let taken = graph.find(&name).is_some() || found.iter().any(|other| other.name == name);
            if !taken {
                found.push(Shared { name, source: id, readers });
            }
        }
    }
    found.sort_by_key(|shared| shared.readers.first().map(|reader| (reader.node, reader.input)));
    found
}

/// Returns the model with an `Identity` of the source for each of them, as TorchScript's exporter
/// writes merged parameters.
pub(super) fn with_identities(model: &Model) -> Model {
    let graph = &model.graph;
    let shared = shared(graph);
    if shared.is_empty() {
        return model.clone();
    }
    let by_reader: HashMap<Use, &Shared> =
        shared.iter().flat_map(|shared| shared.readers.iter().map(move |reader| (*reader, shared))).collect();
    let mut ids = graph.node_ids();
    let graph = rebuild(graph, |b, node, inputs| {
        let (id, _) = ids.next()?;
        let mut inputs = inputs.to_vec();
        let mut changed = false;
        for (input, value) in inputs.iter_mut().enumerate() {
            if let (Some(shared), Some(source)) = (by_reader.get(&Use { node: id, input }), *value) {
                *value = Some(identity(b, source, &shared.name));
                changed = true;
            }
        }
        changed.then(|| b.copy_node(&model.graph, node, &inputs))
    });
    model.with_graph(graph)
}

fn identity(b: &mut Builder, source: ValueId, name: &str) -> ValueId {
    if let Some(known) = b.graph().find(name) {
        return known;
    }
    let fact = b.fact(source).clone();
    let output = b.declare(name, fact);
    b.push_node(Node {
        name: format!("{name}/Identity"),
        op: OpId::standard("Identity"),
        overload: String::new(),
        inputs: vec![Some(source)],
        outputs: vec![Some(output)],
        attributes: Attributes::none(),
        origin: Origin::Forward,
        metadata: Vec::new(),
    });
    output
}

/// Returns what a module calls the parameter at an input.
fn part_of(node: &Node, input: usize) -> Option<&'static str> {
    match (node.op.name.as_str(), input) {
        ("BatchNormalization", 3) => Some("running_mean"),
        ("BatchNormalization", 4) => Some("running_var"),
        ("Conv" | "ConvTranspose", 1) => Some("weight"),
        ("Conv" | "ConvTranspose" | "Gemm", 2) | ("Add", _) => Some("bias"),
        (name, 1) if name.ends_with("Normalization") => Some("weight"),
        (name, 2) if name.ends_with("Normalization") => Some("bias"),
        _ => None,
    }
}

fn is_uniform(tensor: &Tensor) -> bool {
    let size = tensor.dtype().size().max(1);
    let bytes = tensor.bytes();
    bytes.chunks_exact(size).all(|element| element == &bytes[..size])
}
