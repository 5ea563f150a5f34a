//! Removes what no output needs.

use super::{Builder, Graph, ValueId};
use std::collections::{HashMap, HashSet};

/// Returns the graph without the nodes and initializers that no graph output depends on.
/// Graph inputs stay.
pub fn prune(graph: &Graph) -> Graph {
    let mut needed: HashSet<ValueId> = graph.outputs.iter().copied().collect();
    let mut kept = vec![false; graph.nodes.len()];
    for (id, node) in graph.node_ids().collect::<Vec<_>>().into_iter().rev() {
        if node.outputs.iter().flatten().any(|output| needed.contains(output)) {
            kept[id.0] = true;
            needed.extend(node.inputs.iter().flatten());
            for name in node.captured() {
                needed.extend(graph.find(name));
            }
        }
    }
    let mut builder = Builder::new(&graph.name);
    let mut map: HashMap<ValueId, ValueId> = HashMap::new();
    for id in &graph.inputs {
        map.insert(*id, builder.input(graph.value_name(*id), graph.fact(*id).clone()));
    }
    for (id, ..) in graph.initializers().filter(|(id, ..)| needed.contains(id)) {
        map.insert(id, builder.copy_value(graph, id));
    }
    for (_, node) in graph.node_ids().filter(|(id, _)| kept[id.0]) {
        let inputs: Vec<Option<ValueId>> = node.inputs.iter().map(|input| input.map(|id| map[&id])).collect();
        let outputs = builder.copy_node(graph, node, &inputs);
        map.extend(node.outputs.iter().zip(outputs).filter_map(|(old, new)| Some(((*old)?, new?))));
    }
    let mut result = builder.finish();
    result.outputs = graph.outputs.iter().map(|id| map[id]).collect();
    result
}
