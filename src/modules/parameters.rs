//! Which initializers are parameters.
//!
//! A file marks none of its initializers as trainable, so the way they are read decides, and the
//! name where that leaves doubt. A *state name* is one that a person gave: it has no `::`, `/`
//! or `:`, and is no number and no exporter's counter (`val_12`, `Constant_3`, `lifted_tensor_0`).
//!
//! 1. Only floating-point initializers that a node reads are parameters; what only a subgraph
//!    (`If`, `Loop`) reads is a constant.
//! 2. Inputs 3 and 4 of `BatchNormalization` are running statistics, unless the same tensor is
//!    also a weight elsewhere.
//! 3. Whatever its name, a tensor of rank 1 or more is trainable as the weight or bias of `Conv`,
//!    `ConvTranspose`, `Gemm`, `MatMul`, `Einsum`, a normalisation, `PRelu`, `LSTM`, `GRU` or
//!    `RNN`, and as the table (rank 2 or more) of `Gather`. This includes the folded
//!    `onnx::MatMul_123`. An unnamed scale of ones or bias of zeros of a normalisation is what
//!    exporters write for "no affine part": a constant.
//! 4. With a state name, a tensor is trainable wherever a gradient can reach it (`Add`, `Mul`,
//!    `Concat`, ..), if it has more than one element or a dotted name.
//! 5. Without one, it is trainable in `Add`, `Sub`, `Mul` and `Div` only as a bias or scale: at
//!    most one of its dimensions is not 1, it has more than one element, and the other operand is
//!    the output of a linear operator or a normalisation.
//!
//! ONNX cannot tell a float buffer (a table of sines) from a parameter; where a buffer has a state
//! name it counts as trainable and can be frozen by name.

use super::uses::{Use, Uses, carries_gradient, source};
use crate::graph::{Graph, Model, Node, Tensor, ValueId};

/// What an initializer is to training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A parameter that gradients update.
    Trainable,
    /// A running statistic that forward passes update.
    Statistic,
}

/// A parameter or running statistic.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Its value.
    pub value: ValueId,
    /// Name of the initializer.
    pub name: String,
    /// What it is to training.
    pub role: Role,
}

/// Returns the parameters and running statistics of a model, in file order.
pub fn parameters(model: &Model) -> Vec<Param> {
    let graph = &model.graph;
    let uses = Uses::new(graph);
    let mut found = Vec::new();
    for (id, value, tensor) in graph.initializers().filter(|(_, _, tensor)| tensor.dtype().is_float()) {
        let named = is_state_name(&value.name);
        let readers = uses.through_views(graph, id);
        let role = if readers.iter().any(|reader| trains(graph, *reader, &value.name, tensor, named)) {
            Role::Trainable
        } else if readers.iter().any(|reader| is_statistic(graph.node(reader.node), reader.input)) {
            Role::Statistic
        } else {
            continue;
        };
        found.push(Param { value: id, name: value.name.clone(), role });
    }
    found
}

/// Returns true for a name that the author of the model gave, as opposed to an exporter.
pub fn is_state_name(name: &str) -> bool {
    const COUNTERS: [&str; 11] = [
        "val_",
        "_val_",
        "Constant_",
        "constant_",
        "const_",
        "const_fold_opt__",
        "_tensor_constant",
        "lifted_tensor_",
        "_lifted_tensor_constant",
        "c_lifted_tensor_",
        "scalar_tensor_default",
    ];
    let counted =
        |stem: &str| name.strip_prefix(stem).is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '_'));
    !(name.contains("::") || name.contains(['/', ':']) || counted("") || COUNTERS.into_iter().any(counted))
}

fn is_statistic(node: &Node, input: usize) -> bool {
    node.op.is("BatchNormalization") && (input == 3 || input == 4)
}

fn trains(graph: &Graph, reader: Use, name: &str, tensor: &Tensor, named: bool) -> bool {
    let node = graph.node(reader.node);
    if !carries_gradient(node, reader.input) {
        return false;
    }
    let rank = tensor.shape().len();
    let structural = match (node.op.name.as_str(), reader.input) {
        ("Conv" | "ConvTranspose" | "FusedConv", 1 | 2) | ("Gemm" | "MatMul" | "Einsum", _) => true,
        ("PRelu", 1) | ("LSTM" | "GRU" | "RNN", 1..=3 | 7) => true,
        ("Gather", 0) => rank >= 2,
        (name, 1 | 2) if name.ends_with("Normalization") => {
            named || !is_filled(tensor, if reader.input == 1 { 1.0 } else { 0.0 })
        }
        _ => false,
    };
    if structural && (named || rank >= 1) {
        return true;
    }
    if named {
        return tensor.len() > 1 || name.contains('.');
    }
    let elementwise = matches!(node.op.name.as_str(), "Add" | "Sub" | "Mul" | "Div");
    elementwise && is_vector(tensor) && follows_linear(graph, node, reader.input)
}

fn is_filled(tensor: &Tensor, value: f64) -> bool {
    tensor.to_f64s().is_some_and(|elements| elements.iter().all(|element| *element == value))
}

fn is_vector(tensor: &Tensor) -> bool {
    tensor.len() > 1 && tensor.shape().iter().filter(|size| **size != 1).count() == 1
}

fn follows_linear(graph: &Graph, node: &Node, input: usize) -> bool {
    let other = node.input(1 - input.min(1)).map(|value| source(graph, value));
    let producer = other.and_then(|value| graph.producer(value)).map(|id| graph.node(id).op.name.as_str());
    producer.is_some_and(|op| {
        matches!(op, "Conv" | "ConvTranspose" | "Gemm" | "MatMul" | "Einsum") || op.ends_with("Normalization")
    })
}
