//! From a training model back to the plain model.
//!
//! The eval model is the plain model with a loss behind it, so it is taken where it is there; the
//! training model then only says which Dropout nodes are random. Without an eval model the forward
//! part of the training model is taken: what the prediction needs. Either way
//! - parameters become initializers with the checkpoint's values, in the order of the inputs;
//! - the loss, its target, gradients and gradient buffers are left out;
//! - `BatchNormInternal` and `BatchNormalization` come back in inference form, which this program
//!   trains with batch statistics;
//! - outputs that only a backward pass reads (mask, indices, saved statistics) are left out.

use super::loss::{self, FoundLoss, Match};
use super::{ArtifactsError, Checkpoint, Files, OURS, plain};
use crate::graph::{Builder, Fact, Graph, Model, Node, OpId, Tensor, ValueId, check};
use std::collections::{BTreeMap, HashMap, HashSet};

const RESET: &str = "lazy_reset_grad";
const BUFFER: &str = "_grad.accumulation.buffer";
const GRADIENTS: [&str; 3] = ["_grad", BUFFER, "_grad.accumulation.out"];

/// Operators whose outputs after the first serve the backward pass.
const EXTRA: [&str; 7] = [
    "BatchNormalization",
    "BatchNormInternal",
    "ConcatTraining",
    "Dropout",
    "LayerNormalization",
    "MaxPool",
    "SimplifiedLayerNormalization",
];

/// Returns the plain model, and the loss where it is one that this program has.
pub(super) fn recover(
    files: &Files,
    training: &Model,
    eval: Option<&Model>,
    checkpoint: &Checkpoint,
    notes: &mut Vec<String>,
) -> Result<(Model, Option<FoundLoss>), ArtifactsError> {
    belong_together(files, &training.graph, checkpoint)?;
    let (base, path) = match (eval, &files.eval) {
        (Some(eval), Some(path)) => (eval, path),
        _ => (training, &files.training),
    };
    let graph = &base.graph.with_sizes_of_inputs();
    let training = &training.graph.with_sizes_of_inputs();
    let fail = |reason: String| ArtifactsError::Model { path: path.clone(), reason };
    let first = *graph.outputs().first().ok_or_else(|| fail("it has no output".into()))?;
    let found = loss::find(graph, first);
    let outputs = outputs(graph, first, found.as_ref());
    if outputs.is_empty() {
        let node = graph.producer(first).map_or("an input", |id| graph.node(id).op.name.as_str());
        let reason = format!(
            "its loss \"{}\" ends in {node} and is none that this program knows, and there is no other output",
            graph.value_name(first)
        );
        return Err(ArtifactsError::Unsupported { path: path.clone(), reason });
    }
    let needed = needed(graph, &outputs);
    let mut f = Forward { b: Builder::new(graph.name()), map: HashMap::new(), training };
    f.b.reserve(graph.values().map(|(_, value)| value.name.clone()));
    let target = found.as_ref().map(|found| found.target);
    let values: HashMap<&str, &Tensor> =
        checkpoint.trains.iter().chain(&checkpoint.frozen).map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let read = graph.consumers();
    let only_for_loss = |id: &ValueId| !needed.contains(id) && (Some(*id) == target || !read[id.0].is_empty());
    let gradient = |name: &str| name == RESET || GRADIENTS.iter().any(|suffix| name.ends_with(suffix));
    for id in graph.inputs() {
        let name = graph.value_name(*id);
        let new = match values.get(name).copied() {
            Some(tensor) => {
                fits(name, graph.fact(*id), tensor).map_err(fail)?;
                f.b.initializer(name, tensor.clone())
            }
            None if gradient(name) && !needed.contains(id) => continue,
            None if only_for_loss(id) => continue,
            None if gradient(name) => return Err(fail(format!("its output depends on the gradient \"{name}\""))),
            None => f.b.input(name, graph.fact(*id).clone()),
        };
        f.map.insert(*id, new);
    }
    for (id, ..) in graph.initializers().filter(|(id, ..)| needed.contains(id)) {
        let new = f.b.copy_value(graph, id);
        f.map.insert(id, new);
    }
    let random = random_dropouts(training);
    for node in graph.nodes().iter().filter(|node| node.outputs.iter().flatten().any(|id| needed.contains(id))) {
        f.node(graph, node, &needed, &random).map_err(fail)?;
    }
    for output in &outputs {
        let lost = || fail(format!("its output \"{}\" is no part of the plain model", graph.value_name(*output)));
        let new = f.map.get(output).copied().ok_or_else(lost)?;
        if let Some(found) = found.as_ref().filter(|found| found.prediction == *output) {
            f.b.refine(new, &found.prediction_fact);
        }
        f.b.mark_output(new);
    }
    let recovered = f.b.finish();
    check(&recovered).map_err(|error| fail(error.to_string()))?;
    tell_unused(&recovered, checkpoint, notes);
    let loss = found.and_then(|found| usable(graph, found, notes));
    let domains: HashSet<&str> = recovered.nodes().iter().map(|node| node.op.domain.as_str()).collect();
    let used = |domain: &str| domain.is_empty() || domains.contains(domain);
    let opsets: BTreeMap<String, i64> = base.opsets.clone().into_iter().filter(|(domain, _)| used(domain)).collect();
    Ok((Model { graph: recovered, opsets, ..base.clone() }, loss))
}

/// Refuses a checkpoint that trains other parameters than the training model.
fn belong_together(files: &Files, training: &Graph, checkpoint: &Checkpoint) -> Result<(), ArtifactsError> {
    let inputs: Vec<&str> = training.inputs().iter().map(|id| training.value_name(*id)).collect();
    let buffered: HashSet<&str> = inputs.iter().filter_map(|name| name.strip_suffix(BUFFER)).collect();
    let trains: HashSet<&str> = checkpoint.trains.iter().map(|(name, _)| name.as_str()).collect();
    let fail = |path: &std::path::Path, reason| Err(ArtifactsError::Model { path: path.to_path_buf(), reason });
    if !inputs.contains(&RESET) {
        return fail(&files.training, format!("it has no input \"{RESET}\" and so is no training model"));
    }
    if let Some(name) = inputs.iter().filter_map(|name| name.strip_suffix(BUFFER)).find(|name| !trains.contains(name)) {
        return fail(&files.training, format!("it trains \"{name}\", which the checkpoint holds no value to train of"));
    }
    if let Some((name, _)) = checkpoint.trains.iter().find(|(name, _)| !buffered.contains(name.as_str())) {
        return fail(&files.training, format!("it does not train \"{name}\", which the checkpoint says it does"));
    }
    Ok(())
}

/// Returns what the plain model gives: the prediction, then the outputs that are neither the loss
/// nor gradients. A first output that is no loss is one of the model.
fn outputs(graph: &Graph, first: ValueId, loss: Option<&Match>) -> Vec<ValueId> {
    let scalar = graph.fact(first).shape.as_ref().is_none_or(|shape| shape.iter().all(|dim| dim.known() == Some(1)));
    let mut outputs: Vec<ValueId> = Vec::new();
    outputs.extend(loss.map(|found| found.prediction));
    let rest = graph.outputs().iter().copied().filter(|id| *id != first || (loss.is_none() && !scalar));
    for id in rest.filter(|id| !GRADIENTS.iter().any(|suffix| graph.value_name(*id).ends_with(suffix))) {
        if !outputs.contains(&id) {
            outputs.push(id);
        }
    }
    outputs
}

/// Returns the values that the outputs depend on.
fn needed(graph: &Graph, outputs: &[ValueId]) -> HashSet<ValueId> {
    let mut needed: HashSet<ValueId> = outputs.iter().copied().collect();
    for node in graph.nodes().iter().rev() {
        if node.outputs.iter().flatten().any(|output| needed.contains(output)) {
            needed.extend(node.inputs.iter().flatten());
            needed.extend(node.captured().filter_map(|name| graph.find(name)));
        }
    }
    needed
}

fn fits(name: &str, fact: &Fact, tensor: &Tensor) -> Result<(), String> {
    let dims = fact.shape.as_ref();
    let shape = dims.is_none_or(|dims| {
        let same = |(dim, size): (&crate::graph::Dim, &usize)| dim.known().is_none_or(|known| known == *size);
        dims.len() == tensor.shape().len() && dims.iter().zip(tensor.shape()).all(same)
    });
    if shape && fact.dtype.is_none_or(|dtype| dtype == tensor.dtype()) {
        return Ok(());
    }
    let found = Fact::fixed(tensor.dtype(), tensor.shape());
    Err(format!("parameter \"{name}\" is {fact} in it, and {found} in the checkpoint"))
}

/// Returns the outputs of the Dropout nodes that are random in the training model.
fn random_dropouts(training: &Graph) -> HashSet<&str> {
    let on = |node: &Node| {
        let flag = node.input(2).and_then(|flag| training.constant(flag)).and_then(|flag| flag.to_f64s());
        flag.is_some_and(|flag| flag.first().is_some_and(|value| *value != 0.0))
    };
    let random = training.nodes().iter().filter(|node| node.op.is("Dropout") && on(node));
    random.filter_map(|node| Some(training.value_name(node.output(0)?))).collect()
}

struct Forward<'a> {
    b: Builder,
    map: HashMap<ValueId, ValueId>,
    /// The training model, which has the facts of values and of their gradients.
    training: &'a Graph,
}

impl Forward<'_> {
    /// Copies a node in its plain form.
    fn node(
        &mut self,
        graph: &Graph,
        node: &Node,
        needed: &HashSet<ValueId>,
        random: &HashSet<&str>,
    ) -> Result<(), String> {
        let mut node = node.clone();
        let known = |id: &ValueId| self.map.get(id).copied();
        let lost = |id: ValueId| format!("node \"{}\" reads \"{}\", which is lost", node.name, graph.value_name(id));
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for input in &node.inputs {
            inputs.push(input.map(|id| known(&id).ok_or_else(|| lost(id))).transpose()?);
        }
        if EXTRA.contains(&node.op.name.as_str()) {
            let last = node.outputs.iter().rposition(|output| output.is_some_and(|id| needed.contains(&id)));
            node.outputs.truncate(last.map_or(1, |last| last + 1));
        }
        match node.op.name.as_str() {
            "BatchNormInternal" | "BatchNormalization" => {
                if node.outputs.len() > 1 {
                    return Err(format!("node \"{}\" gives its batch statistics to other nodes", node.name));
                }
                node.op = OpId::standard("BatchNormalization");
                node.attributes.remove("training_mode");
            }
            "Dropout" if node.output(0).is_some_and(|id| random.contains(graph.value_name(id))) => {
                let set = inputs.get(2).copied().flatten().is_some();
                if !set {
                    self.b.enter(crate::graph::Origin::Forward, &node.name);
                    let mode = self.b.constant("training_mode", Tensor::scalar(true));
                    inputs.resize(2, None);
                    inputs.push(Some(mode));
                }
            }
            _ => {}
        }
        while inputs.last() == Some(&None) {
            inputs.pop();
        }
        let outputs = match plain::rewrite(&mut self.b, &node, &inputs)? {
            Some(output) => vec![Some(output)],
            None => self.b.copy_node(graph, &node, &inputs),
        };
        for (old, new) in node.outputs.iter().zip(outputs).filter_map(|(old, new)| Some(((*old)?, new?))) {
            let name = graph.value_name(old);
            if self.b.graph().value_name(new) != name {
                self.b.rename(new, name);
                self.b.refine(new, graph.fact(old));
            }
            for known in [name.to_string(), format!("{name}_grad")] {
                if let Some(id) = self.training.find(&known) {
                    self.b.refine(new, self.training.fact(id));
                }
            }
            self.map.insert(old, new);
        }
        Ok(())
    }
}

fn usable(graph: &Graph, found: Match, notes: &mut Vec<String>) -> Option<FoundLoss> {
    if let Some(reason) = found.differs {
        notes.push(format!("the loss is {}, but {reason}: give one in [loss] or with --loss", found.spec.kind));
        return None;
    }
    let name = |id| graph.value_name(id).to_string();
    Some(FoundLoss { spec: found.spec, prediction: name(found.prediction), target: name(found.target) })
}

fn tell_unused(graph: &Graph, checkpoint: &Checkpoint, notes: &mut Vec<String>) {
    let absent = |name: &str| graph.find(name).is_none() && !name.starts_with(OURS);
    let unused: Vec<&str> = checkpoint
        .trains
        .iter()
        .chain(&checkpoint.frozen)
        .map(|(name, _)| name.as_str())
        .filter(|n| absent(n))
        .collect();
    if let Some(first) = unused.first() {
        let more = if unused.len() > 1 { format!(" and {} more", unused.len() - 1) } else { String::new() };
        notes.push(format!("the checkpoint holds \"{first}\"{more}, which the model does not read"));
    }
}
