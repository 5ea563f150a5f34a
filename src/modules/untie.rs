//! Gives back their own initializer to parameters that an exporter merged.
//!
//! PyTorch's TorchScript exporter keeps one of several initializers of equal value and puts an
//! `Identity` with the parameter's name in the place of each other one. In a fresh model that makes
//! every BatchNorm bias and running mean one tensor, which training would then move as one.
//!
//! Merged are tensors that hold a single number throughout, as fresh scales, biases and statistics
//! do, and those that are a weight under one name and a running statistic under another. An
//! `Identity` of any other initializer is a tie of the model's author and stays.

use super::parameters::is_state_name;
use super::shared::with_identities;
use super::uses::Uses;
use crate::graph::{Builder, Graph, Model, NodeId, Tensor, ValueId};
use std::collections::HashMap;

/// A model without merged parameters.
#[derive(Clone, Debug)]
pub struct Untied {
    /// The same model, with more initializers and fewer nodes.
    pub model: Model,
    /// Names of the initializers that were added. The file has none of these.
    pub names: Vec<String>,
}

/// Returns the model with merged parameters separated. New initializers stand where they would in
/// registration order: behind the relative that is used last before them.
pub fn untie(model: &Model) -> Untied {
    let model = &with_identities(model);
    let graph = &model.graph;
    let uses = Uses::new(graph);
    let merged: HashMap<NodeId, ValueId> =
        graph.node_ids().filter_map(|(id, _)| Some((id, merged(graph, &uses, id)?))).collect();
    let first_use = |value: ValueId| {
        let readers = uses.direct(value).iter().filter(|reader| !merged.contains_key(&reader.node));
        readers.map(|reader| (reader.node, reader.input)).min()
    };
    let mut order: Vec<ValueId> = graph.initializers().map(|(id, ..)| id).collect();
    let mut added: Vec<(ValueId, ValueId)> =
        merged.iter().filter_map(|(node, source)| Some((graph.node(*node).output(0)?, *source))).collect();
    added.sort_by_key(|(value, _)| first_use(*value));
    for (value, _) in &added {
        let related: Vec<usize> = order.iter().map(|other| common(graph, *other, *value)).collect();
        let most = related.iter().copied().max().unwrap_or(0);
        let relatives = || (0..order.len()).filter(|index| related[*index] == most);
        let before = relatives().filter(|index| first_use(order[*index]) < first_use(*value));
        let place = before.max_by_key(|index| (first_use(order[*index]), *index)).map(|index| index + 1);
        order.insert(place.or_else(|| relatives().next()).unwrap_or(order.len()), *value);
    }
    let sources: HashMap<ValueId, ValueId> = added.iter().copied().collect();
    let names = added.iter().map(|(value, _)| graph.value_name(*value).to_string()).collect();
    Untied { model: Model { graph: rebuild(graph, &order, &sources), ..model.clone() }, names }
}

/// Returns the initializer that a node stands in for, where it is an artefact of the exporter.
fn merged(graph: &Graph, uses: &Uses, id: NodeId) -> Option<ValueId> {
    let node = graph.node(id);
    let (source, output) = (node.input(0)?, node.output(0)?);
    let tensor = graph.value(source).initializer.as_ref()?;
    let name = graph.value_name(output);
    if !node.op.is("Identity") || !tensor.dtype().is_float() || !name.contains('.') || !is_state_name(name) {
        return None;
    }
    let statistic = |value: ValueId| {
        let is_statistic = |reader: &super::uses::Use| {
            graph.node(reader.node).op.is("BatchNormalization") && (reader.input == 3 || reader.input == 4)
        };
        uses.through_views(graph, value).iter().filter(|reader| is_statistic(reader)).count()
    };
    let readers = uses.through_views(graph, source).len();
    let both = statistic(source) > 0 && statistic(source) < readers;
    (is_uniform(tensor) || both).then_some(source)
}

fn is_uniform(tensor: &Tensor) -> bool {
    tensor.to_f64s().is_some_and(|elements| elements.windows(2).all(|pair| pair[0] == pair[1]))
}

/// Returns how many leading parts of their names two values share.
fn common(graph: &Graph, a: ValueId, b: ValueId) -> usize {
    let (a, b) = (graph.value_name(a).split('.'), graph.value_name(b).split('.'));
    a.zip(b).take_while(|(a, b)| a == b).count()
}

fn rebuild(graph: &Graph, order: &[ValueId], sources: &HashMap<ValueId, ValueId>) -> Graph {
    let mut builder = Builder::new(graph.name());
    let mut map: HashMap<ValueId, ValueId> = HashMap::new();
    for id in graph.inputs() {
        map.insert(*id, builder.input(graph.value_name(*id), graph.fact(*id).clone()));
    }
    for id in order {
        let tensor = graph.value(*sources.get(id).unwrap_or(id)).initializer.clone();
        let tensor = tensor.expect("invariant: the source of a merged parameter is an initializer");
        map.insert(*id, builder.initializer(graph.value_name(*id), tensor));
    }
    for node in graph.nodes() {
        if node.output(0).is_some_and(|output| sources.contains_key(&output)) {
            continue;
        }
        let inputs: Vec<Option<ValueId>> = node.inputs.iter().map(|input| input.map(|id| map[&id])).collect();
        let outputs = builder.copy_node(graph, node, &inputs);
        map.extend(node.outputs.iter().zip(outputs).filter_map(|(old, new)| Some(((*old)?, new?))));
    }
    for id in graph.outputs() {
        builder.mark_output(map[id]);
    }
    builder.finish()
}
