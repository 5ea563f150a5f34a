//! The scale of the loss: large enough that gradients do not vanish in float16, small enough that they stay finite.
//!
//! The gradient of `scale loss` is computed, and in float32 divided by `scale`, before anything else is done with it. After a step whose gradients are all
//! finite the count of such steps rises, and where it reaches `interval` the scale is multiplied with `growth` and the
//! count is 0 again. A step with a gradient that is not finite makes no update, the scale is multiplied with `backoff`,
//! but not below 1, and the count is 0. That is `torch.amp.GradScaler`, which has no least scale.
//! <https://pytorch.org/docs/stable/amp.html#gradient-scaling>

use serde::{Deserialize, Serialize};

/// `[run.loss_scale]`: how the loss is scaled, with precision "fp16".
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LossScale {
    /// `"dynamic"` (default): the scale follows what stays finite; `"fixed"`: it stays `init`, and gradients that are not
    /// finite are what `nonfinite` acts on; `"off"`: the loss is not scaled.
    #[serde(default)]
    pub mode: ScaleMode,
    /// The scale of the first step, at least 1; 65536 by default.
    #[serde(default = "init")]
    pub init: f64,
    /// What the scale is multiplied with after `interval` steps without overflow, more than 1; 2 by default.
    #[serde(default = "growth")]
    pub growth: f64,
    /// What it is multiplied with after a step with overflow, between 0 and 1; 0.5 by default.
    #[serde(default = "backoff")]
    pub backoff: f64,
    /// Steps without overflow after which the scale grows, at least 1; 2000 by default.
    #[serde(default = "interval")]
    pub interval: u64,
}

/// How the loss is scaled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ScaleMode {
    /// By what stays finite.
    #[default]
    Dynamic,
    /// By the same number in all steps.
    Fixed,
    /// Not at all.
    Off,
}

fn init() -> f64 {
    65536.0
}

fn growth() -> f64 {
    2.0
}

fn backoff() -> f64 {
    0.5
}

fn interval() -> u64 {
    2000
}

impl Default for LossScale {
    fn default() -> LossScale {
        LossScale { mode: ScaleMode::Dynamic, init: init(), growth: growth(), backoff: backoff(), interval: interval() }
    }
}

impl LossScale {
    /// The least scale.
    pub const LEAST: f32 = 1.0;

    /// Returns the key and the reason of a value out of its range.
    pub(in crate::runner) fn problem(&self) -> Option<(&'static str, String)> {
        let outside = |key, expected: &str, found: f64, fits: bool| {
            (!fits).then(|| (key, format!("expected {expected}, found {found}")))
        };
        let largest = f64::from(f32::MAX);
        outside("run.loss_scale.init", "1 or more, in float32", self.init, (1.0..=largest).contains(&self.init))
            .or_else(|| {
                let fits = self.growth > 1.0 && self.growth <= largest;
                outside("run.loss_scale.growth", "more than 1", self.growth, fits)
            })
            .or_else(|| {
                let fits = self.backoff > 0.0 && self.backoff < 1.0;
                outside("run.loss_scale.backoff", "a number between 0 and 1", self.backoff, fits)
            })
            .or_else(|| {
                let zero = || ("run.loss_scale.interval", "expected 1 or more, found 0".to_string());
                (self.interval == 0).then(zero)
            })
    }

    /// Returns the scale before the first step; `None` where the loss is not scaled.
    pub(in crate::runner) fn start(&self) -> Option<Scale> {
        (self.mode != ScaleMode::Off).then_some(Scale { scale: self.init as f32, good: 0 })
    }
}

/// The scale as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::runner) struct Scale {
    /// What the loss is multiplied with.
    pub scale: f32,
    /// Steps without overflow since it changed.
    pub good: u64,
}

impl Scale {
    /// Notes a step without overflow; returns true where the scale grows.
    pub(in crate::runner) fn good(&mut self, how: &LossScale) -> bool {
        if how.mode != ScaleMode::Dynamic {
            return false;
        }
        self.good += 1;
        if self.good < how.interval {
            return false;
        }
        self.good = 0;
        let grown = self.scale * how.growth as f32;
        let grows = grown.is_finite();
        self.scale = if grows { grown } else { self.scale };
        grows
    }

    /// Notes a step with overflow; returns true where a smaller scale may help, to which it goes.
    pub(in crate::runner) fn overflow(&mut self, how: &LossScale) -> bool {
        if how.mode != ScaleMode::Dynamic || self.scale <= LossScale::LEAST {
            return false;
        }
        self.good = 0;
        self.scale = (self.scale * how.backoff as f32).max(LossScale::LEAST);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_grows_and_falls_as_that_of_torch() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../../fixtures/precision/grad_scaler.json")).unwrap();
        let runs = golden["runs"].as_array().unwrap();
        assert!(!runs.is_empty());
        for run in runs {
            let how: LossScale = serde_json::from_value(run["settings"].clone()).unwrap();
            let mut scale = how.start().unwrap();
            for (step, expected) in run["steps"].as_array().unwrap().iter().enumerate() {
                let overflows = expected["overflow"].as_bool().unwrap();
                if overflows {
                    scale.overflow(&how)
                } else {
                    scale.good(&how)
                };
                let found = (f64::from(scale.scale), scale.good);
                let expected = (expected["scale"].as_f64().unwrap(), expected["good"].as_u64().unwrap());
                assert_eq!(found, expected, "{how:?}, step {step}");
            }
        }
    }

    #[test]
    fn the_scale_stays_in_its_range() {
        let how = LossScale { init: 3.0, interval: 1, ..LossScale::default() };
        let mut scale = how.start().unwrap();
        assert!(scale.overflow(&how) && scale.scale == 1.5);
        assert!(scale.overflow(&how) && scale.scale == 1.0);
        assert!(!scale.overflow(&how) && scale.scale == 1.0);
        assert!((0..127).all(|_| scale.good(&how)) && scale.scale == 2f32.powi(127));
        assert!(!scale.good(&how) && scale.scale == 2f32.powi(127));
    }

    #[test]
    fn a_fixed_scale_stays() {
        let how = LossScale { mode: ScaleMode::Fixed, init: 128.0, interval: 1, ..LossScale::default() };
        let mut scale = how.start().unwrap();
        assert!(!scale.overflow(&how) && !scale.good(&how) && scale.scale == 128.0);
        assert_eq!(LossScale { mode: ScaleMode::Off, ..how }.start(), None);
    }
}
