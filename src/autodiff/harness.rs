//! Tests every rule the same way: against finite differences, on every engine.
//!
//! A case is one node. The loss is `sum(c * y)` with fixed random `c` for every floating-point
//! output. Each wanted gradient is compared, as a dot product in f64 with one random direction,
//! with the central difference of the forward pass; its shape must be the input's; wanting fewer
//! inputs must never build more nodes.
//!
//! A case is built at its opset and upgraded before it is differentiated, as a model is. Every case
//! that ONNX Runtime accepts at the first or last opset of its rule is tested there again (`ends`), and every case that
//! it computes in float64 must have the same gradients there (`doubles`).

mod case;
mod doubles;
mod ends;
mod reductions;

pub use case::Case;
pub use reductions::reductions;

use super::gradients;
use crate::graph::{
    Attributes, Builder, DType, Dim, Fact, Graph, INTERNAL_DOMAIN, Model, Node, Tensor, ValueId, check as check_graph,
    prune, upgrade,
};
use crate::runner::{Engine, evaluate, testing};
use case::{Input, random};
use std::collections::{BTreeMap, BTreeSet};

/// Largest deviation relative to the size of the dot product's terms, for float32.
const TOLERANCE: f64 = 2e-3;

/// Runs the cases on every engine, and on ONNX Runtime at both ends of the rules' opset ranges, and
/// reports every failure.
#[track_caller]
pub fn check(cases: &[Case]) {
    let file = std::panic::Location::caller().file();
    let mut failures = Vec::new();
    for mut engine in testing::engines() {
        let embedded = engine.info().name == "tract";
        if !embedded {
            failures.extend(ends::failures(cases, file, engine.as_mut()));
            failures.extend(doubles::failures(cases, engine.as_mut()));
        }
        for case in cases.iter().filter(|case| if embedded { case.embedded } else { case.runtime }) {
            if let Err(reason) = check_case(case, engine.as_mut()) {
                failures.push(format!("{} [{}] {}: {reason}", case.op, engine.info().name, case.name));
            }
        }
    }
    println!("{}", covered(cases));
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// Says how many cases each operator has here, and at which opsets they are tested.
fn covered(cases: &[Case]) -> String {
    let mut counts: BTreeMap<String, (usize, BTreeSet<i64>)> = BTreeMap::new();
    for case in cases {
        let (count, opsets) = counts.entry(case.op.to_string()).or_default();
        *count += 1;
        opsets.insert(case.opset);
        opsets.extend(ends::ends(&case.op));
    }
    let line = |(op, (count, opsets)): (&String, &(usize, BTreeSet<i64>))| {
        let opsets: Vec<String> = opsets.iter().map(i64::to_string).collect();
        format!("{op}: {count} cases at opsets {}", opsets.join(", "))
    };
    counts.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A case's gradients with what they were computed from.
struct Found {
    forward: Model,
    feeds: Vec<(String, Tensor)>,
    cotangents: Vec<Tensor>,
    /// Positions of the inputs with their gradients.
    grads: Vec<(usize, Tensor)>,
}

fn check_case(case: &Case, engine: &mut dyn Engine) -> Result<(), String> {
    let found = differentiate(case, engine)?;
    for (index, grad) in &found.grads {
        let Input::Float(input) = &case.inputs[*index] else { continue };
        if grad.shape() != input.shape() || grad.dtype() != input.dtype() {
            let (fact, of_input) = (Fact::fixed(grad.dtype(), grad.shape()), Fact::fixed(input.dtype(), input.shape()));
            return Err(format!("gradient {index} is {fact}, the input {of_input}"));
        }
        let grad = grad.to_f64s().unwrap();
        if let Some((_, expected)) = case.expected.iter().find(|entry| entry.0 == *index) {
            let close = |a: f64, b: f64| a == b || (a - b).abs() <= 1e-5 * (1.0 + a.abs()) && a.is_finite();
            let same = grad.iter().zip(expected).all(|(a, b)| close(*a, f64::from(*b)));
            if !same || grad.len() != expected.len() {
                return Err(format!("gradient {index} is {grad:?}, expected {expected:?}"));
            }
            continue;
        }
        compare(case, engine, &found, *index, &grad)?;
    }
    Ok(())
}

fn differentiate(case: &Case, engine: &mut dyn Engine) -> Result<Found, String> {
    let forward = if super::is_newer(&case.op) { forward_model(case, None) } else { upgraded(case, None)? };
    let forward = if case.reference.is_some() { decomposed(forward)? } else { forward };
    let feeds = feeds(case);
    let forward = Model { graph: crate::autodiff::lower(&forward.graph), ..forward };
    let outputs = run(engine, &forward, &feeds)?;
    let facts: Vec<Fact> = outputs.iter().map(|tensor| Fact::fixed(tensor.dtype(), tensor.shape())).collect();
    match &case.reference {
        None => decomposed_is_equal(case, engine, &facts, &feeds, &outputs)?,
        Some(expected) => {
            let (found, expected) =
                (outputs[0].to_f64s().unwrap(), expected.iter().map(|v| f64::from(*v)).collect::<Vec<_>>());
            same_elements(0, &expected, &found)?;
        }
    }
    let wanted: Vec<usize> =
        (0..case.inputs.len()).filter(|index| matches!(case.inputs[*index], Input::Float(_))).collect();
    let cotangents: Vec<Tensor> = outputs
        .iter()
        .enumerate()
        .map(|(index, tensor)| {
            let elements = match case.expected.is_empty() {
                true => random(tensor.shape(), -1.0, 1.0, 91 + index as u64),
                false => Tensor::float_full(DType::F32, tensor.shape(), 1.0),
            };
            if tensor.dtype() == DType::F64 { double(&elements) } else { elements }
        })
        .collect();
    let (model, nodes) = backward_model(case, &facts, &cotangents, &wanted)?;
    for index in &wanted {
        let (_, fewer) = backward_model(case, &facts, &cotangents, &[*index])?;
        if fewer > nodes {
            return Err(format!("input {index} alone takes {fewer} nodes, all take {nodes}"));
        }
    }
    let mut all = feeds.clone();
    all.extend(cotangents.iter().enumerate().map(|(index, c)| (format!("c{index}"), c.clone())));
    all.retain(|(name, _)| model.graph.find(name).is_some());
    let grads = wanted.into_iter().zip(run(engine, &model, &all)?).collect();
    Ok(Found { forward, feeds, cotangents, grads })
}

/// Returns a tensor in float64 if it is of float32.
fn double(tensor: &Tensor) -> Tensor {
    match tensor.dtype() {
        DType::F32 => Tensor::from_vec(tensor.shape(), tensor.to_f64s().unwrap_or_default()),
        _ => tensor.clone(),
    }
}

/// Compares what a decomposed operator computes with what the engine's own kernel does.
fn decomposed_is_equal(
    case: &Case,
    engine: &mut dyn Engine,
    facts: &[Fact],
    feeds: &[(String, Tensor)],
    outputs: &[Tensor],
) -> Result<(), String> {
    let forward = forward_model(case, Some(facts));
    let version = forward.opsets.get(&case.op.domain).copied().unwrap_or(1);
    if super::find_decomposition(&case.op, version).is_none() {
        return Ok(());
    }
    let forward = decomposed(forward)?;
    let forward = Model { graph: super::lower(&forward.graph), ..forward };
    for (index, (own, parts)) in outputs.iter().zip(run(engine, &forward, feeds)?).enumerate() {
        same_elements(index, &own.to_f64s().unwrap(), &parts.to_f64s().unwrap())?;
    }
    Ok(())
}

fn decomposed(model: Model) -> Result<Model, String> {
    let graph = super::decompose(&model.graph, &model.opsets, |_| true).map_err(|error| format!("{error:?}"))?;
    check_graph(&graph).map_err(|error| error.to_string())?;
    Ok(Model { graph, ..model })
}

fn same_elements(index: usize, own: &[f64], parts: &[f64]) -> Result<(), String> {
    let size = own.iter().fold(0f64, |most, value| most.max(value.abs()));
    let far = |(a, b): (&f64, &f64)| (a - b).abs() > 1e-5 * size.max(1.0) || b.is_nan();
    if own.len() != parts.len() || own.iter().zip(parts).any(far) {
        return Err(format!("output {index} is {own:?}, its decomposition gives {parts:?}"));
    }
    Ok(())
}

fn compare(case: &Case, engine: &mut dyn Engine, found: &Found, index: usize, grad: &[f64]) -> Result<(), String> {
    let Found { forward, feeds, cotangents, .. } = found;
    let Input::Float(input) = &case.inputs[index] else { return Ok(()) };
    let values = input.to_f64s().unwrap();
    let direction = random(input.shape(), -1.0, 1.0, 171 + index as u64).to_f64s().unwrap();
    let mut along = |sign: f64| -> Result<f64, String> {
        let moved: Vec<f32> = values.iter().zip(&direction).map(|(v, d)| (v + sign * case.step * d) as f32).collect();
        let mut feeds = feeds.clone();
        let name = format!("x{index}");
        feeds.iter_mut().filter(|feed| feed.0 == name).for_each(|feed| {
            feed.1 = Tensor::from_vec(input.shape(), moved.clone());
        });
        let outputs = run(engine, forward, &feeds)?;
        let mut total = 0.0;
        let counted = outputs.iter().zip(cotangents).take(case.in_loss);
        for (output, cotangent) in counted.filter(|(output, _)| output.dtype().is_float()) {
            let (y, c) = (output.to_f64s().unwrap(), cotangent.to_f64s().unwrap());
            total += y.iter().zip(&c).map(|(y, c)| y * c).sum::<f64>();
        }
        Ok(total)
    };
    let numeric = (along(1.0)? - along(-1.0)?) / (2.0 * case.step);
    let analytic: f64 = grad.iter().zip(&direction).map(|(g, d)| g * d).sum();
    let size: f64 = grad.iter().zip(&direction).map(|(g, d)| (g * d).powi(2)).sum::<f64>().sqrt();
    if (numeric - analytic).abs() > TOLERANCE * (size + numeric.abs() + 0.05) || !analytic.is_finite() {
        return Err(format!("gradient {index} along a direction is {analytic}, the finite difference {numeric}"));
    }
    Ok(())
}

/// Returns the node's model at an opset that rules know.
fn upgraded(case: &Case, facts: Option<&[Fact]>) -> Result<Model, String> {
    let raw = forward_model(case, facts);
    let newer = |node: &Node| super::is_newer(&node.op);
    let graph = super::decompose(&raw.graph, &raw.opsets, newer).map_err(|error| format!("{error:?}"))?;
    upgrade(&raw.with_graph(graph)).map_err(|error| error.to_string())
}

fn forward_model(case: &Case, facts: Option<&[Fact]>) -> Model {
    let mut b = Builder::new("case");
    let mut ids = Vec::new();
    for (index, input) in case.inputs.iter().enumerate() {
        let name = format!("x{index}");
        ids.push(match input {
            Input::Missing => None,
            Input::Float(tensor) | Input::Fed(tensor) => {
                let mut fact = Fact::fixed(tensor.dtype(), tensor.shape());
                if case.batch.contains(&index) {
                    fact.shape.as_mut().unwrap()[0] = Dim::Symbol("batch".into());
                }
                for (_, axis, symbol) in case.symbols.iter().filter(|entry| entry.0 == index) {
                    fact.shape.as_mut().unwrap()[*axis] = Dim::Symbol(symbol.to_string());
                }
                Some(b.input(&name, fact))
            }
            Input::Fixed(tensor) => Some(b.initializer(&name, tensor.clone())),
        });
    }
    let outputs = b.ops(&case.op, &ids, case.attributes.clone(), case.outputs);
    let kept = (0..case.outputs).filter(|index| !case.without.contains(index));
    for (index, output) in kept.map(|index| &outputs[index]).enumerate() {
        if let Some(facts) = facts {
            let mut fact = facts[index].clone();
            if !case.symbols.is_empty() {
                fact.shape.iter_mut().flatten().for_each(|dim| *dim = Dim::Unknown);
            }
            if let Some(Input::Float(first)) = case.batch.first().and_then(|index| case.inputs.get(*index)) {
                let dims = fact.shape.as_mut().unwrap().iter_mut().take(1);
                dims.filter(|dim| dim.known() == Some(first.shape()[0])).for_each(|dim| {
                    *dim = Dim::Symbol("batch".into());
                });
            }
            b.refine(*output, &fact);
        }
        b.rename(*output, &format!("y{index}"));
        b.mark_output(*output);
    }
    let mut graph = b.finish();
    for index in &case.without {
        graph.nodes[0].outputs[*index] = None;
        graph.producers.remove(&outputs[*index]);
    }
    model(graph, case, case.opset)
}

fn backward_model(
    case: &Case,
    facts: &[Fact],
    cotangents: &[Tensor],
    wanted: &[usize],
) -> Result<(Model, usize), String> {
    let raw = forward_model(case, Some(facts));
    let graph = super::decompose(&raw.graph, &raw.opsets, |_| true).map_err(|error| format!("{error:?}"))?;
    let forward = upgrade(&raw.with_graph(graph)).map_err(|error| error.to_string())?;
    let opset = forward.opset();
    let outputs: Vec<ValueId> = forward.graph.outputs().to_vec();
    let mut b = Builder::extend(forward.graph);
    b.enter(crate::graph::Origin::Loss, "loss");
    let mut terms = Vec::new();
    for (output, cotangent) in outputs.iter().zip(cotangents).take(case.in_loss) {
        if b.fact(*output).is_float() {
            let (name, fact) = (b.graph().value_name(*output).replace('y', "c"), b.fact(*output).clone());
            let c = b.input(&name, fact);
            let product = b.mul(*output, c);
            let rank = cotangent.shape().len() as i64;
            let term = b.reduce("ReduceSum", product, &(0..rank).collect::<Vec<_>>(), false);
            let dtype = terms.first().map_or(b.dtype(term), |first| b.dtype(*first));
            terms.push(if b.dtype(term) == dtype { term } else { b.cast(term, dtype) });
        }
    }
    let loss = b.op("Sum", &terms, Attributes::none());
    let wrt: Vec<ValueId> = wanted.iter().map(|index| b.graph().find(&format!("x{index}")).unwrap()).collect();
    let grads = gradients(&mut b, opset, loss, &wrt).map_err(|error| format!("{error:?}"))?;
    let mut results = Vec::new();
    for (index, grad) in wanted.iter().zip(grads) {
        let grad = grad.ok_or_else(|| format!("no gradient reaches input {index}"))?;
        results.push(b.output(grad, &format!("x{index}.grad")));
    }
    let graph = keep_outputs(b.finish(), &results);
    check_graph(&graph).map_err(|error| error.to_string())?;
    let graph = crate::autodiff::lower(&prune(&graph));
    check_graph(&graph).map_err(|error| error.to_string())?;
    let count = graph.nodes().len();
    Ok((model(graph, case, opset), count))
}

fn keep_outputs(mut graph: Graph, outputs: &[ValueId]) -> Graph {
    graph.outputs = outputs.to_vec();
    graph
}

fn model(graph: Graph, case: &Case, opset: i64) -> Model {
    let mut opsets = BTreeMap::from([(String::new(), opset)]);
    if !matches!(case.op.domain.as_str(), "" | INTERNAL_DOMAIN) {
        opsets.insert(case.op.domain.clone(), 1);
    }
    Model { graph, opsets, ir_version: 8, ..Model::default() }
}

fn feeds(case: &Case) -> Vec<(String, Tensor)> {
    let named = case.inputs.iter().enumerate().map(|(index, input)| (format!("x{index}"), input));
    named
        .filter_map(|(name, input)| match input {
            Input::Float(tensor) | Input::Fed(tensor) => Some((name, tensor.clone())),
            Input::Missing | Input::Fixed(_) => None,
        })
        .collect()
}

fn run(engine: &mut dyn Engine, model: &Model, feeds: &[(String, Tensor)]) -> Result<Vec<Tensor>, String> {
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    evaluate(engine, model, &feeds).map_err(|error| format!("{error}\n{}", crate::graph::dump(&model.graph)))
}
