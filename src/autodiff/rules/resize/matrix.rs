//! The interpolation matrix of one axis, as ONNX Runtime computes it: positions in single
//! precision, an axis of scale 1 untouched. It reads x elsewhere than ONNX says, and the matrix with
//! it, where `align_corners` meets a scaled size that is not whole (the whole size counts), where
//! `pytorch_half_pixel` makes one pixel (the first, not half a pixel before it), and where scales
//! near 1 leave the sizes as they are (nothing is resized).

use crate::autodiff::RuleError;
use crate::graph::Attributes;

/// Most elements of a matrix.
const LARGEST: usize = 1 << 26;

/// An axis with its sizes.
pub(super) struct Axis {
    pub input: usize,
    pub output: usize,
    pub scale: f32,
    /// Start and end of the region that is cropped, as fractions of the axis.
    pub region: (f32, f32),
}

/// Which pixels an output pixel is made of.
#[derive(Clone, Copy, PartialEq)]
enum Filter {
    Nearest(Rounding),
    Linear,
    Cubic,
}

#[derive(Clone, Copy, PartialEq)]
enum Rounding {
    PreferFloor,
    PreferCeil,
    Floor,
    Ceil,
}

#[derive(Clone, Copy, PartialEq)]
enum Coordinates {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    TfCropAndResize,
}

/// The attributes of a Resize that say how an axis is interpolated.
pub(super) struct Method {
    filter: Filter,
    coordinates: Coordinates,
    antialias: bool,
    exclude_outside: bool,
    cubic: f64,
}

impl Method {
    /// Reads the attributes.
    ///
    /// # Errors
    /// One of them has the wrong type or a value that is not known.
    pub fn read(attributes: &Attributes) -> Result<Method, RuleError> {
        let unknown = |name: &str, value: &str| RuleError::Unsupported(format!("{name} \"{value}\" is not known"));
        let rounding = match attributes.text("nearest_mode", "round_prefer_floor")?.as_str() {
            "round_prefer_floor" => Rounding::PreferFloor,
            "round_prefer_ceil" => Rounding::PreferCeil,
            "floor" => Rounding::Floor,
            "ceil" => Rounding::Ceil,
            other => return Err(unknown("nearest_mode", other)),
        };
        let filter = match attributes.text("mode", "nearest")?.as_str() {
            "nearest" => Filter::Nearest(rounding),
            "linear" => Filter::Linear,
            "cubic" => Filter::Cubic,
            other => return Err(unknown("mode", other)),
        };
        let coordinates = match attributes.text("coordinate_transformation_mode", "half_pixel")?.as_str() {
            "half_pixel" => Coordinates::HalfPixel,
            "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
            "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
            "align_corners" => Coordinates::AlignCorners,
            "asymmetric" => Coordinates::Asymmetric,
            "tf_crop_and_resize" => Coordinates::TfCropAndResize,
            other => return Err(unknown("coordinate_transformation_mode", other)),
        };
        Ok(Method {
            filter,
            coordinates,
            antialias: attributes.int("antialias", 0)? != 0,
            exclude_outside: attributes.int("exclude_outside", 0)? != 0,
            cubic: f64::from(attributes.float("cubic_coeff_a", -0.75)?),
        })
    }

    /// Returns true where the region of interest is read.
    pub fn crops(&self) -> bool {
        self.coordinates == Coordinates::TfCropAndResize
    }

    /// Returns n where output pixel i is input pixel `i / n`, whatever the size of the axis.
    pub fn repeats(&self, scale: f32) -> Option<i64> {
        use Coordinates::{Asymmetric, HalfPixel, HalfPixelSymmetric};
        use Rounding::{Floor, PreferCeil, PreferFloor};
        let Filter::Nearest(rounding) = self.filter else { return None };
        let even = matches!(
            (self.coordinates, rounding),
            (HalfPixel | HalfPixelSymmetric, PreferFloor | PreferCeil) | (Asymmetric, Floor)
        );
        (even && scale.fract() == 0.0 && (1.0..1024.0).contains(&scale)).then_some(scale as i64)
    }

    /// Returns the matrix `[output, input]` in row-major order.
    ///
    /// # Errors
    /// It is larger than a gradient should carry.
    pub fn matrix(&self, axis: &Axis) -> Result<Vec<f64>, RuleError> {
        let Some(count) = axis.input.checked_mul(axis.output).filter(|count| *count <= LARGEST) else {
            let text = format!("resizing {} elements to {} takes too large a matrix", axis.input, axis.output);
            return Err(RuleError::Unsupported(text));
        };
        let mut matrix = vec![0.0; count];
        for (at, row) in matrix.chunks_exact_mut(axis.input).enumerate() {
            for (pixel, weight) in self.taps(axis, at) {
                let pixel = usize::try_from(pixel).unwrap_or(0).min(axis.input - 1);
                row[pixel] += weight;
            }
        }
        Ok(matrix)
    }

    /// Returns the input pixels of an output pixel with their weights; those outside of the axis
    /// are the nearest inside.
    fn taps(&self, axis: &Axis, at: usize) -> Vec<(i64, f64)> {
        let place = self.original(axis, at);
        let last = (axis.input - 1) as f32;
        if self.crops() && !(0.0..=last).contains(&place) {
            return Vec::new();
        }
        match self.filter {
            Filter::Nearest(rounding) => vec![(round(place, rounding), 1.0)],
            Filter::Linear | Filter::Cubic if self.antialias => self.smooth(axis, at, place),
            Filter::Linear => {
                let place = place.clamp(0.0, last);
                let low = place.floor();
                let part = f64::from(place - low);
                vec![(low as i64, 1.0 - part), (low as i64 + 1, part)]
            }
            Filter::Cubic => {
                let low = place.floor();
                let part = f64::from(place - low);
                let taps = (-1..3).map(|tap| (low as i64 + tap, self.kernel(tap as f64 - part)));
                self.normalized(axis, taps.collect(), self.exclude_outside)
            }
        }
    }

    /// Returns the taps of a filter that is as wide as what shrinking folds together.
    fn smooth(&self, axis: &Axis, at: usize, place: f32) -> Vec<(i64, f64)> {
        if axis.input == axis.output {
            return vec![(at as i64, 1.0)];
        }
        let stretch = (1.0 / axis.scale).max(1.0);
        let center = place + 0.5;
        let support = if self.filter == Filter::Linear { stretch } else { 2.0 * stretch };
        let first = (center - support + 0.5).floor() as i64;
        let end = (center + support + 0.5).floor() as i64;
        let taps = (first..end).map(|pixel| {
            let distance = f64::from((pixel as f32 - center + 0.5) / stretch);
            (pixel, self.kernel(distance))
        });
        self.normalized(axis, taps.collect(), true)
    }

    fn normalized(&self, axis: &Axis, mut taps: Vec<(i64, f64)>, divide: bool) -> Vec<(i64, f64)> {
        if self.exclude_outside {
            taps.retain(|(pixel, _)| (0..axis.input as i64).contains(pixel));
        }
        let total: f64 = taps.iter().map(|tap| tap.1).sum();
        if divide && total != 0.0 {
            taps.iter_mut().for_each(|tap| tap.1 /= total);
        }
        taps
    }

    /// Returns the weight of a pixel at a distance.
    fn kernel(&self, distance: f64) -> f64 {
        let (d, a) = (distance.abs(), self.cubic);
        match self.filter {
            Filter::Cubic if d < 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
            Filter::Cubic if d < 2.0 => (((d - 5.0) * d + 8.0) * d - 4.0) * a,
            Filter::Linear if d < 1.0 => 1.0 - d,
            _ => 0.0,
        }
    }

    /// Returns where an output pixel lies in the input.
    fn original(&self, axis: &Axis, at: usize) -> f32 {
        let (x, scale) = (at as f32, axis.scale);
        let (input, output) = (axis.input as f32, axis.output as f32);
        let (start, end) = axis.region;
        match self.coordinates {
            Coordinates::HalfPixel => (x + 0.5) / scale - 0.5,
            Coordinates::PytorchHalfPixel if output > 1.0 => (x + 0.5) / scale - 0.5,
            Coordinates::PytorchHalfPixel => 0.0,
            Coordinates::HalfPixelSymmetric => {
                let offset = input / 2.0 * (1.0 - output / (scale * input));
                (f64::from(offset) + (f64::from(x) + 0.5) / f64::from(scale) - 0.5) as f32
            }
            Coordinates::AlignCorners if output > 1.0 => x * (input - 1.0) / (output - 1.0),
            Coordinates::AlignCorners => 0.0,
            Coordinates::Asymmetric => x / scale,
            Coordinates::TfCropAndResize if output > 1.0 => {
                start * (input - 1.0) + (x * (end - start) * (input - 1.0)) / (output - 1.0)
            }
            Coordinates::TfCropAndResize => (0.5 * f64::from(start + end) * f64::from(input - 1.0)) as f32,
        }
    }
}

fn round(place: f32, rounding: Rounding) -> i64 {
    let pixel = match rounding {
        Rounding::Floor => place.floor(),
        Rounding::Ceil => place.ceil(),
        Rounding::PreferFloor if place == place.trunc() + 0.5 => place.floor(),
        Rounding::PreferFloor | Rounding::PreferCeil => place.round(),
    };
    pixel as i64
}
