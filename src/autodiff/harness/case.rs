//! A case: one node, its inputs, and what is known of its gradient.

use crate::graph::{Attribute, Attributes, OpId, Tensor};

/// Step of the central difference for operators that are not linear in their inputs.
const STEP: f64 = 1e-2;

/// One node to test.
#[derive(Clone)]
pub struct Case {
    pub(super) name: &'static str,
    pub(super) op: OpId,
    pub(super) opset: i64,
    pub(super) attributes: Attributes,
    pub(super) inputs: Vec<Input>,
    pub(super) outputs: usize,
    pub(super) in_loss: usize,
    pub(super) without: Vec<usize>,
    pub(super) step: f64,
    pub(super) batch: Vec<usize>,
    pub(super) symbols: Vec<(usize, usize, &'static str)>,
    pub(super) expected: Vec<(usize, Vec<f32>)>,
    pub(super) embedded: bool,
    pub(super) runtime: bool,
    pub(super) doubles: bool,
    pub(super) reference: Option<Vec<f32>>,
}

/// What an input is.
#[derive(Clone)]
pub(super) enum Input {
    /// An optional input that is left out.
    Missing,
    /// A floating-point input that a gradient is wanted for.
    Float(Tensor),
    /// An initializer without gradient.
    Fixed(Tensor),
    /// A graph input without gradient.
    Fed(Tensor),
}

impl Case {
    /// Returns a case of a standard operator at opset 18 with random inputs in -1..1.
    pub fn new(name: &'static str, op: &str) -> Case {
        Case {
            name,
            op: OpId::standard(op),
            opset: 18,
            attributes: Attributes::none(),
            inputs: Vec::new(),
            outputs: 1,
            in_loss: usize::MAX,
            without: Vec::new(),
            step: STEP,
            batch: Vec::new(),
            symbols: Vec::new(),
            expected: Vec::new(),
            embedded: true,
            runtime: true,
            doubles: true,
            reference: None,
        }
    }

    /// Puts the operator into a domain.
    pub fn domain(mut self, domain: &str) -> Case {
        self.op.domain = domain.to_string();
        self
    }

    /// Builds the node in a model of another opset, where attributes and inputs are those of that
    /// opset; the model is upgraded before it is differentiated.
    pub fn opset(mut self, opset: i64) -> Case {
        self.opset = opset;
        self
    }

    /// Adds a random input in -1..1.
    pub fn input(self, shape: &[usize]) -> Case {
        self.range(shape, -1.0, 1.0)
    }

    /// Adds a random input in a range.
    pub fn range(mut self, shape: &[usize], low: f64, high: f64) -> Case {
        let seed = 17 + self.inputs.len() as u64;
        self.inputs.push(Input::Float(random(shape, low, high, seed)));
        self
    }

    /// Adds a random input whose elements keep a distance of at least `gap` from zero.
    pub fn away_from_zero(mut self, shape: &[usize], gap: f32) -> Case {
        let seed = 17 + self.inputs.len() as u64;
        let values: Vec<f32> = random(shape, -1.0, 1.0, seed).to_vec().unwrap();
        let values = values.into_iter().map(|v| v + gap.copysign(v)).collect();
        self.inputs.push(Input::Float(Tensor::from_vec::<f32>(shape, values)));
        self
    }

    /// Adds a random input whose elements all differ by at least `0.05`, for maxima.
    pub fn distinct(mut self, shape: &[usize]) -> Case {
        let count: usize = shape.iter().product();
        let mut order: Vec<usize> = (0..count).collect();
        let keys: Vec<f32> = random(&[count], 0.0, 1.0, 17 + self.inputs.len() as u64).to_vec().unwrap();
        order.sort_by(|a, b| keys[*a].total_cmp(&keys[*b]));
        let values = order.into_iter().map(|rank| (rank as f32 - count as f32 / 2.0) * 0.05).collect();
        self.inputs.push(Input::Float(Tensor::from_vec::<f32>(shape, values)));
        self
    }

    /// Adds an input of given elements.
    pub fn values(mut self, shape: &[usize], values: &[f32]) -> Case {
        self.inputs.push(Input::Float(Tensor::from_vec(shape, values.to_vec())));
        self
    }

    /// Adds an initializer for which no gradient is wanted.
    pub fn fixed(mut self, tensor: Tensor) -> Case {
        self.inputs.push(Input::Fixed(tensor));
        self
    }

    /// Adds an input that is known only while the model runs, for which no gradient is wanted.
    pub fn fed(mut self, tensor: Tensor) -> Case {
        self.inputs.push(Input::Fed(tensor));
        self
    }

    /// Leaves an optional input out.
    pub fn missing(mut self) -> Case {
        self.inputs.push(Input::Missing);
        self
    }

    /// Sets an attribute.
    pub fn attribute(mut self, name: &str, value: impl Into<Attribute>) -> Case {
        self.attributes.set(name, value);
        self
    }

    /// Sets an integer attribute.
    pub fn int(self, name: &str, value: i64) -> Case {
        self.attribute(name, value)
    }

    /// Sets a float attribute.
    pub fn float(self, name: &str, value: f32) -> Case {
        self.attribute(name, value)
    }

    /// Sets a list of integers.
    pub fn ints(self, name: &str, values: &[i64]) -> Case {
        self.attribute(name, values)
    }

    /// Sets a text attribute.
    pub fn text(self, name: &str, value: &str) -> Case {
        self.attribute(name, value)
    }

    /// Sets the number of outputs.
    pub fn outputs(mut self, count: usize) -> Case {
        self.outputs = count;
        self
    }

    /// Lets only the first `count` outputs enter the loss.
    pub fn in_loss(mut self, count: usize) -> Case {
        self.in_loss = count;
        self
    }

    /// Leaves an optional output out.
    pub fn without(mut self, output: usize) -> Case {
        self.without.push(output);
        self
    }

    /// Sets a list of floats.
    pub fn floats(self, name: &str, values: &[f32]) -> Case {
        self.attribute(name, Attribute::Floats(values.to_vec()))
    }

    /// Sets a list of strings.
    pub fn texts(self, name: &str, values: &[&str]) -> Case {
        let values = values.iter().map(|value| value.as_bytes().to_vec().into()).collect();
        self.attribute(name, Attribute::Strings(values))
    }

    /// Says that the operator is linear in each input, so that the difference takes step 1.
    pub fn linear(mut self) -> Case {
        self.step = 1.0;
        self
    }

    /// Makes the first dimension of the first input, and of the outputs that have its size there,
    /// a symbol.
    pub fn batch(mut self) -> Case {
        self.batch = vec![0];
        self
    }

    /// As [`Case::batch`] for the first dimension of all these inputs.
    pub fn batches(mut self, inputs: &[usize]) -> Case {
        self.batch = inputs.to_vec();
        self
    }

    /// Makes dimensions of inputs symbols: input, axis and name of each. Of the outputs nothing is
    /// known then but what their operator says and their rank.
    pub fn symbols(mut self, symbols: &[(usize, usize, &'static str)]) -> Case {
        self.symbols = symbols.to_vec();
        self
    }

    /// Compares the gradient of an input with these elements instead of a finite difference,
    /// for an output gradient of ones.
    pub fn expect(mut self, input: usize, gradient: &[f32]) -> Case {
        self.expected.push((input, gradient.to_vec()));
        self
    }

    /// Says that the engines have no kernel for this form of the operator: its decomposition is run
    /// instead, and its first output must be these elements, which another implementation gave.
    pub fn reference(mut self, elements: &[f32]) -> Case {
        self.reference = Some(elements.to_vec());
        self
    }

    /// Skips the embedded engine, which lacks the operator: the reason stands here.
    pub fn not_embedded(mut self, _reason: &str) -> Case {
        self.embedded = false;
        self
    }

    /// Skips ONNX Runtime, which refuses the node: the reason stands here.
    pub fn only_embedded(mut self, _reason: &str) -> Case {
        self.runtime = false;
        self
    }

    /// Skips float64, in which ONNX Runtime lacks what the gradient needs: the reason stands here.
    pub fn only_float32(mut self, _reason: &str) -> Case {
        self.doubles = false;
        self
    }
}

/// Returns short decimals in a range from a fixed seed.
pub(super) fn random(shape: &[usize], low: f64, high: f64, seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
    let values = (0..shape.iter().product())
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let unit = (state >> 11) as f64 / (1u64 << 53) as f64;
            ((low + unit * (high - low)) * 1e3).round() as f32 / 1e3
        })
        .collect();
    Tensor::from_vec::<f32>(shape, values)
}
