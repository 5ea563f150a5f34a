//! Compares an optimizer graph with its scalar pseudo-code in f64, on every engine.

use super::{OptimizerSpec, Parameter};
use crate::graph::{DType, Fact, Graph, Model, Tensor, ValueId, check as check_graph};
use crate::runner::{Engine, evaluate, testing};
use std::collections::{BTreeMap, HashSet};

/// Largest deviation relative to `0.1 + |value|` after a few steps, for float32.
const TOLERANCE: f64 = 3e-6;

type Scalar = fn(&OptimizerSpec, f64, f64, &mut [f64], f64) -> f64;

/// An optimizer of a matrix, a vector and a scalar.
pub struct Case {
    name: &'static str,
    spec: OptimizerSpec,
    scalar: Scalar,
    step: f64,
}

impl Case {
    /// Returns a case; `scalar` takes options, parameter, gradient, slots and rate.
    pub fn new(name: &'static str, spec: &OptimizerSpec, scalar: Scalar) -> Case {
        Case { name, spec: spec.clone(), scalar, step: 0.0 }
    }

    /// Starts the scalar slots at a number.
    pub fn starting_at(mut self, step: f64) -> Case {
        self.step = step;
        self
    }
}

/// Parameters and slots between steps, by name.
pub type Values = BTreeMap<String, Tensor>;

/// Returns parameters `p0`, `p1`, .. and their slots before the first step.
pub fn start(spec: &OptimizerSpec, parameters: &[Tensor]) -> Values {
    let mut values = Values::new();
    for (index, parameter) in parameters.iter().enumerate() {
        values.insert(format!("p{index}"), parameter.clone());
        let own = Parameter::new("p", Fact::fixed(parameter.dtype(), parameter.shape()));
        for slot in spec.slots_of(&own) {
            let (dtype, shape) =
                if slot.scalar { (DType::F32, &[][..]) } else { (parameter.dtype(), parameter.shape()) };
            values.insert(format!("p{index}.{}", slot.name), Tensor::float_full(dtype, shape, slot.initial));
        }
    }
    values
}

/// Returns the graph of parameters like these, checked.
pub fn model(spec: &OptimizerSpec, parameters: &[Tensor]) -> Model {
    let fact = |tensor: &Tensor| Fact::fixed(tensor.dtype(), tensor.shape());
    let parameter = |(index, p): (usize, &Tensor)| Parameter::new(&format!("p{index}"), fact(p));
    checked(spec, &parameters.iter().enumerate().map(parameter).collect::<Vec<_>>())
}

/// Returns the graph of parameters, checked.
pub fn checked(spec: &OptimizerSpec, parameters: &[Parameter]) -> Model {
    let graph = spec.graph(parameters).unwrap();
    check_graph(&graph).unwrap();
    assert_eq!(readers_after_write(&graph), Vec::<String>::new());
    Model { graph, opsets: BTreeMap::from([(String::new(), 18)]), ir_version: 8, ..Model::default() }
}

/// Replaces parameters and slots by those after one step.
pub fn advance(engine: &mut dyn Engine, model: &Model, values: &mut Values, lr: f64, grads: &[Tensor]) {
    advance_scaled(engine, model, values, (lr, &[]), grads);
}

/// As [`advance`], with the elements of `lr_scale` beside the rate.
pub fn advance_scaled(
    engine: &mut dyn Engine,
    model: &Model,
    values: &mut Values,
    (lr, scales): (f64, &[f64]),
    grads: &[Tensor],
) {
    let lr = Tensor::scalar(lr as f32);
    let scales = Tensor::from_vec::<f32>(&[scales.len()], scales.iter().map(|scale| *scale as f32).collect());
    let grads: Vec<_> = grads.iter().enumerate().map(|(index, grad)| (format!("p{index}.grad"), grad)).collect();
    let read = |(name, _): &(&String, &Tensor)| model.graph.find(name).is_some();
    let mut feeds: Vec<(&str, &Tensor)> =
        values.iter().filter(read).map(|(name, value)| (name.as_str(), value)).collect();
    feeds.extend(grads.iter().map(|(name, grad)| (name.as_str(), *grad)));
    feeds.push(("lr", &lr));
    feeds.extend((!scales.is_empty()).then_some(("lr_scale", &scales)));
    let outputs = evaluate(engine, model, &feeds).unwrap();
    for (id, output) in model.graph.outputs().iter().zip(outputs) {
        let name = model.graph.value_name(*id).strip_suffix(".next").unwrap();
        let old = values.insert(name.to_string(), output.clone()).unwrap();
        assert_eq!((old.dtype(), old.shape()), (output.dtype(), output.shape()), "{name}");
    }
}

/// Runs three steps of the cases in float32 on every engine and reports every failure.
pub fn check(cases: &[Case]) {
    let mut failures = Vec::new();
    for mut engine in testing::engines() {
        let name = engine.info().name.clone();
        for case in cases {
            failures.extend(
                check_case(case, engine.as_mut()).into_iter().map(|text| format!("{} [{name}] {text}", case.name)),
            );
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

fn check_case(case: &Case, engine: &mut dyn Engine) -> Vec<String> {
    let shapes: [&[usize]; 3] = [&[2, 3], &[4], &[]];
    let parameters: Vec<Tensor> = shapes.iter().enumerate().map(|(seed, shape)| wave(shape, seed)).collect();
    let model = model(&case.spec, &parameters);
    let slots = case.spec.slots();
    let mut values = start(&case.spec, &parameters);
    for (name, value) in values.iter_mut().filter(|(name, _)| name.ends_with(".step")) {
        assert_eq!(value.shape(), [0usize; 0], "{name}");
        *value = Tensor::scalar(case.step as f32);
    }
    let mut scalars: Vec<Vec<f64>> = parameters.iter().map(|p| p.to_f64s().unwrap()).collect();
    let initial: Vec<f64> = slots.iter().map(|slot| if slot.scalar { case.step } else { slot.initial }).collect();
    let mut states: Vec<Vec<Vec<f64>>> = scalars.iter().map(|p| vec![initial.clone(); p.len()]).collect();
    for (step, lr) in [0.1, 0.1, 0.02].into_iter().enumerate() {
        let grads: Vec<Tensor> =
            shapes.iter().enumerate().map(|(seed, shape)| wave(shape, 5 + 7 * step + seed)).collect();
        advance(engine, &model, &mut values, lr, &grads);
        let bound = case.spec.clip_value.map_or(f64::INFINITY, f64::from);
        let clipped = |grad: &Tensor| grad.to_f64s().unwrap().into_iter().map(|g| g.clamp(-bound, bound)).collect();
        let grads: Vec<Vec<f64>> = grads.iter().map(clipped).collect();
        let norm = grads.iter().flatten().map(|g| g * g).sum::<f64>().sqrt();
        let factor = case.spec.clip_norm.map_or(1.0, |limit| (f64::from(limit) / (norm + 1e-6)).min(1.0));
        for ((p, state), grad) in scalars.iter_mut().zip(&mut states).zip(&grads) {
            for ((p, state), g) in p.iter_mut().zip(state).zip(grad) {
                *p = (case.scalar)(&case.spec, *p, g * factor, state, lr);
            }
        }
    }
    let mut failures = Vec::new();
    for (index, (p, state)) in scalars.iter().zip(&states).enumerate() {
        failures.extend(compare(&values, &format!("p{index}"), p));
        for (position, slot) in slots.iter().enumerate() {
            let count = if slot.scalar { 1 } else { p.len() };
            let expected: Vec<f64> = state[..count].iter().map(|state| state[position]).collect();
            failures.extend(compare(&values, &format!("p{index}.{}", slot.name), &expected));
        }
    }
    failures
}

/// Says where a value deviates.
pub fn compare(values: &Values, name: &str, expected: &[f64]) -> Option<String> {
    let found = values[name].to_f64s().unwrap();
    let close = |(a, b): (&f64, &f64)| (a - b).abs() <= TOLERANCE * (0.1 + b.abs());
    let same = found.len() == expected.len() && found.iter().zip(expected).all(close);
    (!same).then(|| format!("{name}: {found:?}, expected {expected:?}"))
}

/// Nodes that read a value and are no ancestor of the node that writes its `.next`.
fn readers_after_write(graph: &Graph) -> Vec<String> {
    let consumers = graph.consumers();
    let mut late = Vec::new();
    for output in graph.outputs() {
        let name = graph.value_name(*output).strip_suffix(".next").unwrap();
        let input = graph.find(name).unwrap();
        let writer = graph.producer(*output).unwrap();
        let mut ancestors = HashSet::from([writer]);
        let mut open: Vec<ValueId> = graph.node(writer).inputs.iter().flatten().copied().collect();
        while let Some(node) = open.pop().map(|value| graph.producer(value)) {
            if let Some(node) = node.filter(|node| ancestors.insert(*node)) {
                open.extend(graph.node(node).inputs.iter().flatten());
            }
        }
        for (id, node) in graph.node_ids().filter(|(id, _)| !ancestors.contains(id)) {
            if node.inputs.contains(&Some(input)) {
                late.push(format!("{id:?} {} reads {name}", node.name));
            }
        }
        assert!(!consumers[input.0].is_empty(), "nothing reads {name}");
    }
    late
}

/// Returns short decimals in -1..1.
pub fn wave(shape: &[usize], seed: usize) -> Tensor {
    let count = shape.iter().product();
    let values = (0..count).map(|index: usize| ((index * 37 + seed * 53 + 11) % 97) as f32 / 50.0 - 0.97);
    Tensor::from_vec::<f32>(shape, values.collect())
}
