//! The names of the losses, what they read, and which options each takes.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Which loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// Negative log-likelihood of a class index under the softmax of the prediction.
    #[default]
    CrossEntropy,
    /// Negative log-likelihood of a class index under log-probabilities.
    Nll,
    /// Negative log-likelihood of probabilities in [0, 1] under the sigmoid of the prediction.
    BinaryCrossEntropy,
    /// Kullback-Leibler divergence of probabilities from log-probabilities.
    Kl,
    /// Squared difference.
    Mse,
    /// Absolute difference.
    L1,
    /// Squared difference up to `delta`, linear beyond.
    Huber,
    /// Absolute difference, squared below `beta`.
    SmoothL1,
    /// A distance for a target of 1, what it lacks to a margin for -1.
    HingeEmbedding,
    /// Cosine of two predictions, to be 1 for a target of 1 and at most a margin for -1.
    CosineEmbedding,
    /// Which of two predictions ranks higher, by a margin.
    MarginRanking,
    /// Distances of an anchor to what is like it and what is not, by a margin.
    Triplet,
    /// Cross-entropy of finding the other one of a pair in the batch.
    Contrastive,
    /// Negative log-likelihood of a sequence of labels under class scores of every step.
    Ctc,
    /// A scalar output of the model.
    Output,
    /// A weighted sum of several.
    Sum,
}

impl LossKind {
    /// Every kind, in the order of the documentation.
    pub const ALL: [LossKind; 16] = [
        LossKind::CrossEntropy,
        LossKind::Nll,
        LossKind::BinaryCrossEntropy,
        LossKind::Kl,
        LossKind::Mse,
        LossKind::L1,
        LossKind::Huber,
        LossKind::SmoothL1,
        LossKind::HingeEmbedding,
        LossKind::CosineEmbedding,
        LossKind::MarginRanking,
        LossKind::Triplet,
        LossKind::Contrastive,
        LossKind::Ctc,
        LossKind::Output,
        LossKind::Sum,
    ];

    /// Returns the name a job file uses.
    pub fn name(self) -> &'static str {
        match self {
            LossKind::CrossEntropy => "cross-entropy",
            LossKind::Nll => "nll",
            LossKind::BinaryCrossEntropy => "binary-cross-entropy",
            LossKind::Kl => "kl",
            LossKind::Mse => "mse",
            LossKind::L1 => "l1",
            LossKind::Huber => "huber",
            LossKind::SmoothL1 => "smooth-l1",
            LossKind::HingeEmbedding => "hinge-embedding",
            LossKind::CosineEmbedding => "cosine-embedding",
            LossKind::MarginRanking => "margin-ranking",
            LossKind::Triplet => "triplet",
            LossKind::Contrastive => "contrastive",
            LossKind::Ctc => "ctc",
            LossKind::Output => "output",
            LossKind::Sum => "sum",
        }
    }

    /// Returns the kind of a name.
    pub fn from_name(name: &str) -> Option<LossKind> {
        LossKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Returns how many outputs of the model this kind reads; 0 for `sum`, whose terms do.
    pub fn outputs(self) -> usize {
        match self {
            LossKind::Sum => 0,
            LossKind::CosineEmbedding | LossKind::MarginRanking | LossKind::Contrastive => 2,
            LossKind::Triplet => 3,
            _ => 1,
        }
    }

    /// Returns true where this kind compares with a target.
    pub fn has_target(self) -> bool {
        !matches!(self, LossKind::Triplet | LossKind::Contrastive | LossKind::Output | LossKind::Sum)
    }

    /// Returns the options that this kind has beside those that its outputs and target make.
    pub(super) fn options(self) -> &'static [&'static str] {
        match self {
            LossKind::CrossEntropy => {
                &["class_axis", "class_weights", "ignore_index", "label_smoothing", "target_kind"]
            }
            LossKind::Nll => &["class_axis", "class_weights", "ignore_index"],
            LossKind::BinaryCrossEntropy => &["class_axis", "pos_weight"],
            LossKind::Kl => &["class_axis", "log_target", "logits"],
            LossKind::Mse | LossKind::L1 | LossKind::Output => &[],
            LossKind::Huber => &["delta"],
            LossKind::SmoothL1 => &["beta"],
            LossKind::HingeEmbedding | LossKind::CosineEmbedding | LossKind::MarginRanking => &["margin"],
            LossKind::Triplet => &["margin", "swap"],
            LossKind::Contrastive => &["temperature"],
            LossKind::Ctc => &["blank", "ignore_index", "time_axis", "zero_infinity"],
            LossKind::Sum => &["terms"],
        }
    }
}

impl fmt::Display for LossKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
