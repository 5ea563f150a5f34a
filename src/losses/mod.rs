//! Loss functions as graph construction: each appends nodes that end in one scalar.
//!
//! A [`LossSpec`] is the `[loss]` table of a job. Every loss is the mean that PyTorch's function
//! of the same name takes. Predictions in half precision are widened to float32 first, so that
//! sums over a batch keep their digits.
//!
//! What this module does not do: gradients (`autodiff`), metrics, or checking target values. A
//! class index outside the classes makes the loss NaN, never a number.

mod binary_cross_entropy;
mod cross_entropy;
mod huber;
mod l1;
mod mse;

use crate::error::ErrorKind;
use crate::graph::{Attributes, Builder, DType, Dim, Fact, Origin, Tensor, ValueId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Target value that counts neither in the numerator nor in the denominator, unless another is
/// given.
pub const IGNORE_INDEX: i64 = -100;

/// Which loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// Negative log-likelihood of a class index under the softmax of the prediction.
    #[default]
    CrossEntropy,
    /// Negative log-likelihood of probabilities in [0, 1] under the sigmoid of the prediction.
    BinaryCrossEntropy,
    /// Squared difference.
    Mse,
    /// Absolute difference.
    L1,
    /// Squared difference up to `delta`, linear beyond.
    Huber,
}

impl LossKind {
    /// Every kind, in the order of the documentation.
    pub const ALL: [LossKind; 5] =
        [LossKind::CrossEntropy, LossKind::BinaryCrossEntropy, LossKind::Mse, LossKind::L1, LossKind::Huber];

    /// Returns the name a job file uses.
    pub fn name(self) -> &'static str {
        match self {
            LossKind::CrossEntropy => "cross-entropy",
            LossKind::BinaryCrossEntropy => "binary-cross-entropy",
            LossKind::Mse => "mse",
            LossKind::L1 => "l1",
            LossKind::Huber => "huber",
        }
    }

    /// Returns the kind of a name.
    pub fn from_name(name: &str) -> Option<LossKind> {
        LossKind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for LossKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A loss with its options. An option of another kind is an error, not ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossSpec {
    /// Which loss.
    pub kind: LossKind,
    /// Axis of the prediction that the classes lie on, for `cross-entropy`, and that
    /// `pos_weight` runs along, for `binary-cross-entropy`; may count from the end. Default: the
    /// last axis up to rank 3, axis 1 from rank 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_axis: Option<i64>,
    /// Weight of each class, for `cross-entropy`; none negative.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_weights: Option<Vec<f32>>,
    /// Target value that does not count, for `cross-entropy`; default [`IGNORE_INDEX`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_index: Option<i64>,
    /// Fraction of the target spread over all classes, in [0, 1], for `cross-entropy`.
    pub label_smoothing: f32,
    /// Absolute difference from which on the loss is linear, above 0, for `huber`.
    pub delta: f32,
    /// Weight of the positive part for each class, or one for all, for `binary-cross-entropy`;
    /// none negative.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pos_weight: Option<Vec<f32>>,
}

impl Default for LossSpec {
    fn default() -> Self {
        LossSpec {
            kind: LossKind::default(),
            class_axis: None,
            class_weights: None,
            ignore_index: None,
            label_smoothing: 0.0,
            delta: 1.0,
            pos_weight: None,
        }
    }
}

/// A loss that cannot be built.
#[derive(Debug, thiserror::Error, PartialEq)]
#[allow(missing_docs)]
pub enum LossError {
    #[error("the loss {kind} has no option {option}")]
    Option { kind: LossKind, option: &'static str },
    #[error("the loss {kind} needs {option} {range}, found {found}")]
    Range { kind: LossKind, option: &'static str, range: String, found: String },
    #[error("the loss {kind} needs {expected} entries in {option}, found {found}")]
    Count { kind: LossKind, option: &'static str, expected: String, found: usize },
    #[error("the loss {kind} needs a prediction of {expected}, found {found}")]
    Prediction { kind: LossKind, expected: &'static str, found: String },
    #[error("the loss {kind} needs the target \"{target}\" as {expected}, found {found}")]
    Target { kind: LossKind, target: String, expected: String, found: String },
}

impl LossError {
    /// Returns the group this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        match self {
            LossError::Option { .. } | LossError::Range { .. } | LossError::Count { .. } => ErrorKind::Usage,
            LossError::Prediction { .. } => ErrorKind::Unsupported,
            LossError::Target { .. } => ErrorKind::BadInput,
        }
    }
}

impl LossSpec {
    /// Returns a loss with default options.
    pub fn new(kind: LossKind) -> LossSpec {
        LossSpec { kind, ..LossSpec::default() }
    }

    /// Checks the options without a model.
    ///
    /// # Errors
    /// An option belongs to another kind or is out of its range.
    pub fn validate(&self) -> Result<(), LossError> {
        use LossKind::{BinaryCrossEntropy, CrossEntropy, Huber};
        let kind = self.kind;
        let given = [
            (self.class_axis.is_some(), "class_axis", matches!(kind, CrossEntropy | BinaryCrossEntropy)),
            (self.class_weights.is_some(), "class_weights", kind == CrossEntropy),
            (self.ignore_index.is_some(), "ignore_index", kind == CrossEntropy),
            (self.label_smoothing != 0.0, "label_smoothing", kind == CrossEntropy),
            (self.delta != 1.0, "delta", kind == Huber),
            (self.pos_weight.is_some(), "pos_weight", kind == BinaryCrossEntropy),
        ];
        if let Some((_, option, _)) = given.into_iter().find(|(given, _, allowed)| *given && !*allowed) {
            return Err(LossError::Option { kind, option });
        }
        let range = |option, range: &str, found: f32| {
            Err(LossError::Range { kind, option, range: range.to_string(), found: found.to_string() })
        };
        if !(0.0..=1.0).contains(&self.label_smoothing) {
            return range("label_smoothing", "in [0, 1]", self.label_smoothing);
        }
        if !(self.delta > 0.0 && self.delta.is_finite()) {
            return range("delta", "above 0", self.delta);
        }
        for (option, weights) in [("class_weights", &self.class_weights), ("pos_weight", &self.pos_weight)] {
            let bad = |weight: &&f32| !(**weight >= 0.0 && weight.is_finite());
            if let Some(weight) = weights.iter().flatten().find(bad) {
                return range(option, "of at least 0", *weight);
            }
        }
        Ok(())
    }

    /// Returns the dtype and shape that the target of a prediction must have.
    ///
    /// # Errors
    /// The options are wrong, or the prediction is not one this loss can take.
    pub fn target_fact(&self, prediction: &Fact) -> Result<Fact, LossError> {
        self.validate()?;
        self.wide(prediction)?;
        match self.kind {
            LossKind::CrossEntropy => cross_entropy::target_fact(self, prediction),
            _ => Ok(Fact { dtype: Some(self.wide(prediction)?), shape: prediction.shape.clone() }),
        }
    }

    /// Appends the loss and returns the scalar.
    ///
    /// # Errors
    /// The options are wrong, or prediction and target do not fit this loss.
    pub fn build(&self, b: &mut Builder, prediction: ValueId, target: ValueId) -> Result<ValueId, LossError> {
        let expected = self.target_fact(b.fact(prediction))?;
        self.check_target(b, target, &expected)?;
        b.enter(Origin::Loss, "loss");
        b.refine(target, &expected);
        let dtype = self.wide(b.fact(prediction))?;
        let prediction = if b.dtype(prediction) == dtype { prediction } else { b.cast(prediction, dtype) };
        match self.kind {
            LossKind::CrossEntropy => cross_entropy::build(self, b, prediction, target),
            LossKind::BinaryCrossEntropy => binary_cross_entropy::build(self, b, prediction, target),
            LossKind::Mse => Ok(mse::build(b, prediction, target)),
            LossKind::L1 => Ok(l1::build(b, prediction, target)),
            LossKind::Huber => Ok(huber::build(self, b, prediction, target)),
        }
    }

    /// Returns the axis of the prediction, from the front, on which the classes lie, and their
    /// number; `None` for a loss without classes and where the number is not fixed.
    pub fn classes(&self, prediction: &Fact) -> Option<(usize, usize)> {
        if self.kind != LossKind::CrossEntropy {
            return None;
        }
        let axis = self.axis(prediction).ok()?;
        Some((axis, prediction.shape.as_ref()?[axis].known()?))
    }

    fn axis(&self, prediction: &Fact) -> Result<usize, LossError> {
        let needs = |expected| LossError::Prediction { kind: self.kind, expected, found: prediction.to_string() };
        let rank = prediction.rank().ok_or_else(|| needs("known rank"))?;
        let last = rank.checked_sub(1).ok_or_else(|| needs("at least one dimension"))?;
        let Some(axis) = self.class_axis else { return Ok(if rank <= 3 { last } else { 1 }) };
        let from_end = axis.checked_add(i64::try_from(rank).unwrap_or(i64::MAX));
        let front = if axis < 0 { from_end } else { Some(axis) };
        let front = front.and_then(|axis| usize::try_from(axis).ok()).filter(|axis| *axis < rank);
        front.ok_or_else(|| LossError::Range {
            kind: self.kind,
            option: "class_axis",
            range: format!("in [-{rank}, {last}] for a prediction of {prediction}"),
            found: axis.to_string(),
        })
    }

    /// The dtype in which the loss of a prediction is computed.
    fn wide(&self, prediction: &Fact) -> Result<DType, LossError> {
        match prediction.dtype {
            None | Some(DType::F32 | DType::F16 | DType::BF16) => Ok(DType::F32),
            Some(DType::F64) => Ok(DType::F64),
            Some(_) => {
                let found = prediction.to_string();
                Err(LossError::Prediction { kind: self.kind, expected: "a floating-point dtype", found })
            }
        }
    }

    fn check_target(&self, b: &Builder, target: ValueId, expected: &Fact) -> Result<(), LossError> {
        let found = b.fact(target);
        let dtype = found.dtype.is_none_or(|dtype| Some(dtype) == expected.dtype);
        let clash = |(a, b): (&Dim, &Dim)| a.known().zip(b.known()).is_some_and(|(a, b)| a != b);
        let shape = match (&found.shape, &expected.shape) {
            (Some(found), Some(expected)) => found.len() == expected.len() && !found.iter().zip(expected).any(clash),
            _ => true,
        };
        if dtype && shape {
            return Ok(());
        }
        Err(LossError::Target {
            kind: self.kind,
            target: b.graph().value_name(target).to_string(),
            expected: expected.to_string(),
            found: found.to_string(),
        })
    }
}

/// Appends the mean of all elements.
fn mean(b: &mut Builder, value: ValueId) -> ValueId {
    b.op("ReduceMean", &[value], Attributes::none().with("keepdims", 0))
}

/// Appends the sum of all elements.
fn sum(b: &mut Builder, value: ValueId) -> ValueId {
    b.op("ReduceSum", &[value], Attributes::none().with("keepdims", 0))
}

/// Returns numbers as a tensor of float32 or float64.
fn floats(dtype: DType, shape: &[usize], numbers: &[f64]) -> Tensor {
    match dtype {
        DType::F64 => Tensor::from_vec(shape, numbers.to_vec()),
        _ => Tensor::from_vec(shape, numbers.iter().map(|number| *number as f32).collect()),
    }
}

#[cfg(all(test, feature = "runner"))]
mod testing;
#[cfg(test)]
mod tests;
