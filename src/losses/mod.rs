//! Loss functions as graph construction: each appends nodes that end in one scalar.
//!
//! A [`LossSpec`] is the `[loss]` table of a job, or a `sum` of several of them. Every loss is the
//! mean that PyTorch's function of the same name takes. Predictions in half precision are widened to
//! float32 first, so that sums over a batch keep their digits.
//!
//! What this module does not do: gradients (`autodiff`), metrics, or checking target values. A
//! class index outside the classes makes the loss NaN, never a number, and so does a sign that is
//! neither 1 nor -1.

mod binary_cross_entropy;
mod contrastive;
mod cosine_embedding;
mod cross_entropy;
mod ctc;
mod fused;
mod hinge_embedding;
mod huber;
mod kind;
mod kl;
mod l1;
mod margin_ranking;
mod mse;
mod nll;
mod output;
mod smooth_l1;
mod spec;
mod sum;
mod triplet;

pub use fused::FusedLoss;
pub use kind::LossKind;
pub use spec::{LossSpec, TargetKind};
pub use sum::total;

use crate::error::ErrorKind;
use crate::graph::{Attributes, Builder, DType, Dim, Fact, Origin, Tensor, ValueId};

/// Target value that counts neither in the numerator nor in the denominator, unless another is
/// given.
pub const IGNORE_INDEX: i64 = -100;

/// A loss that cannot be built.
#[derive(Debug, thiserror::Error, PartialEq)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum LossError {
    #[error("the loss {kind} has no option {option}")]
    Option { kind: LossKind, option: &'static str },
    #[error("the loss {kind} needs {option} {range}, found {found}")]
    Range { kind: LossKind, option: &'static str, range: String, found: String },
    #[error("the loss {kind} needs {expected} entries in {option}, found {found}")]
    Count { kind: LossKind, option: &'static str, expected: String, found: usize },
    #[error("the loss {kind} needs a prediction of {expected}, found {found}")]
    Prediction { kind: LossKind, expected: &'static str, found: String },
    #[error("the loss {kind} needs predictions of one shape, found {first} and {second}")]
    Shapes { kind: LossKind, first: String, second: String },
    #[error("the loss {kind} needs the target \"{target}\" as {expected}, found {found}")]
    Target { kind: LossKind, target: String, expected: String, found: String },
}

impl LossError {
    /// Returns the group this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        match self {
            LossError::Option { .. } | LossError::Range { .. } | LossError::Count { .. } => ErrorKind::Usage,
            LossError::Prediction { .. } | LossError::Shapes { .. } => ErrorKind::Unsupported,
            LossError::Target { .. } => ErrorKind::BadInput,
        }
    }
}

impl LossSpec {
    /// Returns the dtype and shape that the target of predictions must have; `None` for a loss
    /// without a target.
    ///
    /// # Errors
    /// The options are wrong, or the predictions are none that this loss can take.
    ///
    /// # Panics
    /// When the number of predictions is not the kind's, or the kind is `sum`.
    pub fn target_fact(&self, predictions: &[Fact]) -> Result<Option<Fact>, LossError> {
        self.validate()?;
        assert_eq!(predictions.len(), self.kind.outputs(), "the predictions of {}", self.kind);
        let first = &predictions[0];
        let dtype = self.wide(first)?;
        for other in &predictions[1..] {
            self.wide(other)?;
            let clash = |(a, b): (&Dim, &Dim)| a.known().zip(b.known()).is_some_and(|(a, b)| a != b);
            let apart = first
                .shape
                .as_ref()
                .zip(other.shape.as_ref())
                .is_some_and(|(first, other)| first.len() != other.len() || first.iter().zip(other).any(clash));
            if apart {
                let (first, second) = (first.to_string(), other.to_string());
                return Err(LossError::Shapes { kind: self.kind, first, second });
            }
        }
        Ok(match self.kind {
            LossKind::CrossEntropy | LossKind::Nll => Some(cross_entropy::target_fact(self, first)?),
            LossKind::Ctc => Some(ctc::target_fact(self, first)?),
            LossKind::CosineEmbedding => {
                self.ranked(first, 2, "rank 2")?;
                Some(Fact { dtype: Some(DType::I64), shape: first.shape.as_ref().map(|shape| shape[..1].to_vec()) })
            }
            LossKind::HingeEmbedding | LossKind::MarginRanking => {
                Some(Fact { dtype: Some(DType::I64), shape: first.shape.clone() })
            }
            LossKind::Contrastive => {
                self.ranked(first, 2, "rank 2")?;
                None
            }
            LossKind::Triplet => {
                self.ranked(first, 2, "rank 2")?;
                None
            }
            LossKind::Output => {
                output::check(self, first)?;
                None
            }
            _ => Some(Fact { dtype: Some(dtype), shape: first.shape.clone() }),
        })
    }

    /// Appends the loss of predictions and a target, where this kind has one, and returns the scalar.
    ///
    /// # Errors
    /// The options are wrong, or predictions and target do not fit this loss.
    ///
    /// # Panics
    /// When the number of predictions is not the kind's, there is no target for a kind that has
    /// one, or the kind is `sum`.
    pub fn build(
        &self,
        b: &mut Builder,
        predictions: &[ValueId],
        target: Option<ValueId>,
    ) -> Result<ValueId, LossError> {
        let facts: Vec<Fact> = predictions.iter().map(|id| b.fact(*id).clone()).collect();
        let expected = self.target_fact(&facts)?;
        b.enter(Origin::Loss, "loss");
        if let (Some(target), Some(expected)) = (target, &expected) {
            self.check_target(b, target, expected)?;
            b.refine(target, expected);
        }
        let mut wide = Vec::with_capacity(predictions.len());
        for (id, fact) in predictions.iter().zip(&facts) {
            let dtype = self.wide(fact)?;
            wide.push(if b.dtype(*id) == dtype { *id } else { b.cast(*id, dtype) });
        }
        let target = || target.expect("a loss that compares has a target");
        Ok(match (self.kind, wide.as_slice()) {
            (LossKind::CrossEntropy, &[x]) => cross_entropy::build(self, b, x, target())?,
            (LossKind::Nll, &[x]) => nll::build(self, b, x, target())?,
            (LossKind::BinaryCrossEntropy, &[x]) => binary_cross_entropy::build(self, b, x, target())?,
            (LossKind::Kl, &[x]) => kl::build(self, b, x, target())?,
            (LossKind::Mse, &[x]) => mse::build(b, x, target()),
            (LossKind::L1, &[x]) => l1::build(b, x, target()),
            (LossKind::Huber, &[x]) => huber::build(f64::from(self.delta), b, x, target()),
            (LossKind::SmoothL1, &[x]) => smooth_l1::build(self, b, x, target()),
            (LossKind::HingeEmbedding, &[x]) => hinge_embedding::build(self, b, x, target()),
            (LossKind::CosineEmbedding, &[x, y]) => cosine_embedding::build(self, b, x, y, target()),
            (LossKind::MarginRanking, &[x, y]) => margin_ranking::build(self, b, x, y, target()),
            (LossKind::Triplet, &[anchor, positive, negative]) => triplet::build(self, b, anchor, positive, negative),
            (LossKind::Contrastive, &[x, y]) => contrastive::build(self, b, x, y),
            (LossKind::Ctc, &[x]) => ctc::build(self, b, x, target())?,
            (LossKind::Output, &[x]) => output::build(b, x),
            _ => unreachable!("invariant: checked against the kind"),
        })
    }

    /// Returns the axis of the prediction, from the front, on which the classes lie, and their
    /// number; `None` for a loss without classes and where the number is not fixed.
    pub fn classes(&self, prediction: &Fact) -> Option<(usize, usize)> {
        if self.kind == LossKind::Ctc {
            return Some((2, prediction.dim(2)?.known()?));
        }
        if !matches!(self.kind, LossKind::CrossEntropy | LossKind::Nll) {
            return None;
        }
        let axis = self.axis(prediction).ok()?;
        Some((axis, prediction.shape.as_ref()?[axis].known()?))
    }

    /// Refuses a prediction of another rank.
    fn ranked(&self, prediction: &Fact, rank: usize, expected: &'static str) -> Result<(), LossError> {
        match prediction.rank() {
            Some(found) if found == rank => Ok(()),
            _ => Err(LossError::Prediction { kind: self.kind, expected, found: prediction.to_string() }),
        }
    }

    /// Returns the axis of the prediction, from the front, on which the classes lie.
    ///
    /// # Errors
    /// The prediction has no such axis.
    pub fn axis(&self, prediction: &Fact) -> Result<usize, LossError> {
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

/// Appends `pull` where the sign is 1, `push` where it is -1, else NaN.
fn by_sign(b: &mut Builder, sign: ValueId, pull: ValueId, push: ValueId) -> ValueId {
    let (near, far) = (b.compare("Equal", sign, 1.0), b.compare("Equal", sign, -1.0));
    let nan = b.like(pull, f64::NAN);
    let push = b.select(far, push, nan);
    b.select(near, pull, push)
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
