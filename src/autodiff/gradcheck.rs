//! A gradient rule against finite differences, for whoever writes one.

use super::{AutodiffError, GradientRule, Manner, Rules, gradients_of};
use crate::graph::{Attribute, Attributes, Builder, DType, Fact, Model, OpId, Origin, Tensor, ValueId, prune};
use std::collections::BTreeMap;

/// One node whose gradients are compared with central differences of what it computes.
///
/// The inputs should lie away from kinks, and their values near 1. Each input of [`GradCheck::input`] is moved along one
/// random direction, and the gradients are those of a sum of the outputs with random weights.
///
/// ```no_run
/// # #[cfg(feature = "runner")] {
/// use freeze_plan::autodiff::GradCheck;
/// use freeze_plan::graph::{OpId, Tensor};
/// use freeze_plan::runner::{LocateOptions, evaluate};
/// use freeze_plan::trainer::{EngineOptions, engine};
///
/// let mut engine = engine(&LocateOptions::default(), &EngineOptions::default(), &mut |_| {})?;
/// let softplus = GradCheck::new(OpId::standard("Softplus")).input(Tensor::from_vec(&[3], vec![-1f32, 0.2, 1.5]));
/// softplus.run(|model, feeds| evaluate(engine.as_mut(), model, feeds))?;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct GradCheck {
    op: OpId,
    attributes: Attributes,
    inputs: Vec<(Tensor, bool)>,
    outputs: usize,
    opset: i64,
    version: i64,
    rules: Rules,
}

/// Gradients that are wrong, or could not be compared.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum GradCheckError {
    #[error(transparent)]
    Gradient(#[from] AutodiffError),
    #[error("the node or its gradients cannot be run")]
    Evaluate(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the run gives {found} values, expected {expected}")]
    Count { found: usize, expected: usize },
    #[error("{what} is {dtype}, expected float32 or float64")]
    DType { what: String, dtype: DType },
    #[error("input {input} has no gradient")]
    Missing { input: usize },
    #[error("the gradient of input {input} has shape {found:?}, expected {expected:?}")]
    Shape { input: usize, found: Vec<usize>, expected: Vec<usize> },
    #[error("the gradient of input {input} along a direction is {found}, differences give {expected}")]
    Wrong { input: usize, found: f64, expected: f64 },
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl GradCheck {
    /// Returns the check of a node without inputs, with one output.
    pub fn new(op: OpId) -> GradCheck {
        let (attributes, rules) = (Attributes::none(), Rules::new());
        GradCheck { op, attributes, inputs: Vec::new(), outputs: 1, opset: 18, version: 1, rules }
    }

    /// Adds a rule of the caller.
    pub fn rule(mut self, rule: impl GradientRule + 'static) -> GradCheck {
        self.rules = self.rules.with(rule);
        self
    }

    /// Adds the next input, float32 or float64, whose gradient is compared.
    pub fn input(mut self, value: Tensor) -> GradCheck {
        self.inputs.push((value, true));
        self
    }

    /// Adds the next input, which has no gradient.
    pub fn constant(mut self, value: Tensor) -> GradCheck {
        self.inputs.push((value, false));
        self
    }

    /// Sets an attribute of the node.
    pub fn attribute(mut self, name: &str, value: impl Into<Attribute>) -> GradCheck {
        self.attributes.set(name, value);
        self
    }

    /// Sets how many outputs the node has. Default 1.
    pub fn outputs(mut self, count: usize) -> GradCheck {
        self.outputs = count;
        self
    }

    /// Sets the opset of the standard operators, 18 to 21. Default 18.
    pub fn opset(mut self, opset: i64) -> GradCheck {
        self.opset = opset;
        self
    }

    /// Sets the version of the node's own domain. Default 1.
    pub fn version(mut self, version: i64) -> GradCheck {
        self.version = version;
        self
    }

    /// Compares. `evaluate` runs a model with these inputs and returns its outputs, as `runner::evaluate` does.
    ///
    /// # Errors
    /// A gradient is wrong, or cannot be built or run.
    pub fn run<E: Into<Failure>>(
        &self,
        mut evaluate: impl FnMut(&Model, &[(&str, &Tensor)]) -> Result<Vec<Tensor>, E>,
    ) -> Result<(), GradCheckError> {
        let names: Vec<String> = (0..self.inputs.len()).map(|index| format!("x{index}")).collect();
        let mut run = |model: &Model, values: &[Tensor], expected: usize| {
            let feeds: Vec<(&str, &Tensor)> = names.iter().map(String::as_str).zip(values).collect();
            let found = evaluate(model, &feeds).map_err(|error| GradCheckError::Evaluate(error.into()))?;
            let count = found.len();
            if count == expected { Ok(found) } else { Err(GradCheckError::Count { found: count, expected }) }
        };
        let values: Vec<Tensor> = self.inputs.iter().map(|(value, _)| value.clone()).collect();
        let forward = self.forward();
        let outputs = run(&forward, &values, self.outputs)?;
        let weights = outputs.iter().enumerate().map(|(index, y)| random(y, &format!("output {index}"), 17 + index));
        let weights = weights.collect::<Result<Vec<Tensor>, _>>()?;
        let moving: Vec<usize> = (0..values.len()).filter(|index| self.inputs[*index].1).collect();
        let backward = self.backward(&names, &outputs, &weights, &moving)?;
        let found = run(&backward, &values, moving.len())?;
        for (input, gradient) in moving.into_iter().zip(&found) {
            let value = &values[input];
            if gradient.shape() != value.shape() {
                let (found, expected) = (gradient.shape().to_vec(), value.shape().to_vec());
                return Err(GradCheckError::Shape { input, found, expected });
            }
            let direction = random(value, &format!("input {input}"), 171 + input)?;
            let (step, tolerance) = accuracy(value.dtype());
            let mut along = |step: f64| -> Result<f64, GradCheckError> {
                let mut moved = values.clone();
                moved[input] = shifted(value, &direction, step);
                let outputs = run(&forward, &moved, self.outputs)?;
                Ok(outputs.iter().zip(&weights).map(|(y, weight)| dot(y, weight)).sum())
            };
            let expected = (along(step)? - along(-step)?) / (2.0 * step);
            let terms = floats(gradient).into_iter().zip(floats(&direction)).map(|(g, d)| g * d);
            let (found, squares) = terms.fold((0.0, 0.0), |(sum, squares), term| (sum + term, squares + term * term));
            let bound = tolerance * (squares.sqrt() + expected.abs() + 0.05);
            if !found.is_finite() || (found - expected).abs() > bound {
                return Err(GradCheckError::Wrong { input, found, expected });
            }
        }
        Ok(())
    }

    fn model(&self, b: Builder) -> Model {
        let mut opsets = BTreeMap::from([(String::new(), self.opset)]);
        if !self.op.domain.is_empty() {
            opsets.insert(self.op.domain.clone(), self.version);
        }
        Model { graph: prune(&b.finish()), opsets, ir_version: 8, ..Model::default() }
    }

    fn node(&self) -> (Builder, Vec<ValueId>, Vec<ValueId>) {
        let mut b = Builder::new("check");
        let input = |(index, (value, _)): (usize, &(Tensor, bool))| {
            b.input(&format!("x{index}"), Fact::fixed(value.dtype(), value.shape()))
        };
        let inputs: Vec<ValueId> = self.inputs.iter().enumerate().map(input).collect();
        b.enter(Origin::Forward, "node");
        let given: Vec<Option<ValueId>> = inputs.iter().copied().map(Some).collect();
        let outputs = b.ops(&self.op, &given, self.attributes.clone(), self.outputs);
        (b, inputs, outputs)
    }

    fn forward(&self) -> Model {
        let (mut b, _, outputs) = self.node();
        outputs.into_iter().for_each(|output| b.mark_output(output));
        self.model(b)
    }

    fn backward(
        &self,
        names: &[String],
        found: &[Tensor],
        weights: &[Tensor],
        moving: &[usize],
    ) -> Result<Model, GradCheckError> {
        let (mut b, inputs, outputs) = self.node();
        b.enter(Origin::Loss, "loss");
        let mut terms = Vec::new();
        for ((output, found), weight) in outputs.iter().zip(found).zip(weights) {
            b.refine(*output, &Fact::fixed(found.dtype(), found.shape()));
            let weight = b.constant("weight", weight.clone());
            let product = b.mul(*output, weight);
            terms.push(b.op("ReduceSum", &[product], Attributes::none().with("keepdims", 0)));
        }
        let loss = if let [one] = terms.as_slice() { *one } else { b.op("Sum", &terms, Attributes::none()) };
        let dtype = found.first().map_or(DType::F32, Tensor::dtype);
        b.refine(loss, &Fact::fixed(dtype, &[]));
        let wrt: Vec<ValueId> = moving.iter().map(|index| inputs[*index]).collect();
        let opsets = [(String::new(), self.opset), (self.op.domain.clone(), self.version)];
        let manner = Manner { rules: self.rules.clone().at(&opsets.into()), ..Manner::default() };
        let gradients = gradients_of(&manner, &mut b, self.opset, (loss, None), &wrt)?;
        for (gradient, input) in gradients.into_iter().zip(moving) {
            let gradient = gradient.ok_or(GradCheckError::Missing { input: *input })?;
            b.output(gradient, &format!("{}.grad", names[*input]));
        }
        let internal = self.model(b);
        Ok(internal.with_graph(super::lower(&internal.graph)))
    }
}

/// Returns the step of a difference and the tolerance of what comes out.
fn accuracy(dtype: DType) -> (f64, f64) {
    if dtype == DType::F64 { (1e-4, 1e-6) } else { (1e-2, 2e-3) }
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    tensor.to_f64s().unwrap_or_default()
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    floats(a).into_iter().zip(floats(b)).map(|(a, b)| a * b).sum()
}

fn shifted(value: &Tensor, direction: &Tensor, step: f64) -> Tensor {
    let moved = floats(value).into_iter().zip(floats(direction)).map(|(v, d)| v + step * d);
    as_like(value, moved.collect())
}

#[allow(clippy::cast_possible_truncation)]
fn as_like(like: &Tensor, values: Vec<f64>) -> Tensor {
    match like.dtype() {
        DType::F64 => Tensor::from_vec(like.shape(), values),
        _ => Tensor::from_vec(like.shape(), values.into_iter().map(|value| value as f32).collect::<Vec<f32>>()),
    }
}

/// Returns short decimals in -1..1 of a tensor's shape and dtype, the same for the same seed.
fn random(like: &Tensor, what: &str, seed: usize) -> Result<Tensor, GradCheckError> {
    if !matches!(like.dtype(), DType::F32 | DType::F64) {
        return Err(GradCheckError::DType { what: what.into(), dtype: like.dtype() });
    }
    let mut state = (seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
    let values = (0..like.len()).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 11) as f64 / (1u64 << 53) as f64 * 2e3 - 1e3).round() / 1e3
    });
    Ok(as_like(like, values.collect()))
}
