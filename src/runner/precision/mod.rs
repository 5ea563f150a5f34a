//! Mixed precision: a graph in which what profits computes in bfloat16 or float16.
//!
//! [`lower`] takes a graph as it is loaded (after `runner/native::optimize`) and returns one with the same inputs and
//! outputs, of the same dtypes: parameters, slots, gradients, running statistics and the loss stay float32, as do
//! updates. Between them it follows `torch.autocast`: products compute in the low dtype, what reads them follows, and
//! what needs range or resolution stays float32. What that is stands in `table`, and which nodes it makes compute in
//! the low dtype in `decide`. A value is cast once to each dtype in which it is read, constants when the graph is made.
//!
//! On an engine that has no kernels of the low dtypes the same can be shown: a *simulated* graph computes in float32 and
//! rounds every value that would be of the low dtype to it and back.
//!
//! In float16 small gradients vanish: there the loss is scaled ([`LossScale`]).
//!
//! What this module does not do: build train graphs, or run anything.

mod cast;
mod decide;
mod keep;
mod scale;
mod summary;
mod table;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod training;

pub use keep::{Keep, KeepError};
pub(super) use scale::Scale;
pub use scale::{LossScale, ScaleMode};
pub use summary::Summary;

use crate::graph::{DType, Model};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// In which dtypes a run computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// float32.
    #[default]
    Fp32,
    /// float32, with the inputs of products rounded to 10 bits of mantissa by the device.
    Tf32,
    /// bfloat16 and float32.
    Bf16,
    /// float16 and float32, with a scaled loss.
    Fp16,
}

impl Precision {
    /// Returns the dtype beside float32, where there is one.
    pub fn low(self) -> Option<LowDType> {
        match self {
            Precision::Fp32 | Precision::Tf32 => None,
            Precision::Bf16 => Some(LowDType::Bf16),
            Precision::Fp16 => Some(LowDType::Fp16),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::Fp32 => "fp32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
            Precision::Fp16 => "fp16",
        })
    }
}

/// A dtype of less than 32 bits that products are computed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LowDType {
    /// bfloat16: the range of float32.
    Bf16,
    /// float16: more resolution, at most 65504.
    Fp16,
}

impl LowDType {
    /// Returns the element type.
    pub fn dtype(self) -> DType {
        match self {
            LowDType::Bf16 => DType::BF16,
            LowDType::Fp16 => DType::F16,
        }
    }
}

/// How a run computes.
#[derive(Clone, Debug, Default)]
pub struct Computing {
    /// The dtypes.
    pub precision: Precision,
    /// What stays float32 beside what always does.
    pub keep: Keep,
    /// How the loss is scaled; `None` where it is not.
    pub scale: Option<LossScale>,
    /// The low dtype is simulated: values are rounded to it and stay float32.
    pub simulated: bool,
}

impl Computing {
    /// Returns how a run of some precision computes, with a scaled loss in float16.
    pub fn of(precision: Precision) -> Computing {
        let scale = (precision == Precision::Fp16).then(LossScale::default);
        Computing { precision, scale, ..Computing::default() }
    }

    /// Returns what graphs are made to compute in; `None` where that is float32.
    pub fn settings(&self) -> Option<Settings> {
        let low = self.precision.low()?;
        Some(Settings { low, keep: self.keep.clone(), simulated: self.simulated })
    }

    /// Returns the scale of a run that goes on, from the one that was saved and the one that it would begin with.
    pub(super) fn resumed(&self, saved: Option<Scale>, start: Option<Scale>) -> Option<Scale> {
        let follows = self.scale.is_some_and(|how| how.mode == ScaleMode::Dynamic);
        start.map(|start| saved.filter(|_| follows).unwrap_or(start))
    }

    /// Returns the scale before the first step, where the loss is scaled.
    pub(super) fn start(&self) -> Option<Scale> {
        self.scale.as_ref().and_then(LossScale::start)
    }
}

/// What a graph is made to compute in.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The low dtype.
    pub low: LowDType,
    /// What stays float32 beside what always does.
    pub keep: Keep,
    /// Values are rounded to the low dtype and stay float32.
    pub simulated: bool,
}

impl Settings {
    /// Returns the settings with nothing kept beside what always is.
    pub fn of(low: LowDType) -> Settings {
        Settings { low, keep: Keep::default(), simulated: false }
    }

    /// Returns the settings with values rounded only.
    pub fn simulated(self) -> Settings {
        Settings { simulated: true, ..self }
    }
}

/// Returns the model as it computes in mixed precision, and what computes in what.
pub fn lower<'m>(model: &'m Model, settings: &Settings) -> (Cow<'m, Model>, Summary) {
    let rows = decide::decide(&model.graph, settings);
    if rows.iter().all(Option::is_none) {
        return (Cow::Borrowed(model), Summary::of(&model.graph, &rows, settings, 0));
    }
    let (graph, casts) = cast::cast(&model.graph, &rows, settings);
    let summary = Summary::of(&model.graph, &rows, settings, casts);
    (Cow::Owned(model.with_graph(graph)), summary)
}
