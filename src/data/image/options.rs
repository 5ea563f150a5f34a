//! `[data.image]`: how pictures become rows.

use serde::de::{Error, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// How pictures become rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ImageOptions {
    /// The column of `[C, H, W]` or `[H, W]` that is made of pictures, for files of arrays; by default the only one
    /// whose rows have three dimensions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The shorter side, or height and width; as they are by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resize: Option<Extent>,
    /// The size of a row, cut out of the middle, or elsewhere by an augmentation; what is not covered is 0. One number
    /// for a square.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<Extent>,
    /// 3 for red, green and blue, 1 for grey; for files 3 by default, else as many as there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<usize>,
    /// How pictures are resized.
    #[serde(default)]
    pub interpolation: Interpolation,
    /// `"imagenet"` for the mean and the standard deviation of ImageNet in place of `mean` and `std`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalise: Option<Normalise>,
    /// What is subtracted of each channel, of numbers in [0, 1]; one number for all. 0 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<Vec<f64>>,
    /// What each channel is then divided by, above 0; one number for all. 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub std: Option<Vec<f64>>,
    /// `"float32"`, in [0, 1] before `mean` and `std`, or `"uint8"` as they are stored.
    #[serde(default)]
    pub dtype: PixelType,
    /// `"nchw"` or `"nhwc"`.
    #[serde(default)]
    pub layout: Layout,
    /// The names of the classes of a folder of images, by their labels; by default its subfolders, sorted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<String>>,
}

/// How a size is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// One number.
    Side(usize),
    /// Height and width.
    Exact(usize, usize),
}

/// How pixels between pixels are computed. All but `Nearest` average over what a pixel covers where the picture gets
/// smaller, as Pillow and torchvision with `antialias`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// The nearest pixel.
    Nearest,
    /// Linear.
    #[default]
    Bilinear,
    /// Cubic, a = -0.5.
    Bicubic,
    /// A sinc with three lobes.
    Lanczos,
}

/// A well-known mean and standard deviation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Normalise {
    /// Mean 0.485, 0.456, 0.406; standard deviation 0.229, 0.224, 0.225.
    Imagenet,
}

/// What the numbers of a row are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum PixelType {
    /// Fractions.
    #[default]
    Float32,
    /// 0 to 255.
    Uint8,
}

/// The order of the dimensions of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Channels first.
    #[default]
    Nchw,
    /// Channels last.
    Nhwc,
}

impl ImageOptions {
    /// Returns mean and standard deviation of each channel, or of all of them; 0 and 1 where nothing is given.
    pub(super) fn moments(&self) -> (Vec<f64>, Vec<f64>) {
        match self.normalise {
            Some(Normalise::Imagenet) => (vec![0.485, 0.456, 0.406], vec![0.229, 0.224, 0.225]),
            None => (self.mean.clone().unwrap_or(vec![0.0]), self.std.clone().unwrap_or(vec![1.0])),
        }
    }

    /// Returns the key and the reason of a value out of its range.
    pub fn problem(&self) -> Option<(&'static str, String)> {
        let extent = |key, extent: Option<Extent>| {
            let zero = matches!(extent, Some(Extent::Side(0) | Extent::Exact(0, _) | Extent::Exact(_, 0)));
            zero.then(|| (key, "expected sizes of 1 or more, found 0".to_string()))
        };
        let given = self.mean.is_some() || self.std.is_some();
        let moments = |key, numbers: &Option<Vec<f64>>, least: f64| {
            let numbers = numbers.as_ref()?;
            if !matches!(numbers.len(), 1 | 3) && self.channels.is_none_or(|channels| channels != numbers.len()) {
                return Some((key, format!("expected a number for each channel or for all, found {}", numbers.len())));
            }
            let bad = numbers.iter().find(|number| !(number.is_finite() && **number > least))?;
            Some((key, format!("expected finite numbers{}, found {bad}", if least == 0.0 { " above 0" } else { "" })))
        };
        if let Some(channels) = self.channels.filter(|channels| !matches!(channels, 1 | 3)) {
            return Some(("data.image.channels", format!("expected 1 or 3, found {channels}")));
        }
        if given && self.normalise.is_some() {
            return Some(("data.image.normalise", "stands beside mean or std".into()));
        }
        if self.normalise.is_some() && self.channels == Some(1) {
            return Some(("data.image.normalise", "\"imagenet\" has 3 channels, and data.image.channels is 1".into()));
        }
        if self.dtype == PixelType::Uint8 && (given || self.normalise.is_some()) {
            return Some(("data.image.dtype", "\"uint8\" takes no mean, std or normalise".into()));
        }
        let twice = self.classes.as_ref().and_then(|classes| {
            let twice = classes.iter().enumerate().find(|(place, name)| classes[..*place].contains(name));
            Some(("data.image.classes", format!("names \"{}\" twice", twice?.1)))
        });
        extent("data.image.resize", self.resize)
            .or_else(|| extent("data.image.crop", self.crop))
            .or_else(|| moments("data.image.mean", &self.mean, f64::NEG_INFINITY))
            .or_else(|| moments("data.image.std", &self.std, 0.0))
            .or(twice)
    }
}

impl Serialize for Extent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Extent::Side(side) => side.serialize(serializer),
            Extent::Exact(height, width) => {
                let mut sizes = serializer.serialize_seq(Some(2))?;
                sizes.serialize_element(height)?;
                sizes.serialize_element(width)?;
                sizes.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Extent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Extent, D::Error> {
        deserializer.deserialize_any(ReadExtent)
    }
}

struct ReadExtent;

impl<'de> Visitor<'de> for ReadExtent {
    type Value = Extent;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of pixels, or [height, width]")
    }

    fn visit_i64<E: Error>(self, side: i64) -> Result<Extent, E> {
        let unexpected = serde::de::Unexpected::Signed(side);
        usize::try_from(side).map(Extent::Side).map_err(|_| E::invalid_value(unexpected, &self))
    }

    fn visit_u64<E: Error>(self, side: u64) -> Result<Extent, E> {
        let unexpected = serde::de::Unexpected::Unsigned(side);
        usize::try_from(side).map(Extent::Side).map_err(|_| E::invalid_value(unexpected, &self))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sizes: A) -> Result<Extent, A::Error> {
        let wrong = |count: usize| A::Error::custom(format!("expected [height, width], found {count} numbers"));
        let height = sizes.next_element()?.ok_or_else(|| wrong(0))?;
        let width = sizes.next_element()?.ok_or_else(|| wrong(1))?;
        match sizes.next_element::<usize>()? {
            None => Ok(Extent::Exact(height, width)),
            Some(_) => Err(wrong(3)),
        }
    }
}
