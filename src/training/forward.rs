//! The forward pass of a phase: which initializers are inputs, and what BatchNormalization and
//! Dropout become.

use super::TrainingError;
use super::random::Random;
use crate::autodiff::batch_norm_node;
use crate::graph::{Attributes, Builder, Graph, Node, Origin, Tensor, ValueId};
use std::collections::{HashMap, HashSet};

/// How the forward pass runs.
pub(super) enum Mode<'a> {
    /// Batch statistics, moving running statistics, dropout as exported. What is random follows from
    /// `seed` and the step; without one its nodes stay. `as_written` moves statistics
    /// only where BatchNormalization is in training form, with the operator's own arithmetic.
    Train { frozen: &'a HashSet<&'a str>, frozen_inputs: bool, seed: Option<u64>, as_written: bool },
    /// Inference form.
    Eval,
}

/// A forward pass under construction.
pub(super) struct Forward {
    pub b: Builder,
    /// From the model's values to the new graph's.
    pub map: HashMap<ValueId, ValueId>,
    /// Running statistics that move, with the value they have after the step.
    pub moved: Vec<(String, ValueId)>,
}

/// Copies the model's nodes in the form that `mode` asks for. `inputs` names the initializers
/// that become graph inputs (parameters that train, running statistics).
pub(super) fn forward(
    graph: &Graph,
    name: &str,
    mode: &Mode<'_>,
    statistics: &HashSet<&str>,
    parameters: &HashSet<&str>,
) -> Result<Forward, TrainingError> {
    let mut f = Forward { b: Builder::new(name), map: HashMap::new(), moved: Vec::new() };
    f.b.reserve(graph.values().map(|(_, value)| value.name.clone()));
    for id in graph.inputs() {
        let input = f.b.input(graph.value_name(*id), graph.fact(*id).clone());
        f.map.insert(*id, input);
    }
    let still = fixed_statistics(graph, mode, statistics);
    for (id, value, _) in graph.initializers() {
        let name = value.name.as_str();
        let trains = match mode {
            Mode::Train { frozen, frozen_inputs, .. } => {
                parameters.contains(name) && (*frozen_inputs || !frozen.contains(name))
            }
            Mode::Eval => parameters.contains(name),
        };
        let inputs = matches!(mode, Mode::Train { frozen_inputs: true, .. });
        let new = if trains || statistics.contains(name) && (inputs || !still.contains(name)) {
            f.b.input(name, value.fact.clone())
        } else {
            f.b.copy_value(graph, id)
        };
        f.map.insert(id, new);
    }
    let random = match mode {
        Mode::Train { seed: Some(seed), .. } if draws(graph, mode) => Random::new(&mut f.b, graph, *seed, false)?,
        Mode::Eval if draws(graph, mode) => Random::new(&mut f.b, graph, 0, true)?,
        _ => None,
    };
    let mut running: HashMap<ValueId, ValueId> = HashMap::new();
    for node in graph.nodes() {
        f.b.enter(Origin::Forward, &node.name);
        match node.op.name.as_str() {
            "BatchNormalization" if node.op.domain.is_empty() => {
                batch_norm(&mut f, graph, node, mode, statistics, &still, &mut running)?;
            }
            "Dropout" if node.op.domain.is_empty() => dropout(&mut f, graph, node, mode, random.as_ref())?,
            _ if node.op.is_random() => drawn(&mut f, graph, node, random.as_ref())?,
            _ => copy(&mut f, graph, node),
        }
    }
    f.moved =
        graph.initializers().filter_map(|(id, value, _)| Some((value.name.clone(), *running.get(&id)?))).collect();
    Ok(f)
}

/// Returns true when a node draws random values in this form of the graph.
fn draws(graph: &Graph, mode: &Mode<'_>) -> bool {
    let passes = |node: &Node| match mode {
        Mode::Train { frozen, .. } => node.output(0).is_some_and(|y| frozen.contains(graph.value_name(y))),
        Mode::Eval => true,
    };
    let flagged = |node: &Node| {
        let flag = node.input(2).and_then(|flag| graph.constant(flag)?.to_f64s());
        flag.is_some_and(|flag| flag.first().is_some_and(|value| *value != 0.0))
    };
    let draws = |node: &&Node| node.op.is_random() && (!node.op.is("Dropout") || !passes(node) && flagged(node));
    graph.nodes().iter().any(|node| draws(&node))
}

fn copy(f: &mut Forward, graph: &Graph, node: &Node) {
    let inputs: Vec<Option<ValueId>> = node.inputs.iter().map(|input| input.map(|id| f.map[&id])).collect();
    let outputs = f.b.copy_node(graph, node, &inputs);
    f.map.extend(node.outputs.iter().zip(outputs).filter_map(|(old, new)| Some(((*old)?, new?))));
}

/// Returns the frozen statistics: their BatchNormalization runs in inference form.
pub(super) fn fixed_statistics<'a>(graph: &'a Graph, mode: &Mode<'_>, statistics: &HashSet<&str>) -> HashSet<&'a str> {
    let Mode::Train { frozen, .. } = mode else { return HashSet::new() };
    let names = graph.initializers().map(|(_, value, _)| value.name.as_str());
    names.filter(|name| statistics.contains(name) && frozen.contains(name)).collect()
}

fn batch_norm(
    f: &mut Forward,
    graph: &Graph,
    node: &Node,
    mode: &Mode<'_>,
    statistics: &HashSet<&str>,
    still: &HashSet<&str>,
    running: &mut HashMap<ValueId, ValueId>,
) -> Result<(), TrainingError> {
    let [Some(x), Some(scale), Some(bias), Some(mean), Some(var)] = [0, 1, 2, 3, 4].map(|index| node.input(index))
    else {
        return Err(TrainingError::Node { node: node.name.clone(), reason: "needs five inputs".into() });
    };
    let y = node
        .output(0)
        .ok_or_else(|| TrainingError::Node { node: node.name.clone(), reason: "has no output".into() })?;
    let was_training = node.attributes.int("training_mode", 0).map_err(|error| attribute(node, &error))? == 1;
    let as_written = matches!(mode, Mode::Train { as_written: true, .. });
    // No running statistic, as of weights that are standardized: the batch is all there is, also in evaluation.
    let computed = was_training && is_computed(graph, mean);
    let by_batch = computed || if as_written { was_training } else { statistics.contains(graph.value_name(mean)) };
    let moves = by_batch && !still.contains(graph.value_name(mean));
    if was_training && !moves && matches!(mode, Mode::Train { .. }) && !still.contains(graph.value_name(mean)) {
        let reason = format!("normalizes by the batch, but \"{}\" is no running statistic", graph.value_name(mean));
        return Err(TrainingError::Node { node: node.name.clone(), reason });
    }
    if !computed && (matches!(mode, Mode::Eval) || !moves) {
        let mut attributes = node.attributes.clone();
        attributes.remove("training_mode");
        let inputs = [x, scale, bias, mean, var].map(|id| Some(f.map[&id]));
        let one = Node { attributes, outputs: vec![Some(y)], ..node.clone() };
        let outputs = f.b.copy_node(graph, &one, &inputs);
        f.map.extend(outputs[0].map(|new| (y, new)));
        for (index, old) in [(1, mean), (2, var)] {
            if let Some(output) = node.output(index) {
                f.map.insert(output, f.map[&old]);
            }
        }
        return Ok(());
    }
    if graph.fact(x).rank().is_none_or(|rank| rank < 2) {
        let reason = format!("needs an input of rank 2 or more, \"{}\" is {}", graph.value_name(x), graph.fact(x));
        return Err(TrainingError::Node { node: node.name.clone(), reason });
    }
    let epsilon = node.attributes.float("epsilon", 1e-5).map_err(|error| attribute(node, &error))?;
    let momentum = f64::from(node.attributes.float("momentum", 0.9).map_err(|error| attribute(node, &error))?);
    let [new_x, scale, bias] = [x, scale, bias].map(|id| f.map[&id]);
    let [new_y, batch_mean, batch_var, ..] = batch_norm_node(&mut f.b, new_x, scale, bias, epsilon);
    f.b.refine(new_y, graph.fact(y));
    f.b.rename(new_y, graph.value_name(y));
    f.map.insert(y, new_y);
    f.b.enter(Origin::Update(graph.value_name(mean).to_string()), &format!("{}/running", node.name));
    let batch_var = if as_written { batch_var } else { unbiased(&mut f.b, new_x, batch_var) };
    for (index, old, batch) in [(1, mean, batch_mean), (2, var, batch_var)] {
        let chained = running.get(&old).copied().filter(|_| !as_written);
        let current = chained.unwrap_or(f.map[&old]);
        let kept = f.b.scale(current, momentum);
        let added = f.b.scale(batch, 1.0 - momentum);
        let moved = f.b.add(kept, added);
        running.insert(old, moved);
        if let Some(output) = node.output(index) {
            f.map.insert(output, moved);
        }
    }
    Ok(())
}

/// Returns true for what depends on an input or a parameter.
pub(super) fn is_computed(graph: &Graph, value: ValueId) -> bool {
    graph.producer(value).is_some() && graph.constant(value).is_none()
}

/// `var * n / (n - 1)`, with `n` the elements per channel, as PyTorch keeps it.
fn unbiased(b: &mut Builder, x: ValueId, var: ValueId) -> ValueId {
    let sizes = b.fact(x).sizes();
    let channels = b.fact(x).dim(1).and_then(crate::graph::Dim::known);
    if let (Some(sizes), Some(channels)) = (&sizes, channels) {
        let count = (sizes.iter().product::<usize>() / channels.max(1)) as f64;
        return b.scale(var, count / (count - 1.0).max(1.0));
    }
    let dtype = b.dtype(x);
    let size = b.unary("Size", x);
    let size = b.cast(size, dtype);
    let width = b.unary("Size", var);
    let width = b.cast(width, dtype);
    let count = b.div(size, width);
    let less = b.shift(count, -1.0);
    let one = b.like(x, 1.0);
    let less = b.op("Max", &[less, one], Attributes::none());
    let factor = b.div(count, less);
    b.mul(var, factor)
}

/// Puts random values that follow from the step in the place of a random node.
fn drawn(f: &mut Forward, graph: &Graph, node: &Node, source: Option<&Random>) -> Result<(), TrainingError> {
    let Some(source) = source else {
        copy(f, graph, node);
        return Ok(());
    };
    let inputs: Vec<Option<ValueId>> = node.inputs.iter().map(|input| input.map(|id| f.map[&id])).collect();
    let made = source.node(&mut f.b, graph, node, &inputs)?;
    for (old, new) in node.outputs.iter().zip(made).filter_map(|(old, new)| Some(((*old)?, new))) {
        f.b.refine(new, graph.fact(old));
        f.b.rename(new, graph.value_name(old));
        f.map.insert(old, new);
    }
    Ok(())
}

fn dropout(
    f: &mut Forward,
    graph: &Graph,
    node: &Node,
    mode: &Mode<'_>,
    source: Option<&Random>,
) -> Result<(), TrainingError> {
    let missing = |reason: &str| TrainingError::Node { node: node.name.clone(), reason: reason.into() };
    let x = node.input(0).ok_or_else(|| missing("has no input"))?;
    let y = node.output(0).ok_or_else(|| missing("has no output"))?;
    let random = match node.input(2) {
        None => false,
        Some(flag) => {
            let flag = graph.constant(flag).and_then(|tensor| tensor.to_f64s());
            let flag = flag.ok_or_else(|| missing("its training_mode is computed while the model runs"))?;
            flag.first().is_some_and(|value| *value != 0.0)
        }
    };
    let passes = |frozen: &HashSet<&str>| frozen.contains(graph.value_name(y));
    if random && matches!(mode, Mode::Train { frozen, .. } if !passes(frozen)) {
        return drawn(f, graph, node, source);
    }
    let passed = identity(f, graph, x, y);
    f.map.insert(y, passed);
    if let Some(mask) = node.output(1) {
        let keeps = f.b.constant("keeps", Tensor::scalar(true));
        let all = f.b.expand_like(keeps, f.map[&y]);
        f.b.rename(all, graph.value_name(mask));
        f.map.insert(mask, all);
    }
    Ok(())
}

/// Passes a value on: under the name of the removed output where that is a graph output.
fn identity(f: &mut Forward, graph: &Graph, x: ValueId, y: ValueId) -> ValueId {
    if !graph.outputs().contains(&y) {
        return f.map[&x];
    }
    let new = f.b.unary("Identity", f.map[&x]);
    f.b.refine(new, graph.fact(y));
    f.b.rename(new, graph.value_name(y));
    new
}

fn attribute(node: &Node, error: &crate::graph::AttrError) -> TrainingError {
    TrainingError::Node { node: node.name.clone(), reason: error.to_string() }
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::analysis::Analysis;
    use crate::graph::{Attributes, Builder, DType, Dim, Fact, Model, OpId, Tensor};
    use crate::losses::{LossKind, LossSpec};
    use crate::optim::{OptimizerKind, OptimizerSpec};
    use crate::runner::{evaluate, testing};
    use crate::training::{PhaseOptions, Rates, build, prepare};
    use std::collections::HashSet;

    /// `y = x w^T` with the rows of w standardized, by BatchNormalization or written out.
    fn standardized(by_operator: bool) -> Model {
        let mut b = Builder::new("standardized");
        let x = b.input("x", Fact::new(DType::F32, vec![Dim::Symbol("batch".into()), Dim::Known(3)]));
        let values = vec![0.5_f32, -1.0, 2.0, 0.1, 0.9, -0.4];
        let w = b.initializer("fc.weight", Tensor::from_vec(&[2, 3], values));
        let mean = b.reduce("ReduceMean", w, &[1], false);
        let column = b.unsqueeze(mean, &[1]);
        let centered = b.sub(w, column);
        let square = b.mul(centered, centered);
        let var = b.reduce("ReduceMean", square, &[1], false);
        let rows = if by_operator {
            let row = b.unsqueeze(w, &[0]);
            let all = |value| Tensor::float_full(DType::F32, &[2], value);
            let (one, zero) = (b.initializer("val_1", all(1.0)), b.initializer("val_2", all(0.0)));
            let attributes = Attributes::none().with("training_mode", 1).with("epsilon", 1e-3_f32);
            let inputs = [row, one, zero, mean, var].map(Some);
            let normal = b.ops(&OpId::standard("BatchNormalization"), &inputs, attributes, 3)[0];
            b.squeeze(normal, &[0])
        } else {
            let var = b.shift(var, 1e-3);
            let std = b.unary("Sqrt", var);
            let std = b.unsqueeze(std, &[1]);
            b.div(centered, std)
        };
        let y = b.op("Gemm", &[x, rows], Attributes::none().with("transB", 1));
        b.output(y, "y");
        Model { graph: b.finish(), opsets: [(String::new(), 18)].into(), ir_version: 8, ..Model::default() }
    }

    #[test]
    fn what_no_statistic_belongs_to_is_normalized_by_itself() {
        let [found, expected] = [true, false].map(|by_operator| {
            let prepared = prepare(&Analysis::of(&standardized(by_operator))).unwrap();
            let options = PhaseOptions {
                frozen: HashSet::new(),
                frozen_inputs: false,
                rates: Rates::new(),
                loss: &LossSpec::new(LossKind::Mse),
                optimizer: &OptimizerSpec::new(OptimizerKind::Sgd),
                output: None,
                seed: 0,
            };
            let step = build(&prepared, &options).unwrap();
            let x = Tensor::from_vec(&[2, 3], vec![0.3_f32, 1.0, -0.5, 0.2, -0.7, 0.6]);
            let target = Tensor::from_vec(&[2, 2], vec![0.1_f32, 0.4, -0.2, 0.3]);
            let w = prepared.model.graph.find("fc.weight").unwrap();
            let w = prepared.model.graph.value(w).initializer.clone().unwrap();
            let feeds = [("x", &x), ("target", &target), ("fc.weight", &w)];
            let outputs = evaluate(&mut testing::onnxruntime(), &step.train, &feeds).unwrap();
            let graph = &step.train.graph;
            let at = |name: &str| graph.outputs().iter().position(|id| graph.value_name(*id) == name).unwrap();
            outputs[at("fc.weight.grad")].to_f64s().unwrap()
        });
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-5 && *expected != 0.0, "{found} and {expected}");
        }
    }
}
