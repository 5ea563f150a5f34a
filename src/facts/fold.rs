//! Evaluates shape arithmetic away.

use super::integers::Integers;
use crate::graph::{Builder, DType, Graph, Model, Tensor, ValueId};
use std::collections::HashMap;

/// Returns the model in which every small int64 value that follows from fixed shapes and
/// constants is an initializer under its own name. What depends on a symbol stays as it is.
pub fn fold(model: &Model) -> Model {
    let graph = &model.graph;
    let mut builder = Builder::new(graph.name());
    let mut map: HashMap<ValueId, ValueId> = HashMap::new();
    let mut integers = Integers::default();
    for id in graph.inputs() {
        map.insert(*id, builder.input(graph.value_name(*id), graph.fact(*id).clone()));
    }
    for (id, ..) in graph.initializers() {
        map.insert(id, builder.copy_value(graph, id));
    }
    for node in graph.nodes() {
        integers.learn(graph, node);
        if let (Some(output), Some(tensor)) = (node.output(0), known(graph, &integers, node.output(0)))
            && node.outputs.len() == 1
            && !graph.outputs().contains(&output)
        {
            map.insert(output, builder.initializer(graph.value_name(output), tensor));
            continue;
        }
        let inputs: Vec<Option<ValueId>> = node.inputs.iter().map(|input| input.map(|id| map[&id])).collect();
        let outputs = builder.copy_node(graph, node, &inputs);
        map.extend(node.outputs.iter().zip(outputs).filter_map(|(old, new)| Some(((*old)?, new?))));
    }
    for output in graph.outputs() {
        builder.mark_output(map[output]);
    }
    Model { graph: builder.finish(), ..model.clone() }
}

fn known(graph: &Graph, integers: &Integers, value: Option<ValueId>) -> Option<Tensor> {
    let value = value?;
    let elements = integers.get(graph, value)?;
    let shape = graph.fact(value).sizes()?;
    let fits = shape.iter().product::<usize>() == elements.len();
    (fits && graph.fact(value).dtype == Some(DType::I64)).then(|| Tensor::from_vec(&shape, elements))
}
