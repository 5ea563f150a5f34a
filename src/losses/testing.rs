//! Compares a loss with its scalar formula in f64, on every engine, with a symbolic batch.

use super::LossSpec;
use crate::graph::{Builder, DType, Dim, Fact, Model, Tensor, ValueId, check as check_graph};
use crate::runner::{evaluate, testing};
use std::collections::BTreeMap;

/// Largest deviation relative to `1 + |value|`, for float32.
const TOLERANCE: f64 = 2e-6;

type Formula = Box<dyn Fn(&[f64], &[f64]) -> f64>;

/// A loss of one prediction and one target.
pub struct Case {
    pub name: String,
    pub spec: LossSpec,
    pub prediction: Tensor,
    pub target: Tensor,
    formula: Formula,
}

impl Case {
    /// Returns a case that expects a value.
    pub fn expecting(name: &str, spec: &LossSpec, prediction: Tensor, target: Tensor, value: f64) -> Case {
        Case { name: name.to_string(), spec: spec.clone(), prediction, target, formula: Box::new(move |_, _| value) }
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
        let mean = move |x: &[f64], t: &[f64]| {
            let total: f64 = x.iter().zip(t).enumerate().map(|(index, (x, t))| formula(index, *x, *t)).sum();
            total / x.len() as f64
        };
        let target = wave(shape, 5, 0.5).to_f64s().unwrap().into_iter().map(|t| (t + 0.5) as f32).collect();
        let target = Tensor::from_vec::<f32>(shape, target);
        Case {
            name: name.to_string(),
            spec: spec.clone(),
            prediction: wave(shape, 3, 2.0),
            target,
            formula: Box::new(mean),
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
        let fact = spec.target_fact(&Fact::fixed(DType::F32, shape)).unwrap();
        let target = Tensor::from_vec(&fact.sizes().unwrap(), target.to_vec());
        Case {
            name: name.to_string(),
            spec: spec.clone(),
            prediction: wave(shape, 3, 2.0),
            target,
            formula: Box::new(formula),
        }
    }

    /// Multiplies the prediction.
    pub fn scaled(mut self, factor: f32) -> Case {
        let values: Vec<f32> = self.prediction.to_vec().unwrap();
        let shape = self.prediction.shape().to_vec();
        self.prediction = Tensor::from_vec(&shape, values.into_iter().map(|value| value * factor).collect());
        self
    }

    /// Returns the loss of this case as a graph, its prediction and its value.
    pub fn build(&self) -> (Builder, ValueId, ValueId) {
        let mut b = Builder::new("loss");
        let mut fact = Fact::fixed(self.prediction.dtype(), self.prediction.shape());
        if let Some(batch) = fact.shape.as_mut().filter(|shape| shape.len() > 1).and_then(|shape| shape.first_mut()) {
            *batch = Dim::Symbol("batch".into());
        }
        let target = self.spec.target_fact(&fact).unwrap();
        let prediction = b.input("prediction", fact);
        let target = b.input("target", target);
        let loss = self.spec.build(&mut b, prediction, target).unwrap();
        let loss = b.output(loss, "loss");
        (b, prediction, loss)
    }

    /// Returns what a graph of inputs `prediction` and `target` needs.
    pub fn feeds(&self) -> [(&str, &Tensor); 2] {
        [("prediction", &self.prediction), ("target", &self.target)]
    }
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
        let expected = (case.formula)(&case.prediction.to_f64s().unwrap(), &case.target.to_f64s().unwrap());
        for opset in [18, 21] {
            let opsets = BTreeMap::from([(String::new(), opset)]);
            let model = Model { graph: graph.clone(), opsets, ir_version: 8, ..Model::default() };
            for mut engine in testing::engines() {
                let found = match evaluate(engine.as_mut(), &model, &case.feeds()) {
                    Ok(outputs) => outputs[0].to_f64s().unwrap()[0],
                    Err(error) => {
                        failures.push(format!("{} at {opset}: {error}", case.name));
                        continue;
                    }
                };
                let same = found.is_nan() && expected.is_nan();
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
fn wave(shape: &[usize], step: usize, scale: f64) -> Tensor {
    let count = shape.iter().product();
    let values = (0..count).map(|index: usize| {
        let phase = (index * step * 37) % 101;
        if index == 0 { 0.0 } else { ((phase as f64 / 50.0 - 1.0) * scale * 1e3).round() as f32 / 1e3 }
    });
    Tensor::from_vec::<f32>(shape, values.collect())
}
