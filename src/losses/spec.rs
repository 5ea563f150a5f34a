//! The options of a loss: the `[loss]` table of a job.

use super::{LossError, LossKind};
use crate::graph::Tensor;
use serde::{Deserialize, Serialize};

/// A loss with its options. An option of another kind is an error, not ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct LossSpec {
    /// Which loss.
    pub kind: LossKind,
    /// The model output that the loss reads, for a loss of one; that of the job by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// The model outputs that the loss reads, for a loss of several: the two of `cosine-embedding`,
    /// `margin-ranking` and `contrastive`; anchor, positive and negative of `triplet`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Vec<String>>,
    /// Name of the target, where a job names its targets; else there is one without a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Factor of the loss, at least 0; default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 0)))]
    pub weight: Option<f64>,
    /// Axis of the prediction that the classes lie on, for `cross-entropy`, `nll` and, with `logits`,
    /// `kl`, and that `pos_weight` runs along, for `binary-cross-entropy`; may count from the end.
    /// Default: the last axis up to rank 3, axis 1 from rank 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_axis: Option<i64>,
    /// Weight of each class, for `cross-entropy` and `nll`; none negative.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_weights: Option<Vec<f32>>,
    /// Target value that does not count, for `cross-entropy`, `nll` and, after the last label of a
    /// sample, `ctc`; default [`IGNORE_INDEX`](super::IGNORE_INDEX).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_index: Option<i64>,
    /// What the target holds, for `cross-entropy`: `"indices"` (default) of classes, or `"probabilities"` of all of
    /// them.
    #[serde(skip_serializing_if = "TargetKind::is_indices")]
    pub target_kind: TargetKind,
    /// Fraction of the target spread over all classes, in [0, 1], for `cross-entropy`.
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 1)))]
    pub label_smoothing: f32,
    /// Absolute difference from which on the loss is linear, above 0, for `huber`.
    #[cfg_attr(feature = "schema", schemars(extend("exclusiveMinimum" = 0)))]
    pub delta: f32,
    /// Absolute difference from which on the loss is linear, at least 0, for `smooth-l1`; default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 0)))]
    pub beta: Option<f32>,
    /// Weight of the positive part for each class, or one for all, for `binary-cross-entropy`;
    /// none negative.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pos_weight: Option<Vec<f32>>,
    /// Whether the target holds logarithms of probabilities, for `kl`; default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_target: Option<bool>,
    /// Whether the log-softmax of the prediction is taken, for `kl`; default false: the prediction
    /// holds logarithms of probabilities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits: Option<bool>,
    /// How far apart is far enough, for `hinge-embedding` and `triplet`, default 1, for
    /// `cosine-embedding`, in [-1, 1], and `margin-ranking`, default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<f32>,
    /// Whether the negative is as near as it is to anchor or positive, for `triplet`; default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<bool>,
    /// Divisor of the cosines, above 0, for `contrastive`; default 0.07.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(extend("exclusiveMinimum" = 0)))]
    pub temperature: Option<f32>,
    /// Class that stands for no label, for `ctc`; default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blank: Option<i64>,
    /// Axis of the steps, 0 or 1, for `ctc`, whose prediction has the classes on its last axis; default
    /// 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_axis: Option<i64>,
    /// Whether samples with fewer steps than their labels need count as 0, for `ctc`; default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zero_infinity: Option<bool>,
    /// What a `sum` adds; each with its own weight, outputs and target.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub terms: Vec<LossSpec>,
}

/// What the target of a loss of classes holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum TargetKind {
    /// The index of one class.
    #[default]
    Indices,
    /// A probability for each class.
    Probabilities,
}

impl TargetKind {
    fn is_indices(&self) -> bool {
        *self == TargetKind::Indices
    }
}

impl Default for LossSpec {
    fn default() -> Self {
        LossSpec {
            kind: LossKind::default(),
            output: None,
            outputs: None,
            target: None,
            weight: None,
            class_axis: None,
            class_weights: None,
            ignore_index: None,
            target_kind: TargetKind::Indices,
            label_smoothing: 0.0,
            delta: 1.0,
            beta: None,
            pos_weight: None,
            log_target: None,
            logits: None,
            margin: None,
            swap: None,
            temperature: None,
            blank: None,
            time_axis: None,
            zero_infinity: None,
            terms: Vec::new(),
        }
    }
}

impl LossSpec {
    /// Returns a loss with default options.
    pub fn new(kind: LossKind) -> LossSpec {
        LossSpec { kind, ..LossSpec::default() }
    }

    /// Returns the sum of losses.
    pub fn sum(terms: Vec<LossSpec>) -> LossSpec {
        LossSpec { terms, ..LossSpec::new(LossKind::Sum) }
    }

    /// Returns what is added: the terms of a sum, else the loss itself.
    pub fn terms(&self) -> &[LossSpec] {
        if self.kind == LossKind::Sum { &self.terms } else { std::slice::from_ref(self) }
    }

    /// Returns the term whose prediction metrics are taken of: the first that classifies, else the
    /// first.
    pub fn judged(&self) -> &LossSpec {
        let judged = |term: &&LossSpec| {
            matches!(term.kind, LossKind::CrossEntropy | LossKind::Nll | LossKind::BinaryCrossEntropy)
        };
        self.terms().iter().find(judged).or(self.terms().first()).unwrap_or(self)
    }

    /// Returns the index of the most probable class where a target holds probabilities along `axis`, the first among
    /// equals; another target as it is. Metrics are taken of these.
    ///
    /// # Panics
    /// When there is no such axis.
    pub fn indices(&self, target: &Tensor, axis: usize) -> Tensor {
        let Some(values) = target.to_f64s().filter(|_| self.target_kind == TargetKind::Probabilities) else {
            return target.clone();
        };
        let mut shape = target.shape().to_vec();
        let classes = shape.remove(axis);
        let inner: usize = shape[axis..].iter().product();
        let best = |place: usize| {
            let value = |class: usize| values[(place / inner * classes + class) * inner + place % inner];
            (1..classes).fold(0, |best, class| if value(class) > value(best) { class } else { best })
        };
        Tensor::from_vec(&shape, (0..shape.iter().product()).map(|place| best(place) as i64).collect())
    }

    /// Checks the options without a model.
    ///
    /// # Errors
    /// An option belongs to another kind or is out of its range.
    pub fn validate(&self) -> Result<(), LossError> {
        let kind = self.kind;
        let has = |option: &str| kind.options().contains(&option);
        let given = [
            (self.output.is_some(), "output", kind.outputs() == 1),
            (self.outputs.is_some(), "outputs", kind.outputs() > 1),
            (self.target.is_some(), "target", kind.has_target()),
            (self.weight.is_some(), "weight", kind != LossKind::Sum),
            (self.class_axis.is_some(), "class_axis", has("class_axis")),
            (self.class_weights.is_some(), "class_weights", has("class_weights")),
            (self.ignore_index.is_some(), "ignore_index", has("ignore_index")),
            (!self.target_kind.is_indices(), "target_kind", has("target_kind")),
            (self.label_smoothing != 0.0, "label_smoothing", has("label_smoothing")),
            (self.delta != 1.0, "delta", has("delta")),
            (self.beta.is_some(), "beta", has("beta")),
            (self.pos_weight.is_some(), "pos_weight", has("pos_weight")),
            (self.log_target.is_some(), "log_target", has("log_target")),
            (self.logits.is_some(), "logits", has("logits")),
            (self.margin.is_some(), "margin", has("margin")),
            (self.swap.is_some(), "swap", has("swap")),
            (self.temperature.is_some(), "temperature", has("temperature")),
            (self.blank.is_some(), "blank", has("blank")),
            (self.time_axis.is_some(), "time_axis", has("time_axis")),
            (self.zero_infinity.is_some(), "zero_infinity", has("zero_infinity")),
            (!self.terms.is_empty(), "terms", has("terms")),
        ];
        if let Some((_, option, _)) = given.into_iter().find(|(given, _, allowed)| *given && !*allowed) {
            return Err(LossError::Option { kind, option });
        }
        let found = self.outputs.as_ref().map_or(0, Vec::len);
        if kind.outputs() > 1 && found != kind.outputs() {
            let expected = kind.outputs().to_string();
            return Err(LossError::Count { kind, option: "outputs", expected, found });
        }
        self.ranges()?;
        if kind == LossKind::Sum && self.terms.is_empty() {
            return Err(LossError::Count { kind, option: "terms", expected: "1 or more".into(), found: 0 });
        }
        for term in &self.terms {
            if term.kind == LossKind::Sum {
                return Err(LossError::Range {
                    kind,
                    option: "terms",
                    range: "that are no sums".into(),
                    found: "a sum".into(),
                });
            }
            term.validate()?;
        }
        Ok(())
    }

    fn ranges(&self) -> Result<(), LossError> {
        let kind = self.kind;
        let range = |option, range: &str, found: String| {
            Err(LossError::Range { kind, option, range: range.to_string(), found })
        };
        let positive = |value: f32| value > 0.0 && value.is_finite();
        if !(0.0..=1.0).contains(&self.label_smoothing) {
            return range("label_smoothing", "in [0, 1]", self.label_smoothing.to_string());
        }
        if !positive(self.delta) {
            return range("delta", "above 0", self.delta.to_string());
        }
        if !positive(self.temperature()) {
            return range("temperature", "above 0", self.temperature().to_string());
        }
        if let Some(ignored) = self.ignore_index.filter(|_| !self.target_kind.is_indices()) {
            return range("ignore_index", "only with target_kind = \"indices\"", ignored.to_string());
        }
        if let Some(blank) = self.blank.filter(|blank| *blank < 0) {
            return range("blank", "of at least 0", blank.to_string());
        }
        if let Some(axis) = self.time_axis.filter(|axis| !matches!(axis, 0 | 1)) {
            return range("time_axis", "of 0 or 1", axis.to_string());
        }
        if let Some(beta) = self.beta.filter(|beta| !(*beta >= 0.0 && beta.is_finite())) {
            return range("beta", "of at least 0", beta.to_string());
        }
        if let Some(weight) = self.weight.filter(|weight| !(*weight >= 0.0 && weight.is_finite())) {
            return range("weight", "of at least 0", weight.to_string());
        }
        let cosine = kind == LossKind::CosineEmbedding;
        let allowed = |margin: f32| if cosine { (-1.0..=1.0).contains(&margin) } else { margin.is_finite() };
        if !allowed(self.margin()) {
            return range("margin", if cosine { "in [-1, 1]" } else { "that is finite" }, self.margin().to_string());
        }
        for (option, weights) in [("class_weights", &self.class_weights), ("pos_weight", &self.pos_weight)] {
            let bad = |weight: &&f32| !(**weight >= 0.0 && weight.is_finite());
            if let Some(weight) = weights.iter().flatten().find(bad) {
                return range(option, "of at least 0", weight.to_string());
            }
        }
        Ok(())
    }

    pub(super) fn temperature(&self) -> f32 {
        self.temperature.unwrap_or(0.07)
    }

    pub(super) fn margin(&self) -> f32 {
        let near = matches!(self.kind, LossKind::CosineEmbedding | LossKind::MarginRanking);
        self.margin.unwrap_or(if near { 0.0 } else { 1.0 })
    }
}
