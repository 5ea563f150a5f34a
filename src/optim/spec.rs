//! The options of an optimizer: the `[optimizer]` table of a job.

use super::{OptimError, OptimizerKind};
use serde::{Deserialize, Serialize};

/// An optimizer with its options; `None` takes PyTorch's default (for `lion`, that of its authors).
/// An option of another kind is an error, not ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OptimizerSpec {
    /// Which optimizer.
    pub kind: OptimizerKind,
    /// Base learning rate of the job, at least 0; default 0.001, for `rmsprop` and `adagrad` 0.01,
    /// for `lion` 0.0001. The graph reads the rate of the step from its input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 0)))]
    pub lr: Option<f64>,
    /// Decay of the velocity per step, at least 0, for `sgd`, `rmsprop` and `muon`; default 0, for
    /// `muon` 0.95.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 0)))]
    pub momentum: Option<f64>,
    /// Fraction of the gradient that stays out of the velocity after the first step, in [0, 1], for
    /// `sgd` with momentum; default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 1)))]
    pub dampening: Option<f64>,
    /// Steps along the velocity of the next step, for `sgd` with momentum (default false) and `muon`
    /// (default true).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nesterov: Option<bool>,
    /// Pull towards 0 per unit of learning rate, at least 0; default 0, for `adamw` 0.01, for `muon`
    /// 0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 0)))]
    pub weight_decay: Option<f64>,
    /// Decays of two averages, each in [0, 1): of gradient and squared gradient for `adam` and
    /// `adamw`, default [0.9, 0.999]; of the step's and of the kept average for `lion`, default
    /// [0.9, 0.99].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(inner(range(min = 0, max = 1))))]
    pub betas: Option<[f64; 2]>,
    /// Added to the divisor, at least 0, for all but `sgd` and `lion`; default 1e-8, for `adagrad`
    /// 1e-10, for `muon`, where it is the least norm of the velocity, 1e-7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 0)))]
    pub eps: Option<f64>,
    /// Divides by the largest average of squares so far, for `adam` and `adamw`; default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amsgrad: Option<bool>,
    /// Keeps weight decay apart from the gradient, for `adam`, which is `adamw` then; default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoupled_weight_decay: Option<bool>,
    /// Decay of the average of squared gradients, in [0, 1), for `rmsprop`; default 0.99.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 0), extend("exclusiveMaximum" = 1)))]
    pub alpha: Option<f64>,
    /// Divides by the root of the variance instead, for `rmsprop`; default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub centered: Option<bool>,
    /// Fall of the learning rate with the steps, at least 0, for `adagrad`; default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 0)))]
    pub lr_decay: Option<f64>,
    /// Sum of squares before the first step, at least 0, for `adagrad`; default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 0)))]
    pub initial_accumulator_value: Option<f64>,
    /// Newton-Schulz iterations, 1 to 99, for `muon`; default 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 99)))]
    pub ns_steps: Option<u32>,
    /// Coefficients of their polynomial, for `muon`; default [3.4445, -4.775, 2.0315].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ns_coefficients: Option<[f64; 3]>,
    /// How the rate follows the shape of the matrix, for `muon`; default `original`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adjust_lr_fn: Option<AdjustLr>,
    /// Largest absolute value of an element of a gradient, above 0; default no limit. Elements are clipped before
    /// `clip_norm` takes the norm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(extend("exclusiveMinimum" = 0)))]
    pub clip_value: Option<f32>,
    /// Largest L2 norm of all gradients of a step together, above 0; default no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(extend("exclusiveMinimum" = 0)))]
    pub clip_norm: Option<f32>,
    /// Whether weight decay acts on parameters of rank 0 and 1 (biases, scales of normalization)
    /// that no group gives one; default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay_1d: Option<bool>,
    /// What updates the parameters that `muon` does not; default `adamw` at the rate of `lr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Box<OptimizerSpec>>,
    /// Settings of some parameters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
}

/// Settings of the parameters that a pattern matches. Of several groups that match a parameter,
/// the last that has a setting decides it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Globs on parameter name or unit path, at least one.
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub parameters: Vec<String>,
    /// Factor of the learning rate, at least 0; default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 0)))]
    pub lr_scale: Option<f64>,
    /// Weight decay in place of the optimizer's, at least 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 0)))]
    pub weight_decay: Option<f64>,
    /// Whether the fallback updates these although they are matrices, for `muon`; default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<bool>,
}

/// How the rate of a step of `muon` follows the rows `A` and columns `B` of the matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AdjustLr {
    /// `sqrt(max(1, A / B))`
    #[default]
    Original,
    /// `0.2 sqrt(max(A, B))`
    MatchRmsAdamw,
    /// `sqrt(A / B)`
    SpectralUnclamped,
}

impl OptimizerSpec {
    /// Returns an optimizer with default options.
    pub fn new(kind: OptimizerKind) -> OptimizerSpec {
        OptimizerSpec {
            kind,
            lr: None,
            momentum: None,
            dampening: None,
            nesterov: None,
            weight_decay: None,
            betas: None,
            eps: None,
            amsgrad: None,
            decoupled_weight_decay: None,
            alpha: None,
            centered: None,
            lr_decay: None,
            initial_accumulator_value: None,
            ns_steps: None,
            ns_coefficients: None,
            adjust_lr_fn: None,
            clip_value: None,
            clip_norm: None,
            decay_1d: None,
            fallback: None,
            groups: Vec::new(),
        }
    }

    /// Checks the options.
    ///
    /// # Errors
    /// An option belongs to another kind or is out of its range.
    pub fn validate(&self) -> Result<(), OptimError> {
        let kind = self.kind;
        let given = [
            (self.momentum.is_some(), "momentum"),
            (self.dampening.is_some(), "dampening"),
            (self.nesterov.is_some(), "nesterov"),
            (self.betas.is_some(), "betas"),
            (self.eps.is_some(), "eps"),
            (self.amsgrad.is_some(), "amsgrad"),
            (self.decoupled_weight_decay.is_some(), "decoupled_weight_decay"),
            (self.alpha.is_some(), "alpha"),
            (self.centered.is_some(), "centered"),
            (self.lr_decay.is_some(), "lr_decay"),
            (self.initial_accumulator_value.is_some(), "initial_accumulator_value"),
            (self.ns_steps.is_some(), "ns_steps"),
            (self.ns_coefficients.is_some(), "ns_coefficients"),
            (self.adjust_lr_fn.is_some(), "adjust_lr_fn"),
            (self.fallback.is_some() || self.groups.iter().any(|group| group.fallback.is_some()), "fallback"),
        ];
        if let Some((_, option)) = given.into_iter().find(|(given, option)| *given && !kind.options().contains(option))
        {
            return Err(OptimError::Option { kind, option });
        }
        self.ranges()?;
        if kind == OptimizerKind::Sgd && self.nesterov() && (self.momentum() == 0.0 || self.dampening() != 0.0) {
            return Err(OptimError::Nesterov);
        }
        if kind == OptimizerKind::Sgd && self.momentum() == 0.0 && self.dampening() != 0.0 {
            return Err(OptimError::Dampening);
        }
        match &self.fallback {
            Some(fallback) => fallback.validate_fallback(),
            None => Ok(()),
        }
    }

    fn ranges(&self) -> Result<(), OptimError> {
        let kind = self.kind;
        let range = |option, range, found: String| Err(OptimError::Range { kind, option, range, found });
        let mut least = vec![
            ("lr", self.lr()),
            ("momentum", self.momentum()),
            ("weight_decay", self.weight_decay()),
            ("eps", self.eps()),
            ("lr_decay", self.lr_decay()),
            ("initial_accumulator_value", self.initial_accumulator_value()),
        ];
        least.extend(self.groups.iter().filter_map(|group| Some(("lr_scale", group.lr_scale?))));
        least.extend(self.groups.iter().filter_map(|group| Some(("weight_decay", group.weight_decay?))));
        if let Some((option, value)) = least.into_iter().find(|(_, value)| !(*value >= 0.0 && value.is_finite())) {
            return range(option, "of at least 0", value.to_string());
        }
        if self.betas().iter().any(|beta| !(0.0..1.0).contains(beta)) {
            return range("betas", "in [0, 1)", format!("{:?}", self.betas()));
        }
        if !(0.0..1.0).contains(&self.alpha()) {
            return range("alpha", "in [0, 1)", self.alpha().to_string());
        }
        if !(0.0..=1.0).contains(&self.dampening()) {
            return range("dampening", "in [0, 1]", self.dampening().to_string());
        }
        if kind == OptimizerKind::Muon && self.momentum() > 1.0 {
            return range("momentum", "in [0, 1]", self.momentum().to_string());
        }
        if !(1..100).contains(&self.ns_steps()) {
            return range("ns_steps", "from 1 to 99", self.ns_steps().to_string());
        }
        if self.ns_coefficients().iter().any(|number| !number.is_finite()) {
            return range("ns_coefficients", "of finite numbers", format!("{:?}", self.ns_coefficients()));
        }
        for (option, limit) in [("clip_value", self.clip_value), ("clip_norm", self.clip_norm)] {
            if let Some(limit) = limit.filter(|limit| !(*limit > 0.0 && limit.is_finite())) {
                return range(option, "above 0", limit.to_string());
            }
        }
        if self.groups.iter().any(|group| group.parameters.is_empty()) {
            return range("groups", "with at least one pattern in parameters each", "none".into());
        }
        if self.fallback.is_some() && self.lr() == 0.0 {
            return range("lr", "above 0 beside a fallback", "0".into());
        }
        Ok(())
    }

    /// Checks the options of a fallback, whose clipping and groups are those of the optimizer.
    fn validate_fallback(&self) -> Result<(), OptimError> {
        let own = [
            (self.kind == OptimizerKind::Muon, "kind = \"muon\""),
            (self.clip_value.is_some(), "clip_value"),
            (self.clip_norm.is_some(), "clip_norm"),
            (self.decay_1d.is_some(), "decay_1d"),
            (!self.groups.is_empty(), "groups"),
        ];
        match own.into_iter().find(|(given, _)| *given) {
            Some((_, option)) => Err(OptimError::Fallback { option }),
            None => self.validate(),
        }
    }

    /// Returns the base learning rate.
    pub fn lr(&self) -> f64 {
        self.lr.unwrap_or(match self.kind {
            OptimizerKind::RmsProp | OptimizerKind::Adagrad => 1e-2,
            OptimizerKind::Lion => 1e-4,
            _ => 1e-3,
        })
    }

    /// Returns true when the same update with the same options acts on every parameter.
    pub fn uniform(&self) -> bool {
        self.kind != OptimizerKind::Muon && self.groups.is_empty() && self.decay_1d != Some(false)
    }

    pub(crate) fn momentum(&self) -> f64 {
        self.momentum.unwrap_or(if self.kind == OptimizerKind::Muon { 0.95 } else { 0.0 })
    }

    pub(super) fn dampening(&self) -> f64 {
        self.dampening.unwrap_or(0.0)
    }

    pub(super) fn nesterov(&self) -> bool {
        self.nesterov.unwrap_or(self.kind == OptimizerKind::Muon)
    }

    pub(crate) fn weight_decay(&self) -> f64 {
        self.weight_decay.unwrap_or(match self.kind {
            OptimizerKind::AdamW => 1e-2,
            OptimizerKind::Muon => 0.1,
            _ => 0.0,
        })
    }

    pub(crate) fn betas(&self) -> [f64; 2] {
        self.betas.unwrap_or([0.9, if self.kind == OptimizerKind::Lion { 0.99 } else { 0.999 }])
    }

    pub(crate) fn eps(&self) -> f64 {
        self.eps.unwrap_or(match self.kind {
            OptimizerKind::Adagrad => 1e-10,
            OptimizerKind::Muon => 1e-7,
            _ => 1e-8,
        })
    }

    pub(crate) fn amsgrad(&self) -> bool {
        self.amsgrad.unwrap_or(false)
    }

    pub(super) fn alpha(&self) -> f64 {
        self.alpha.unwrap_or(0.99)
    }

    pub(super) fn centered(&self) -> bool {
        self.centered.unwrap_or(false)
    }

    pub(super) fn lr_decay(&self) -> f64 {
        self.lr_decay.unwrap_or(0.0)
    }

    pub(super) fn initial_accumulator_value(&self) -> f64 {
        self.initial_accumulator_value.unwrap_or(0.0)
    }

    pub(super) fn ns_steps(&self) -> u32 {
        self.ns_steps.unwrap_or(5)
    }

    pub(super) fn ns_coefficients(&self) -> [f64; 3] {
        self.ns_coefficients.unwrap_or([3.4445, -4.775, 2.0315])
    }
}
