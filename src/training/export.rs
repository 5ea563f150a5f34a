//! The edits that turn a loaded file into its trained model.

use super::forward::is_computed;
use crate::graph::{Graph, Node, Tensor};
use crate::modules::{Shared, shared};
use crate::onnx::{Edits, NodeEdit};
use std::collections::{BTreeMap, HashMap};

/// Returns the edits that put trained values into the file and bring BatchNormalization and
/// Dropout nodes that were exported in training form into inference form, so that the file gives
/// the accuracy that was measured. Everything else stays as it is.
pub fn trained_edits(graph: &Graph, values: &BTreeMap<String, Tensor>) -> Edits {
    let mut edits = Edits { embed_external: true, ..Edits::default() };
    let shared: HashMap<String, Shared> =
        shared(graph).into_iter().map(|shared| (shared.name.clone(), shared)).collect();
    for (name, tensor) in values {
        let id = graph.find(name);
        if let Some(shared) = shared.get(name).filter(|_| id.is_none()) {
            edits.added.push((name.clone(), tensor.clone()));
            for reader in &shared.readers {
                let edit = edits.nodes.entry(graph.position(reader.node)).or_default();
                edit.inputs.push((reader.input, name.clone()));
            }
            continue;
        }
        match id.and_then(|id| graph.producer(id)) {
            // A merged initializer that trained on its own becomes one of the file.
            Some(identity) => {
                edits.removed.insert(graph.position(identity));
                edits.added.push((name.clone(), tensor.clone()));
            }
            None => drop(edits.initializers.insert(name.clone(), tensor.clone())),
        }
    }
    for (index, node) in graph.nodes().iter().enumerate() {
        if let Some(edit) = inference(graph, node) {
            let inputs = edits.nodes.remove(&index).unwrap_or_default().inputs;
            edits.nodes.insert(index, NodeEdit { inputs, ..edit });
        }
    }
    edits
}

fn inference(graph: &Graph, node: &Node) -> Option<NodeEdit> {
    if node.op.is("BatchNormalization") && node.attributes.int("training_mode", 0) == Ok(1) {
        let attributes = vec![("training_mode".to_string(), None)];
        let read = |index: usize| {
            node.output(index).is_some_and(|value| {
                graph.outputs().contains(&value)
                    || graph.nodes().iter().any(|other| other.inputs.contains(&Some(value)))
            })
        };
        let no_statistic = node.input(3).is_some_and(|mean| is_computed(graph, mean));
        if read(1) || read(2) || no_statistic {
            return None;
        }
        return Some(NodeEdit { attributes, outputs: Some(1), ..NodeEdit::default() });
    }
    if node.op.is("Dropout") && node.input(2).is_some() {
        let flag = graph.constant(node.input(2)?)?.to_f64s()?;
        if flag.first().is_some_and(|value| *value != 0.0) {
            return Some(NodeEdit { clear_input: Some(2), ..NodeEdit::default() });
        }
    }
    None
}
