//! Graphs that tell whether their values are finite.

use super::TrainingError;
use crate::graph::{Attributes, Builder, DType, Graph, Model, Origin, ValueId, check};

/// Returns the model with one more output, and its name: the sum of all elements of the named outputs, a float32
/// scalar. It is not finite where one of them is not, and where the sum leaves the range of float32. `None` where none
/// of them is of a floating-point dtype.
///
/// # Errors
/// A graph that is inconsistent, which is a fault of this program.
pub fn summed(model: &Model, outputs: &[&str]) -> Result<Option<(Model, String)>, TrainingError> {
    let graph = &model.graph;
    let floats = outputs.iter().filter_map(|name| graph.find(name)).filter(|id| graph.fact(*id).is_float());
    let floats: Vec<ValueId> = floats.collect();
    if floats.is_empty() {
        return Ok(None);
    }
    let mut b = Builder::extend(graph.clone());
    b.enter(Origin::Update("gradients".into()), "finite");
    let mut sums = Vec::with_capacity(floats.len());
    for value in floats {
        let value = match b.dtype(value) {
            DType::F32 | DType::F64 => value,
            _ => b.cast(value, DType::F32),
        };
        let sum = b.op("ReduceSum", &[value], Attributes::none().with("keepdims", 0));
        sums.push(if b.dtype(sum) == DType::F32 { sum } else { b.cast(sum, DType::F32) });
    }
    let total = b.op("Sum", &sums, Attributes::none());
    let name = b.graph().value_name(total).to_string();
    b.mark_output(total);
    finish(model, b.finish()).map(|model| Some((model, name)))
}

/// Returns the model with more outputs that tell of its values, their names, and these values. Such an output is
/// the sum of the absolute elements of a value, a float32 scalar: NaN where one of them is, else infinite where one of them
/// is or the sum leaves the range of float32. The values are all of floating-point dtypes: inputs, initializers and
/// outputs of nodes, those of subgraphs left out.
///
/// # Errors
/// A graph that is inconsistent, which is a fault of this program.
pub fn measured(model: &Model) -> Result<(Model, Vec<String>, Vec<ValueId>), TrainingError> {
    let graph = &model.graph;
    let values: Vec<ValueId> = sources(graph).chain(made(graph)).filter(|id| graph.fact(*id).is_float()).collect();
    let mut b = Builder::extend(graph.clone());
    b.enter(Origin::Update("values".into()), "measure");
    let mut names = Vec::with_capacity(values.len());
    for value in &values {
        let value = if b.dtype(*value) == DType::F32 { *value } else { b.cast(*value, DType::F32) };
        let size = b.unary("Abs", value);
        let sum = b.op("ReduceSum", &[size], Attributes::none().with("keepdims", 0));
        names.push(b.graph().value_name(sum).to_string());
        b.mark_output(sum);
    }
    Ok((finish(model, b.finish())?, names, values))
}

/// Returns the model with values as outputs, beside those that it has.
///
/// # Errors
/// A graph that is inconsistent, which is a fault of this program.
pub fn shown(model: &Model, values: &[ValueId]) -> Result<Model, TrainingError> {
    let mut b = Builder::extend(model.graph.clone());
    for value in values.iter().filter(|value| model.graph.producer(**value).is_some()) {
        if !b.graph().outputs().contains(value) {
            b.mark_output(*value);
        }
    }
    finish(model, b.finish())
}

fn sources(graph: &Graph) -> impl Iterator<Item = ValueId> {
    graph
        .inputs()
        .iter()
        .copied()
        .chain(graph.initializers().map(|(id, ..)| id).filter(|id| !graph.inputs().contains(id)))
}

fn made(graph: &Graph) -> impl Iterator<Item = ValueId> {
    graph.nodes().iter().flat_map(|node| node.outputs.iter().flatten().copied())
}

fn finish(model: &Model, graph: Graph) -> Result<Model, TrainingError> {
    check(&graph).map_err(|source| TrainingError::Check { graph: "train", source })?;
    Ok(model.with_graph(graph))
}
