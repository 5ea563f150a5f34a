//! From the training information of a file to a [`Stage`] on a prepared model.

use super::arrange::{Arranged, arrange};
use super::dependence::{Dependence, owners};
use super::{Binding, Gradient, Holder, PREVIEW, Stage, StageError, StageSlot, losses, rule::Rule};
use crate::analysis::Analysis;
use crate::autodiff::{Form, Rules};
use crate::facts;
use crate::graph::{Attribute, Builder, Fact, Graph, Model, NodeId, ValueId, prune, upgrade};
use crate::losses::{LossKind, LossSpec};
use crate::modules::{Param, Role, UnitKind, units};
use crate::onnx::OnnxFile;
use crate::training::{Prepared, TrainingError, names};
use std::collections::{BTreeMap, HashSet};

/// Prepares training step `number`, from 1, of an analysed file: the joined graph, whose
/// parameters are those that the step updates, and the step.
///
/// # Errors
/// There is no such step, or it cannot be run as the standard defines it.
pub fn prepare(file: &OnnxFile, analysis: &Analysis, number: usize) -> Result<(Prepared, Stage), TrainingError> {
    let count = file.training.len();
    let info = file.training.get(number.wrapping_sub(1)).ok_or(StageError::NoStage { number, count })?;
    let arranged = arrange(info, &file.model.graph, analysis)?;
    let model = file.model.with_graph(arranged.graph.clone());
    let model = upgrade(&with_facts(&model))?;
    let target = arranged.target.as_ref().and_then(|_| model.graph.find(names::TARGET));
    let metrics = metrics(&model.graph, &file.model.graph, target);
    let model = Model { graph: losses::expand(&model.graph)?, ..model };
    let changing = info.update_binding.iter().chain(&info.initialization_binding);
    let keep: HashSet<&str> = changing.map(|(key, _)| arranged.name(key)).collect();
    let model = facts::fold(&with_facts(&model), &keep);
    let graph = &model.graph;
    let role = |name: &str| match analysis.trainable().contains(&name) {
        true => Role::Trainable,
        false => Role::Statistic,
    };
    let keys: HashSet<&str> = info.update_binding.iter().map(|(key, _)| key.as_str()).collect();
    let held = graph.initializers().filter(|(_, value, _)| keys.contains(value.name.as_str()));
    let parameters: Vec<Param> = held
        .map(|(value, v, _)| Param {
            value,
            name: v.name.clone(),
            role: role(&v.name),
            reason: "the training information updates it".into(),
        })
        .collect();
    let stage = assemble(file, number, &arranged, graph, &parameters, metrics)?;
    let tree = &analysis.tree;
    let nodes = analysis.model.graph.node_ids();
    let modules = nodes.map(|(id, node)| (node.name.clone(), tree.module(tree.module_of_node(id)).path.clone()));
    let units = units(tree, UnitKind::Leaf);
    let (modules, form, rules) = (modules.collect(), Form::Portable, Rules::new());
    let prepared = Prepared { modules, parameters, model, units, form, scaled: false, rules };
    if prepared.trainable().is_empty() {
        return Err(TrainingError::NoParameters);
    }
    Ok((prepared, stage))
}

/// Returns the model with every fact that can be had of what comes before the gradients.
fn with_facts(model: &Model) -> Model {
    let graph = &model.graph;
    let mut unknown: HashSet<ValueId> = HashSet::new();
    let mut read: HashSet<ValueId> = HashSet::new();
    for node in graph.nodes() {
        read.extend(node.inputs.iter().flatten());
        if node.op.domain == PREVIEW || node.inputs.iter().flatten().any(|input| unknown.contains(input)) {
            unknown.extend(node.outputs.iter().flatten());
        }
    }
    let mut before = graph.clone();
    let made = graph.nodes().iter().flat_map(|node| node.outputs.iter().flatten().copied());
    before.outputs = made.filter(|value| !unknown.contains(value)).collect();
    let completed = facts::complete(&model.with_graph(prune(&before))).model.graph;
    let mut b = Builder::extend(graph.clone());
    for (id, value) in graph.values() {
        let known = completed.find(&value.name).map(|known| completed.fact(known).clone());
        known.into_iter().for_each(|known| b.refine(id, &known));
    }
    model.with_graph(b.finish())
}

fn metrics(graph: &Graph, inference: &Graph, target: Option<ValueId>) -> LossSpec {
    let loss = graph.nodes().iter().find(|node| node.op.domain == PREVIEW && node.op.name == "Gradient");
    let loss = loss.and_then(|node| graph.find(&node.attributes.text("y", "").ok()?));
    let prediction = inference.outputs().first().and_then(|id| graph.find(inference.value_name(*id)));
    match (loss, prediction, target) {
        (Some(loss), Some(prediction), Some(target)) => losses::metrics(graph, loss, prediction, target),
        _ => LossSpec::new(LossKind::Output),
    }
}

fn assemble(
    file: &OnnxFile,
    number: usize,
    arranged: &Arranged,
    graph: &Graph,
    parameters: &[Param],
    metrics: LossSpec,
) -> Result<Stage, TrainingError> {
    let info = &file.training[number - 1];
    let mut rules = BTreeMap::new();
    let mut gradients = Vec::new();
    let mut made: HashSet<ValueId> = HashSet::new();
    for (id, node) in graph.node_ids() {
        if node.op.domain == PREVIEW {
            made.extend(node.outputs.iter().flatten());
        }
        if let Some(rule) = Rule::of(node)? {
            rules.insert(id, rule);
        } else if node.op.domain == PREVIEW && node.op.name != "Gradient" {
            let reason = format!("is no operator of {PREVIEW}");
            return Err(StageError::Node { node: node.name.clone(), op: node.op.name.clone(), reason }.into());
        }
    }
    for (id, _) in graph.node_ids().filter(|(_, node)| node.op.domain == PREVIEW && node.op.name == "Gradient") {
        gradients.push(gradient(graph, id, &made)?);
    }
    if gradients.is_empty() {
        return Err(StageError::NoGradient.into());
    }
    let mut bindings = Vec::new();
    for (key, value) in &info.update_binding {
        let fail = |reason: String| StageError::Binding { key: key.clone(), value: value.clone(), reason };
        let found = (graph.find(key), graph.find(arranged.name(value)));
        let (Some(key_id), Some(value_id)) = found else { return Err(fail("there is no such value".into()).into()) };
        let (held, given) = (graph.fact(key_id), graph.fact(value_id));
        if !fits(held, given) {
            return Err(fail(format!("{held} cannot hold {given}")).into());
        }
        let holder = match parameters.iter().find(|parameter| parameter.name == *key).map(|parameter| parameter.role) {
            None => Holder::Slot,
            Some(Role::Trainable) => Holder::Parameter,
            Some(_) => Holder::Statistic,
        };
        if holder != Holder::Slot && !held.is_float() {
            return Err(fail(format!("a value of the model must be floating-point to change, found {held}")).into());
        }
        bindings.push(Binding { key: key_id, value: value_id, holder });
    }
    let owners = owners(graph, &gradients, &rules, &bindings);
    let keys = bindings.iter().filter(|binding| binding.holder == Holder::Slot).map(|binding| binding.key);
    let slot_ids: HashSet<ValueId> = keys.clone().collect();
    let slots = keys.map(|key| {
        let name = graph.value_name(key).to_string();
        let owner = owners.get(&key).map(|owner| graph.value_name(*owner).to_string());
        StageSlot { owner, initial: arranged.slots[&name].clone(), name }
    });
    let slots = slots.collect();
    let dependence = Dependence::of(graph, &gradients, &rules, &slot_ids);
    let starts: Vec<(String, String)> = info
        .initialization_binding
        .iter()
        .map(|(key, value)| (arranged.name(key).to_string(), value.clone()))
        .collect();
    for (key, value) in &starts {
        let bound = info.update_binding.iter().any(|(bound, _)| bound == key);
        if !bound && graph.find(key).is_none_or(|id| !graph.fact(id).is_float()) {
            let reason = "only state and floating-point initializers can be given a starting value".to_string();
            return Err(StageError::Binding { key: key.clone(), value: value.clone(), reason }.into());
        }
    }
    let rate = rate(graph, &rules, &starts);
    let initialization = info.initialization.clone().filter(|_| !info.initialization_binding.is_empty());
    let loss = graph.value_name(gradients[0].y);
    let loss_name = arranged.renamed.iter().find(|(_, new)| *new == loss).map_or(loss, |(old, _)| old).to_string();
    Ok(Stage {
        number,
        loss_name,
        target: arranged.target.clone(),
        metrics,
        rate,
        slots,
        shown: file.model.graph.outputs().iter().map(|id| file.model.graph.value_name(*id).to_string()).collect(),
        gradients,
        rules,
        bindings,
        dependence,
        initialization: initialization.map(|graph| {
            let ir_version = file.model.ir_version.clamp(8, 10);
            Model { graph, ir_version, metadata: Vec::new(), ..file.model.clone() }
        }),
        starts,
    })
}

fn fits(held: &Fact, given: &Fact) -> bool {
    let dtype = given.dtype.is_none() || given.dtype == held.dtype;
    let shape = match (&held.shape, &given.shape) {
        (Some(held), Some(given)) => {
            held.len() == given.len()
                && held.iter().zip(given).all(|(held, given)| match (held.known(), given.known()) {
                    (Some(held), Some(given)) => held == given,
                    _ => true,
                })
        }
        _ => true,
    };
    dtype && shape
}

fn gradient(graph: &Graph, id: NodeId, made: &HashSet<ValueId>) -> Result<Gradient, StageError> {
    let node = graph.node(id);
    let fail = |reason: String| StageError::Node { node: node.name.clone(), op: node.op.name.clone(), reason };
    let list = |name: &str| match node.attributes.get(name) {
        None => Ok(Vec::new()),
        Some(Attribute::Strings(texts)) => {
            Ok(texts.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect())
        }
        Some(_) => Err(fail(format!("attribute \"{name}\" is no list of strings"))),
    };
    let find = |name: &str, attribute: &str| {
        graph.find(name).ok_or_else(|| fail(format!("{attribute} names \"{name}\", which is no value of the step")))
    };
    let (xs, zs) = (list("xs")?, list("zs")?);
    let y = node.attributes.text("y", "").map_err(|error| fail(error.to_string()))?;
    let y = find(&y, "y")?;
    if node.outputs.len() > xs.len() {
        return Err(fail(format!("has {} outputs for {} names in xs", node.outputs.len(), xs.len())));
    }
    let named = xs.iter().map(|name| find(name, "xs")).chain(zs.iter().map(|name| find(name, "zs")));
    let named = named.collect::<Result<Vec<ValueId>, _>>()?;
    let inputs: Vec<ValueId> = node.inputs.iter().flatten().copied().collect();
    if inputs != named {
        let at = inputs.iter().zip(&named).find(|(a, b)| a != b);
        let names = |(a, b): (&ValueId, &ValueId)| {
            format!("its input \"{}\" stands for \"{}\"", graph.value_name(*a), graph.value_name(*b))
        };
        let what = at.map_or_else(|| format!("it has {} inputs for {} names", inputs.len(), named.len()), names);
        return Err(fail(format!("the inputs must be the tensors of xs and then zs: {what}")));
    }
    let reached = ancestors(graph, y);
    if reached.iter().any(|value| made.contains(value)) {
        let y = graph.value_name(y);
        return Err(fail(format!("\"{y}\" depends on a gradient; gradients of gradients are not built")));
    }
    let fact = graph.fact(y);
    let one = fact.shape.as_ref().is_none_or(|shape| shape.iter().all(|dim| dim.known() == Some(1)));
    if !one || fact.dtype.is_some_and(|dtype| !dtype.is_float()) {
        return Err(fail(format!("y must be one floating-point number, \"{}\" is {fact}", graph.value_name(y))));
    }
    let xs = named[..xs.len()].to_vec();
    for (x, output) in xs.iter().zip(&node.outputs) {
        if output.is_some() && !reached.contains(x) {
            let (x, y) = (graph.value_name(*x), graph.value_name(y));
            return Err(fail(format!("\"{y}\" does not depend on \"{x}\", which xs names")));
        }
    }
    Ok(Gradient { node: id, y, xs })
}

/// Returns a value and everything that it is computed from.
pub(super) fn ancestors(graph: &Graph, value: ValueId) -> HashSet<ValueId> {
    let mut found = HashSet::from([value]);
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        let Some(node) = graph.producer(value).map(|id| graph.node(id)) else { continue };
        let captured: Vec<ValueId> = node.captured().filter_map(|name| graph.find(name)).collect();
        for input in node.inputs.iter().flatten().chain(&captured) {
            if found.insert(*input) {
                open.push(*input);
            }
        }
    }
    found
}

/// Returns the learning rate that every optimizer node has, where it is one constant.
fn rate(graph: &Graph, rules: &BTreeMap<NodeId, Rule>, starts: &[(String, String)]) -> Option<f64> {
    let mut rates = rules.keys().map(|id| {
        let rate = graph.node(*id).input(0)?;
        if starts.iter().any(|(key, _)| key == graph.value_name(rate)) {
            return None;
        }
        let values = graph.constant(rate)?.to_f64s()?;
        values.first().copied().filter(|_| values.len() == 1)
    });
    let first = rates.next()??;
    rates.all(|rate| rate == Some(first)).then_some(first)
}
