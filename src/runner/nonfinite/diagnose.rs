//! Finds the first tensor that is not finite: the train graph runs once more on the same batch and state, telling of
//! each of its values the sum of absolute elements, and again, showing the value that was found with what it was computed
//! from.
//!
//! From the loss or gradient that is wrong the search goes back through values that are not finite. A NaN follows from a
//! NaN where a node reads one, else from what is infinite; what is infinite in a constant of the model (a mask of `-inf`)
//! is not taken for the cause where it met a value of the model. Values inside subgraphs are not seen: the node that
//! holds the subgraph is named.

use super::super::engine::{Engine, EngineError, is_finite};
use super::super::event::RunEvent;
use super::super::phase::Feed;
use super::super::run::Run;
use super::super::train::RunError;
use super::Bad;
use super::cause::{Cause, CauseKind, InputRange};
use crate::graph::{DType, Graph, Node, Origin, Tensor, ValueId};
use crate::training::{finite, names};
use std::collections::{HashMap, HashSet};

impl Run<'_> {
    /// Returns the first tensor that is not finite; `None` where a second run does not show it again.
    pub(super) fn diagnose(
        &self,
        engine: &mut dyn Engine,
        bad: &Bad,
        report: &mut dyn FnMut(RunEvent),
    ) -> Option<Cause> {
        match self.find(engine, bad) {
            Ok(found) => found,
            Err(error) => {
                let message = format!("what is not finite first cannot be told: {error}");
                report(RunEvent::Warning { message });
                None
            }
        }
    }

    fn find(&self, engine: &mut dyn Engine, bad: &Bad) -> Result<Option<Cause>, RunError> {
        let setup = self.setup;
        let batch = setup.train.batch(bad.epoch as u64, bad.index)?;
        let share = self.share(bad);
        let Some((step, phase)) = self.phases.open_step() else { return Ok(None) };
        let at = (bad.epoch - 1) * setup.train.len() + bad.index + 1;
        let feed = Feed { at, batch: &batch, share };
        let (model, outputs, values) = finite::measured(&step.train)?;
        let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
        let sums = phase.inspect(engine, &model, &feed, &outputs)?;
        let sum = |tensor: &Tensor| tensor.to_f64s().and_then(|values| values.first().copied()).unwrap_or(0.0);
        let held = values.iter().zip(sums.iter().map(sum)).filter(|(_, sum)| !sum.is_finite());
        let mut held: HashMap<ValueId, bool> = held.map(|(id, sum)| (*id, sum.is_nan())).collect();
        let graph = &step.train.graph;
        let Some(target) = graph.find(bad.gradient.as_deref().unwrap_or(names::LOSS)) else { return Ok(None) };
        let slots = self.state.slots().map(|(name, _)| name);
        let state: HashSet<&str> =
            self.prepared.trainable().into_iter().chain(self.prepared.statistics()).chain(slots).collect();
        let (found, shown, tensors) = loop {
            if !held.contains_key(&target) {
                return Ok(None);
            }
            let found = Search { graph, held: &held, state: &state }.origin(target);
            let mut shown = vec![found];
            if let Some(node) = graph.producer(found).map(|node| graph.node(node)) {
                shown.extend(node.inputs.iter().flatten().filter(|id| graph.fact(**id).is_float()));
            }
            let tensors = self.show(engine, &step.train, &feed, &shown)?;
            // The elements of a sum that is infinite may be finite.
            match tensors.first().and_then(Option::as_ref) {
                Some(tensor) if is_finite(tensor.dtype(), tensor.bytes()) => drop(held.remove(&found)),
                _ => break (found, shown, tensors),
            }
        };
        let Some(tensor) = tensors.first().and_then(Option::as_ref) else { return Ok(None) };
        let mut cause = self.describe(graph, found, tensor);
        for (id, tensor) in shown.iter().zip(&tensors).skip(1) {
            let (min, max) = tensor.as_ref().map_or((None, None), range);
            cause.inputs.push(InputRange { tensor: graph.value_name(*id).to_string(), min, max });
        }
        if cause.kind == CauseKind::Input {
            cause.column = setup.train.column(&cause.tensor).map(str::to_string);
            let rows = tensor.shape().first().copied().unwrap_or(1).max(1);
            let values = tensor.to_f64s().unwrap_or_default();
            let each = (values.len() / rows).max(1);
            let first = values.iter().position(|value| !value.is_finite()).map(|at| at / each);
            let samples = setup.train.samples(bad.epoch as u64, bad.index);
            cause.row = first.and_then(|row| samples.get(row)).map(|sample| sample.row);
        }
        Ok(Some(cause))
    }

    /// Returns the elements of values: those of inputs and initializers as they are, others from a run.
    fn show(
        &self,
        engine: &mut dyn Engine,
        train: &crate::graph::Model,
        feed: &Feed<'_>,
        values: &[ValueId],
    ) -> Result<Vec<Option<Tensor>>, RunError> {
        let graph = &train.graph;
        let mut made: Vec<ValueId> = Vec::new();
        for id in values.iter().filter(|id| graph.producer(**id).is_some()) {
            if !made.contains(id) {
                made.push(*id);
            }
        }
        let mut outputs = Vec::new();
        if !made.is_empty() {
            let names: Vec<&str> = made.iter().map(|id| graph.value_name(*id)).collect();
            let model = finite::shown(train, &made)?;
            let Some((_, phase)) = self.phases.open_step() else { return Ok(Vec::new()) };
            outputs = phase.inspect(engine, &model, feed, &names)?;
        }
        let tensor = |id: &ValueId| -> Result<Option<Tensor>, EngineError> {
            if let Some(position) = made.iter().position(|other| other == id) {
                return Ok(outputs.get(position).cloned());
            }
            if let Some(tensor) = &graph.value(*id).initializer {
                return Ok(Some(tensor.clone()));
            }
            let name = graph.value_name(*id);
            match (feed.batch.iter().find(|(own, _)| own == name), self.state.find(name)) {
                (Some((_, tensor)), _) => Ok(Some(tensor.clone())),
                (None, Some(buffer)) => engine.read(buffer).map(Some),
                (None, None) => Ok(None),
            }
        };
        Ok(values.iter().map(tensor).collect::<Result<_, _>>()?)
    }

    fn describe(&self, graph: &Graph, found: ValueId, tensor: &Tensor) -> Cause {
        let name = graph.value_name(found).to_string();
        let values = tensor.to_f64s().unwrap_or_default();
        let nans = values.iter().filter(|value| value.is_nan()).count();
        let infinities = values.iter().filter(|value| value.is_infinite()).count();
        let node = graph.producer(found).map(|node| graph.node(node));
        let trainable = self.prepared.trainable().contains(&name.as_str());
        let kind = match node {
            Some(_) => CauseKind::Value,
            None if trainable => CauseKind::Parameter,
            None if self.prepared.statistics().contains(&name.as_str()) => CauseKind::State,
            None if self.state.slots().any(|(slot, _)| slot == name) => CauseKind::State,
            None if graph.value(found).initializer.is_some() => CauseKind::Constant,
            None => CauseKind::Input,
        };
        let owner = |name: &str| {
            let owns = |unit: &&crate::modules::Unit| unit.parameters.iter().any(|own| own == name);
            self.prepared.units.iter().find(owns).map(|unit| unit.path.clone())
        };
        let (module, pass) = match node.map(|node| &node.origin) {
            None => (owner(&name), None),
            Some(Origin::Forward) => (node.and_then(|node| self.module(&node.name)), Some("forward")),
            Some(Origin::Loss) => (None, Some("loss")),
            Some(Origin::Backward(of)) => (self.module(of), Some("backward")),
            Some(Origin::Update(of)) => (owner(of.strip_suffix(".grad").unwrap_or(of)), Some("update")),
        };
        Cause {
            kind,
            tensor: name,
            module: module.unwrap_or_default(),
            operator: node.map(|node| node.op.to_string()),
            node: node.map(|node: &Node| node.name.clone()),
            pass: pass.map(str::to_string),
            nans,
            infinities,
            elements: values.len(),
            inputs: Vec::new(),
            column: None,
            row: None,
        }
    }

    /// Returns the module that runs a node, which may be a part of one of the model's.
    fn module(&self, node: &str) -> Option<String> {
        let mut name = node;
        loop {
            if let Some(path) = self.prepared.modules.get(name) {
                return Some(path.clone());
            }
            name = name.rsplit_once('/')?.0;
        }
    }
}

/// The values that are not finite, each with whether one of its elements is NaN.
struct Search<'a> {
    graph: &'a Graph,
    held: &'a HashMap<ValueId, bool>,
    /// Names of parameters, statistics and slots.
    state: &'a HashSet<&'a str>,
}

impl Search<'_> {
    /// Returns the value that a value that is not finite goes back to.
    fn origin(&self, from: ValueId) -> ValueId {
        let mut value = from;
        let mut passed = HashSet::new();
        while passed.insert(value) {
            let Some(node) = self.graph.producer(value).map(|node| self.graph.node(node)) else { break };
            let bad = || self.read(node).into_iter().filter(|id| self.held.contains_key(id));
            let nan = |id: &ValueId| self.held.get(id) == Some(&true);
            let next = bad().find(nan).or_else(|| bad().find(|id| !self.is_masked(*id)));
            match next {
                Some(next) => value = next,
                None => break,
            }
        }
        value
    }

    /// Returns what a node reads, its subgraphs included.
    fn read(&self, node: &Node) -> Vec<ValueId> {
        let captured = node.captured().filter_map(|name| self.graph.find(name));
        node.inputs.iter().flatten().copied().chain(captured).collect()
    }

    /// Returns true for what is infinite because a constant of the model is.
    fn is_masked(&self, value: ValueId) -> bool {
        let mut open = vec![value];
        let mut seen = HashSet::new();
        let mut constant = false;
        while let Some(value) = open.pop() {
            if !seen.insert(value) {
                continue;
            }
            if self.held.get(&value) == Some(&true) {
                return false;
            }
            match self.graph.producer(value).map(|node| self.graph.node(node)) {
                Some(node) => {
                    let before = open.len();
                    open.extend(self.read(node).into_iter().filter(|id| self.held.contains_key(id)));
                    if open.len() == before && !node.op.is("Constant") {
                        return false;
                    }
                    constant |= node.op.is("Constant");
                }
                None if self.graph.value(value).initializer.is_some() => {
                    if self.state.contains(self.graph.value_name(value)) {
                        return false;
                    }
                    constant = true;
                }
                None => return false,
            }
        }
        constant
    }
}

/// Returns the least and the largest finite element.
fn range(tensor: &Tensor) -> (Option<f64>, Option<f64>) {
    if tensor.dtype() == DType::Bool {
        return (None, None);
    }
    let values = tensor.to_f64s().unwrap_or_default();
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    (finite().reduce(f64::min), finite().reduce(f64::max))
}
