//! Compares a loss with its scalar formula in f64, on every engine, with a symbolic batch.

use super::{LossKind, LossSpec};
use crate::graph::{Builder, DType, Dim, Fact, Model, Tensor, ValueId, check as check_graph};
use crate::runner::{evaluate, testing};
use std::collections::BTreeMap;

/// Largest deviation relative to `1 + |value|`, for float32.
const TOLERANCE: f64 = 2e-6;

type Formula = Box<dyn Fn(&[Vec<f64>], &[f64]) -> f64>;

/// A loss of predictions and a target, where it has one.
pub struct Case {
    pub name: String,
    pub spec: LossSpec,
    pub predictions: Vec<Tensor>,
    pub target: Option<Tensor>,
    /// Axes of the predictions, beside the batch, whose size is a symbol.
    symbols: Vec<(usize, &'static str)>,
    formula: Formula,
}

impl Case {
    /// Returns a case that expects a value.
    pub fn expecting(
        name: &str,
        spec: &LossSpec,
        predictions: Vec<Tensor>,
        target: Option<Tensor>,
        value: f64,
    ) -> Case {
        Case {
            name: name.to_string(),
            spec: spec.clone(),
            predictions,
            target,
            symbols: Vec::new(),
            formula: Box::new(move |_, _| value),
        }
    }

    /// Returns a case of the predictions of the kind, with signs as the target where there are any.
    pub fn several(
        name: &str,
        spec: &LossSpec,
        shape: &[usize],
        signs: Option<&[i64]>,
        formula: impl Fn(&[Vec<f64>], &[f64]) -> f64 + 'static,
    ) -> Case {
        let count = spec.kind.outputs();
        let facts = vec![Fact::fixed(DType::F32, shape); count];
        let target = spec.target_fact(&facts).unwrap().map(|fact| fact.sizes().unwrap());
        Case {
            name: name.to_string(),
            spec: spec.clone(),
            symbols: Vec::new(),
            predictions: (0..count).map(|at| wave(shape, 3 + 2 * at, 2.0)).collect(),
            target: target.zip(signs).map(|(shape, signs)| Tensor::from_vec(&shape, signs.to_vec())),
            formula: Box::new(formula),
        }
    }

    /// Returns a case of the mean of a formula of prediction and target.
    pub fn elementwise(
        name: &str,
        spec: &LossSpec,
        shape: &[usize],
        formula: impl Fn(f64, f64) -> f64 + 'static,
    ) -> Case {
        Case::indexed(name, spec, shape, move |_, x, t| formula(x, t))
    }

    /// Returns a case of the mean of a formula of position, prediction and target.
    pub fn indexed(
        name: &str,
        spec: &LossSpec,
        shape: &[usize],
        formula: impl Fn(usize, f64, f64) -> f64 + 'static,
    ) -> Case {
        Case::whole(name, spec, shape, move |x, t| {
            let total: f64 = x.iter().zip(t).enumerate().map(|(index, (x, t))| formula(index, *x, *t)).sum();
            total / x.len() as f64
        })
    }

    /// Returns a case of a formula of all elements of prediction and target.
    pub fn whole(
        name: &str,
        spec: &LossSpec,
        shape: &[usize],
        formula: impl Fn(&[f64], &[f64]) -> f64 + 'static,
    ) -> Case {
        let target = wave(shape, 5, 0.5).to_f64s().unwrap().into_iter().map(|t| (t + 0.5) as f32).collect();
        let target = Tensor::from_vec::<f32>(shape, target);
        Case {
            name: name.to_string(),
            spec: spec.clone(),
            symbols: Vec::new(),
            predictions: vec![wave(shape, 3, 2.0)],
            target: Some(target),
            formula: Box::new(move |x, t| formula(&x[0], t)),
        }
    }

    /// Returns a case of class indices.
    pub fn classes(
        name: &str,
        spec: &LossSpec,
        shape: &[usize],
        target: &[i64],
        formula: impl Fn(&[f64], &[f64]) -> f64 + 'static,
    ) -> Case {
        let fact = spec.target_fact(&[Fact::fixed(DType::F32, shape)]).unwrap().unwrap();
        let target = Tensor::from_vec(&fact.sizes().unwrap(), target.to_vec());
        Case {
            name: name.to_string(),
            spec: spec.clone(),
            symbols: Vec::new(),
            predictions: vec![wave(shape, 3, 2.0)],
            target: Some(target),
            formula: Box::new(move |x, t| formula(&x[0], t)),
        }
    }

    /// Multiplies the predictions.
    pub fn scaled(mut self, factor: f32) -> Case {
        for prediction in &mut self.predictions {
            let values: Vec<f32> = prediction.to_vec().unwrap();
            let shape = prediction.shape().to_vec();
            *prediction = Tensor::from_vec(&shape, values.into_iter().map(|value| value * factor).collect());
        }
        self
    }

    /// Makes the size of an axis of the predictions a symbol.
    pub fn symbol(mut self, axis: usize, name: &'static str) -> Case {
        self.symbols.push((axis, name));
        self
    }

    /// Returns the loss of this case as a graph, its predictions and its value.
    pub fn build(&self) -> (Builder, Vec<ValueId>, ValueId) {
        let mut b = Builder::new("loss");
        let fact = |prediction: &Tensor| {
            let mut fact = Fact::fixed(prediction.dtype(), prediction.shape());
            let shape = fact.shape.as_mut().filter(|shape| shape.len() > 1 && self.spec.kind != LossKind::Output);
            let axis = usize::from(self.spec.time_axis == Some(0));
            if let Some(batch) = shape.and_then(|shape| shape.get_mut(axis)) {
                *batch = Dim::Symbol("batch".into());
            }
            for (axis, name) in &self.symbols {
                fact.shape.as_mut().unwrap()[*axis] = Dim::Symbol((*name).into());
            }
            fact
        };
        let facts: Vec<Fact> = self.predictions.iter().map(fact).collect();
        let target = self.spec.target_fact(&facts).unwrap();
        let mut predictions = Vec::new();
        for (at, fact) in facts.into_iter().enumerate() {
            predictions.push(b.input(&prediction(at), fact));
        }
        let target = target.map(|fact| b.input("target", fact));
        let loss = self.spec.build(&mut b, &predictions, target).unwrap();
        let loss = b.output(loss, "loss");
        (b, predictions, loss)
    }

    /// Returns what a graph of predictions and target needs.
    pub fn feeds(&self) -> Vec<(String, &Tensor)> {
        let mut feeds: Vec<(String, &Tensor)> =
            self.predictions.iter().enumerate().map(|(at, tensor)| (prediction(at), tensor)).collect();
        feeds.extend(self.target.as_ref().map(|target| ("target".to_string(), target)));
        feeds
    }
}

/// Returns the name of a prediction in the graph of a case.
pub fn prediction(at: usize) -> String {
    if at == 0 { "prediction".into() } else { format!("prediction{at}") }
}

/// Runs the cases on every engine and reports every failure.
pub fn check(cases: &[Case]) {
    let mut failures = Vec::new();
    for case in cases {
        let (b, _, loss) = case.build();
        assert_eq!(b.fact(loss), &Fact::fixed(b.dtype(loss), &[]), "{}", case.name);
        let graph = b.finish();
        check_graph(&graph).unwrap();
        let unknown = graph.values().find(|(_, value)| value.fact.shape.is_none() || value.fact.dtype.is_none());
        assert!(unknown.is_none(), "{}: {unknown:?}", case.name);
        let predictions: Vec<Vec<f64>> = case.predictions.iter().map(|x| x.to_f64s().unwrap()).collect();
        let target = case.target.as_ref().map(|target| target.to_f64s().unwrap()).unwrap_or_default();
        let expected = (case.formula)(&predictions, &target);
        let feeds = case.feeds();
        let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (name.as_str(), *tensor)).collect();
        for opset in [18, 21] {
            let opsets = BTreeMap::from([(String::new(), opset)]);
            let model = Model { graph: graph.clone(), opsets, ir_version: 8, ..Model::default() };
            for mut engine in testing::engines() {
                let found = match evaluate(engine.as_mut(), &model, &feeds) {
                    Ok(outputs) => outputs[0].to_f64s().unwrap()[0],
                    Err(error) => {
                        failures.push(format!("{} at {opset}: {error}", case.name));
                        continue;
                    }
                };
                let same = found == expected || found.is_nan() && expected.is_nan();
                if !(same || (found - expected).abs() <= TOLERANCE * (1.0 + expected.abs())) {
                    let engine = &engine.info().name;
                    failures.push(format!("{} [{engine}] at {opset}: {found}, expected {expected}", case.name));
                }
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// Returns short decimals in `-scale..scale`, with a zero first.
pub fn wave(shape: &[usize], step: usize, scale: f64) -> Tensor {
    let count = shape.iter().product();
    let values = (0..count).map(|index: usize| {
        let phase = (index * step * 37) % 101;
        if index == 0 { 0.0 } else { ((phase as f64 / 50.0 - 1.0) * scale * 1e3).round() as f32 / 1e3 }
    });
    Tensor::from_vec::<f32>(shape, values.collect())
}
