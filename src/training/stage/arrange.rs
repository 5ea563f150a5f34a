//! A step under names that leave room for those of the graphs of a phase, with slots as inputs.

use super::{PREVIEW, StageError};
use crate::analysis::Analysis;
use crate::graph::{Attribute, Builder, Fact, Graph, Node, Tensor, ValueId};
use crate::onnx::TrainingInfo;
use crate::training::{TrainingError, names};
use std::collections::{BTreeMap, HashMap, HashSet};

/// The joined graph with slots as inputs and names that leave room for those of a phase.
pub(super) struct Arranged {
    pub graph: Graph,
    pub target: Option<String>,
    /// Starting values of slots in the file.
    pub slots: BTreeMap<String, Tensor>,
    /// New names of values of the algorithm, by the names in the file.
    pub renamed: HashMap<String, String>,
}

impl Arranged {
    /// Returns the name of a value of the file.
    pub fn name<'a>(&'a self, old: &'a str) -> &'a str {
        self.renamed.get(old).map_or(old, String::as_str)
    }
}

/// Copies a step.
pub(super) fn arrange(info: &TrainingInfo, inference: &Graph, analysis: &Analysis) -> Result<Arranged, TrainingError> {
    let step = &info.step;
    let keys: HashSet<&str> = info.update_binding.iter().map(|(key, _)| key.as_str()).collect();
    let own = |name: &str| inference.find(name).is_none();
    let labels: Vec<&str> = step.inputs().iter().map(|id| step.value_name(*id)).filter(|name| own(name)).collect();
    let target = match labels.as_slice() {
        [one] => Some((*one).to_string()),
        _ => None,
    };
    let mut reserved = reserved(&keys, &analysis.trainable());
    if target.is_none() {
        reserved.remove(names::TARGET);
    }
    let captured: HashSet<&str> = step.nodes().iter().flat_map(Node::captured).collect();
    let mut b = Builder::new(step.name());
    b.reserve(step.values().map(|(_, value)| value.name.clone()));
    b.reserve(inference.nodes().iter().map(|node| node.name.clone()));
    let mut renamed = HashMap::new();
    for (id, value) in step.values() {
        let name = value.name.as_str();
        let fixed = captured.contains(name) || keys.contains(name) || step.inputs().contains(&id) || !own(name);
        let is_target = target.as_deref() == Some(name);
        match reserved.get(name) {
            _ if is_target => drop(renamed.insert(name.to_string(), names::TARGET.to_string())),
            Some(_) if !fixed => drop(renamed.insert(name.to_string(), b.unique(&format!("algorithm/{name}")))),
            Some(meaning) if name != names::LOSS || !is_loss(step, name) => {
                return Err(TrainingError::Collision { name: name.into(), meaning: meaning.clone() });
            }
            _ => {}
        }
    }
    if target.as_deref().is_some_and(|name| captured.contains(name) && name != names::TARGET) {
        return Err(StageError::Node {
            node: target.unwrap_or_default(),
            op: "input".into(),
            reason: "is read inside a subgraph".into(),
        }
        .into());
    }
    let mut slots = BTreeMap::new();
    let mut map: HashMap<ValueId, ValueId> = HashMap::new();
    let mut arranged = Arranged { graph: Graph::default(), target, slots: BTreeMap::new(), renamed };
    for id in step.inputs() {
        map.insert(*id, b.input(arranged.name(step.value_name(*id)), step.fact(*id).clone()));
    }
    for (id, value, tensor) in step.initializers() {
        let slot = keys.contains(value.name.as_str()) && own(&value.name);
        let new = if slot {
            slots.insert(value.name.clone(), tensor.clone());
            b.input(&value.name, Fact::fixed(tensor.dtype(), tensor.shape()))
        } else {
            b.initializer(arranged.name(&value.name), tensor.clone())
        };
        map.insert(id, new);
    }
    for (id, value) in analysis.model.graph.values() {
        let known = step.find(&value.name).and_then(|id| map.get(&id)).copied();
        known.into_iter().for_each(|known| b.refine(known, analysis.model.graph.fact(id)));
    }
    for node in step.nodes() {
        let inputs: Vec<Option<ValueId>> = node.inputs.iter().map(|input| input.map(|id| map[&id])).collect();
        let mut outputs = Vec::with_capacity(node.outputs.len());
        for output in &node.outputs {
            outputs.push(output.map(|id| {
                let name = step.value_name(id);
                let known = analysis.model.graph.find(name).map(|known| analysis.model.graph.fact(known).clone());
                let new = b.declare(arranged.name(name), step.fact(id).or(&known.unwrap_or_default()));
                map.insert(id, new);
                new
            }));
        }
        let attributes = node.attributes.clone();
        let mut node = Node { inputs, outputs, attributes, ..node.clone() };
        let given = node.outputs.iter().flatten().next().map(|id| b.graph().value_name(*id));
        if given.is_none_or(own) {
            node.name = b.unique(&node.name);
        }
        if node.op.domain == PREVIEW && node.op.name == "Gradient" {
            for name in ["xs", "zs", "y"] {
                rename_attribute(&mut node, name, &arranged);
            }
        }
        b.push_node(node);
    }
    for output in step.outputs() {
        b.mark_output(map[output]);
    }
    arranged.graph = b.finish();
    arranged.slots = slots;
    Ok(arranged)
}

/// Names of the graphs of a phase, with what they mean.
fn reserved(keys: &HashSet<&str>, trainable: &[&str]) -> HashMap<String, String> {
    let mut reserved = HashMap::from([
        (names::LOSS.to_string(), "the loss".to_string()),
        (names::TARGET.to_string(), "the target".to_string()),
    ]);
    if !keys.contains(names::LR) {
        reserved.insert(names::LR.into(), "the learning rate".into());
    }
    for key in keys {
        reserved.insert(names::next(key), format!("the next value of \"{key}\""));
        if trainable.contains(key) {
            reserved.insert(names::grad(key), format!("the gradient of \"{key}\""));
        }
    }
    reserved
}

/// Returns true where the first `Gradient` node differentiates the value of this name.
fn is_loss(step: &Graph, name: &str) -> bool {
    let node = step.nodes().iter().find(|node| node.op.domain == PREVIEW && node.op.name == "Gradient");
    node.is_some_and(|node| node.attributes.text("y", "").is_ok_and(|y| y == name))
}

fn rename_attribute(node: &mut Node, name: &str, arranged: &Arranged) {
    let rename = |bytes: &bytes::Bytes| match std::str::from_utf8(bytes) {
        Ok(text) => bytes::Bytes::copy_from_slice(arranged.name(text).as_bytes()),
        Err(_) => bytes.clone(),
    };
    let value = match node.attributes.get(name) {
        Some(Attribute::String(text)) => Attribute::String(rename(text)),
        Some(Attribute::Strings(texts)) => Attribute::Strings(texts.iter().map(rename).collect()),
        _ => return,
    };
    node.attributes.set(name, value);
}
