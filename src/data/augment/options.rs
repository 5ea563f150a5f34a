//! `[data.augment]`: what is random about pictures while training.

use super::{Erasing, RandomCrop, RandomResizedCrop};
use serde::{Deserialize, Serialize};

/// What is random about pictures while training.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AugmentOptions {
    /// The column of pictures, for files of arrays; by default that of `[data.image]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// Where a row is cut out, of a picture with a border of 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub random_crop: Option<RandomCrop>,
    /// Which part is resized to a row, in place of `resize` and `crop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub random_resized_crop: Option<RandomResizedCrop>,
    /// The probability that left and right are exchanged.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 1)))]
    pub horizontal_flip: f64,
    /// The probability that top and bottom are exchanged.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 1)))]
    pub vertical_flip: f64,
    /// All numbers are multiplied by a factor in `[max(0, 1 - b), 1 + b]`.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(range(min = 0)))]
    pub brightness: f64,
    /// The same of the distance to the mean grey.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(range(min = 0)))]
    pub contrast: f64,
    /// The same of the distance to the grey of the pixel.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(range(min = 0)))]
    pub saturation: f64,
    /// A rectangle that is overwritten, after `mean` and `std`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erasing: Option<Erasing>,
    /// Each row and its target is mixed with another one: `l x + (1 - l) y`, `l` of a batch drawn from Beta(a, a).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(extend("exclusiveMinimum" = 0)))]
    pub mixup: Option<f64>,
    /// A rectangle of each picture is that of another one, and its target is mixed by area; the size from Beta(a, a).
    /// With `mixup` one of both is drawn for each batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(extend("exclusiveMinimum" = 0)))]
    pub cutmix: Option<f64>,
}

impl AugmentOptions {
    /// Returns true where single rows are changed.
    pub fn is_of_rows(&self) -> bool {
        self.moves_pixels() || self.changes_values()
    }

    /// Returns true where whole batches are changed.
    pub fn mixes(&self) -> bool {
        self.mixup.is_some() || self.cutmix.is_some()
    }

    /// Returns true where pixels come to lie elsewhere.
    pub fn moves_pixels(&self) -> bool {
        let flips = self.horizontal_flip > 0.0 || self.vertical_flip > 0.0;
        flips || self.random_crop.is_some() || self.random_resized_crop.is_some()
    }

    pub(in crate::data) fn changes_colours(&self) -> bool {
        self.brightness > 0.0 || self.contrast > 0.0 || self.saturation > 0.0
    }

    pub(in crate::data) fn changes_values(&self) -> bool {
        self.changes_colours() || self.erasing.is_some()
    }

    /// Returns the key and the reason of a value out of its range.
    pub fn problem(&self) -> Option<(&'static str, String)> {
        let probability = |key, value: f64| {
            (!(0.0..=1.0).contains(&value)).then(|| (key, format!("expected a probability in [0, 1], found {value}")))
        };
        let amount = |key, value: f64| {
            let wrong = !(value.is_finite() && value >= 0.0);
            wrong.then(|| (key, format!("expected a number of 0 or more, found {value}")))
        };
        let alpha = |key, value: Option<f64>| {
            let value = value.filter(|value| !(value.is_finite() && *value > 0.0))?;
            Some((key, format!("expected a number above 0, found {value}")))
        };
        if self.random_crop.is_some() && self.random_resized_crop.is_some() {
            let reason = "stands beside random_resized_crop: a job has one or the other".to_string();
            return Some(("data.augment.random_crop", reason));
        }
        probability("data.augment.horizontal_flip", self.horizontal_flip)
            .or_else(|| probability("data.augment.vertical_flip", self.vertical_flip))
            .or_else(|| amount("data.augment.brightness", self.brightness))
            .or_else(|| amount("data.augment.contrast", self.contrast))
            .or_else(|| amount("data.augment.saturation", self.saturation))
            .or_else(|| alpha("data.augment.mixup", self.mixup))
            .or_else(|| alpha("data.augment.cutmix", self.cutmix))
            .or_else(|| {
                let crop = self.random_resized_crop.as_ref()?;
                Some(("data.augment.random_resized_crop", range_problem(crop.scale, crop.ratio)?))
            })
            .or_else(|| {
                let erasing = self.erasing.as_ref()?;
                let reason = range_problem(erasing.scale, erasing.ratio);
                let value = (!erasing.value.is_finite()).then(|| "expected a finite value".to_string());
                Some(("data.augment.erasing", reason.or(value)?))
            })
            .or_else(|| probability("data.augment.erasing", self.erasing.as_ref()?.probability))
    }
}

fn range_problem(scale: [f64; 2], ratio: [f64; 2]) -> Option<String> {
    let ordered = |[low, high]: [f64; 2]| low > 0.0 && low <= high && high.is_finite();
    if !(ordered(scale) && scale[1] <= 1.0) {
        return Some(format!("expected scale = [low, high] in (0, 1], found {scale:?}"));
    }
    (!ordered(ratio)).then(|| format!("expected ratio = [low, high] above 0, found {ratio:?}"))
}
