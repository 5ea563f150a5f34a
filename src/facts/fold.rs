//! Evaluates shape arithmetic away.

use super::integers::Integers;
use crate::graph::{DType, Graph, Model, Tensor, ValueId, rebuild};

/// Returns the model in which every small int64 value that follows from fixed shapes and
/// constants is an initializer under its own name. What depends on a symbol stays as it is.
pub fn fold(model: &Model) -> Model {
    let graph = &model.graph;
    let mut integers = Integers::default();
    let folded = rebuild(graph, |b, node, _| {
        integers.learn(graph, node);
        let output = node.output(0).filter(|output| node.outputs.len() == 1 && !graph.outputs().contains(output))?;
        let tensor = known(graph, &integers, output)?;
        Some(vec![Some(b.initializer(graph.value_name(output), tensor))])
    });
    Model { graph: folded, ..model.clone() }
}

fn known(graph: &Graph, integers: &Integers, value: ValueId) -> Option<Tensor> {
    let elements = integers.get(graph, value)?;
    let shape = graph.fact(value).sizes()?;
    let fits = shape.iter().product::<usize>() == elements.len();
    (fits && graph.fact(value).dtype == Some(DType::I64)).then(|| Tensor::from_vec(&shape, elements))
}
