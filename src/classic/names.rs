//! The names that ONNX Runtime's training interface tells inputs and outputs by.

use super::ClassicError;
use crate::graph::Graph;
use crate::training::{Role, TrainStep};

/// Input of a training model: whether gradients are written over and not added to.
pub const RESET: &str = "lazy_reset_grad";
/// State of a training model in which something is random: the number of batches so far, a float32 vector of one element.
pub const COUNT: &str = "freeze_plan.batches";

/// What a user's inputs and outputs must not end in.
const SUFFIXES: [&str; 3] = ["_grad", "_grad.accumulation.buffer", "_grad.accumulation.out"];
/// The front of the names under which averages of frozen parameters wait.
const PARKED: &str = "freeze_plan.parked/";

/// Returns the name of a parameter's gradient.
pub fn gradient(parameter: &str) -> String {
    format!("{parameter}_grad")
}

/// Returns the input that a gradient is added to.
pub fn buffer(parameter: &str) -> String {
    format!("{parameter}_grad.accumulation.buffer")
}

/// Returns the output of the node that writes into state.
pub fn done(state: &str) -> String {
    format!("{state}_grad.accumulation.out")
}

/// Returns the name under which an average of a frozen parameter waits.
pub fn parked(parameter: &str, moment: &str) -> String {
    format!("{PARKED}{parameter}/{moment}")
}

/// Returns true for a tensor of a checkpoint that is no initializer of the model.
pub fn is_ours(name: &str) -> bool {
    name == COUNT || name.starts_with(PARKED)
}

/// Refuses a model with names that the interface would take for something else.
pub(super) fn refuse_reserved(step: &TrainStep, parameters: &[String]) -> Result<(), ClassicError> {
    let mut reserved = vec![(RESET.to_string(), "the flag that resets gradients".to_string())];
    for name in &step.trained {
        let meaning = format!("\"{name}\"");
        reserved.push((gradient(name), format!("the gradient of {meaning}")));
        reserved.push((buffer(name), format!("the gradient buffer of {meaning}")));
        reserved.push((done(name), format!("the sign that the gradient of {meaning} is written")));
    }
    for name in &step.moving {
        reserved.push((done(name), format!("the sign that \"{name}\" is written")));
    }
    if step.is_random() {
        reserved.push((COUNT.to_string(), "the number of batches so far".to_string()));
        reserved.push((done(COUNT), "the sign that the number of batches is written".to_string()));
    }
    for graph in [&step.train.graph, &step.eval.graph] {
        if let Some((name, meaning)) = reserved.iter().find(|(name, _)| graph.find(name).is_some()) {
            return Err(ClassicError::Taken { name: name.clone(), meaning: meaning.clone() });
        }
    }
    let contract = &step.contract;
    let inputs = contract.train.inputs.iter().chain(&contract.eval.inputs).filter(|port| port.role != Role::Step);
    let inputs = inputs.map(|port| ("input", &port.name)).filter(|(_, name)| !parameters.contains(name));
    let outputs = contract.eval.outputs.iter().map(|port| ("output", &port.name));
    for (what, name) in inputs.chain(outputs) {
        if let Some(suffix) = SUFFIXES.iter().find(|suffix| name.ends_with(*suffix)) {
            return Err(ClassicError::Suffix { what, name: name.clone(), suffix });
        }
    }
    Ok(())
}

/// Returns the state that a training model reads and writes beside what has a gradient, in the order of its inputs.
pub(super) fn parameters(step: &TrainStep, model: &Graph) -> Vec<String> {
    let is_state = |port: &&crate::training::Port| matches!(port.role, Role::Parameter | Role::Statistic);
    let named = step.contract.train.inputs.iter().filter(is_state).map(|port| port.name.clone());
    let mut names: Vec<String> = named.collect();
    names.sort_by_key(|name| model.find(name).map(|id| id.0));
    names
}
