//! The one way in which a pass changes a graph: building it anew, node by node.

use super::{Builder, Graph, Node, ValueId};
use std::collections::HashMap;

/// New outputs of a replaced node, one for each output that it has.
pub type Replaced = Vec<Option<ValueId>>;

/// Returns the graph built anew. For each node, `replace` gets the builder and the node's inputs
/// in the new graph; it returns the values that take the place of the node's outputs, or `None`
/// to keep the node. An output for which it returns nothing is absent for its readers. Names of the old graph are not given to new nodes; a value that takes the
/// place of another gets that one's name with [`Builder::rename`].
pub fn rebuild(
    graph: &Graph,
    mut replace: impl FnMut(&mut Builder, &Node, &[Option<ValueId>]) -> Option<Replaced>,
) -> Graph {
    let mut builder = Builder::new(graph.name());
    builder.reserve(graph.values().map(|(_, value)| value.name.clone()));
    let mut map: HashMap<ValueId, ValueId> = HashMap::new();
    for id in graph.inputs() {
        map.insert(*id, builder.input(graph.value_name(*id), graph.fact(*id).clone()));
    }
    for (id, ..) in graph.initializers() {
        map.insert(id, builder.copy_value(graph, id));
    }
    for node in graph.nodes() {
        let inputs: Vec<Option<ValueId>> = node.inputs.iter().map(|input| map.get(&(*input)?).copied()).collect();
        let outputs = replace(&mut builder, node, &inputs).unwrap_or_else(|| builder.copy_node(graph, node, &inputs));
        map.extend(node.outputs.iter().zip(outputs).filter_map(|(old, new)| Some(((*old)?, new?))));
    }
    for output in graph.outputs() {
        builder.mark_output(map[output]);
    }
    builder.finish()
}
