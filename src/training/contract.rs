//! `contract.json`: every input and output of the graphs of a phase.

use super::names;
use crate::graph::{Dim, Graph, ValueId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

/// What an input or output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Role {
    Data,
    Target,
    /// The number of the step, from which random values follow.
    Step,
    /// What the loss is multiplied with while gradients are computed.
    LossScale,
    Parameter,
    Statistic,
    Loss,
    Output,
    Gradient,
    NextStatistic,
    LearningRate,
    /// Factors of the learning rate of single parameters.
    LrScale,
    Slot,
    NextParameter,
    NextSlot,
    /// A value of the train graph that the optimizer graph reads.
    Value,
}

/// One input or output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Port {
    /// Name in the graph.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Element type, by ONNX's name.
    pub dtype: String,
    /// Sizes, or names of sizes such as the batch.
    pub shape: Vec<serde_json::Value>,
}

/// The inputs and outputs of one graph, in its order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GraphContract {
    /// Inputs.
    pub inputs: Vec<Port>,
    /// Outputs.
    pub outputs: Vec<Port>,
}

/// The graphs of a phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Contract {
    /// `freeze-plan-contract/1`.
    pub format: String,
    /// Frozen initializers: constants of `train.onnx`.
    pub frozen: Vec<String>,
    /// Trainable initializers that the loss does not depend on: they have no gradient.
    pub unused: Vec<String>,
    /// The element of the optimizer graph's input `lr_scale` that each parameter reads; empty where it
    /// has none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lr_scale: BTreeMap<String, usize>,
    /// `train.onnx`.
    pub train: GraphContract,
    /// `optimizer.onnx`; without inputs when nothing trains.
    pub optimizer: GraphContract,
    /// `eval.onnx`.
    pub eval: GraphContract,
}

/// Format of the contract file.
pub const FORMAT: &str = "freeze-plan-contract/1";

/// Describes a graph's ports by what their names are known to be. `model` is the model's graph, and
/// `targets` holds the names of the targets.
pub(super) fn describe(
    graph: &Graph,
    model: &Graph,
    parameters: &HashSet<&str>,
    statistics: &HashSet<&str>,
    targets: &HashSet<&str>,
    optimizer: bool,
) -> GraphContract {
    let input = |name: &str| match name {
        name if !optimizer && targets.contains(name) => Role::Target,
        names::STEP if !optimizer && model.find(names::STEP).is_none() => Role::Step,
        names::SCALE if !optimizer && model.find(names::SCALE).is_none() => Role::LossScale,
        names::LR if optimizer => Role::LearningRate,
        name if parameters.contains(name) => Role::Parameter,
        name if statistics.contains(name) => Role::Statistic,
        names::LR_SCALE if optimizer => Role::LrScale,
        name if name.ends_with(".grad") && optimizer => Role::Gradient,
        _ if optimizer => Role::Slot,
        _ => Role::Data,
    };
    let output = |name: &str| match name {
        names::LOSS if !optimizer => Role::Loss,
        name if !optimizer && name.strip_suffix(".grad").is_some_and(|p| parameters.contains(p)) => Role::Gradient,
        name => match name.strip_suffix(".next") {
            Some(state) if parameters.contains(state) => Role::NextParameter,
            Some(state) if statistics.contains(state) => Role::NextStatistic,
            Some(_) if optimizer => Role::NextSlot,
            _ => Role::Output,
        },
    };
    ports(graph, &input, &output)
}

/// Describes a graph's ports by functions from their names.
pub(super) fn ports(graph: &Graph, input: &dyn Fn(&str) -> Role, output: &dyn Fn(&str) -> Role) -> GraphContract {
    let ports = |ids: &[ValueId], role: &dyn Fn(&str) -> Role| {
        ids.iter().map(|id| port(graph, *id, role(graph.value_name(*id)))).collect()
    };
    GraphContract { inputs: ports(graph.inputs(), input), outputs: ports(graph.outputs(), output) }
}

fn port(graph: &Graph, id: ValueId, role: Role) -> Port {
    let fact = graph.fact(id);
    let dim = |dim: &Dim| match dim {
        Dim::Known(size) => serde_json::Value::from(*size),
        Dim::Symbol(name) => serde_json::Value::from(name.as_str()),
        Dim::Unknown => serde_json::Value::Null,
    };
    Port {
        name: graph.value_name(id).to_string(),
        role,
        dtype: fact.dtype.map_or_else(|| "unknown".into(), |dtype| dtype.to_string()),
        shape: fact.shape.iter().flatten().map(dim).collect(),
    }
}
