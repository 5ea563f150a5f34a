//! From a picture to a row.

use super::picture::Area;
use super::{Extent, ImageOptions, Layout, Picture, PixelType, Pixels, resized};
use crate::data::augment::{AugmentOptions, adjust, erase};
use crate::data::order::Random;
use crate::data::{Draw, Sample};
use crate::graph::DType;

/// What is done with every picture of a column.
#[derive(Clone, Debug)]
pub(in crate::data) struct Transform {
    options: ImageOptions,
    augment: AugmentOptions,
    channels: usize,
    height: usize,
    width: usize,
    /// The fraction of a byte, for each channel less its mean, over its standard deviation.
    fractions: Vec<[f32; 256]>,
    /// The same of numbers: mean and standard deviation, where there are any.
    moments: Option<Vec<(f32, f32)>>,
}

impl Transform {
    /// Returns the transform of pictures of which the first has `found` channels and `size`, height and width.
    ///
    /// # Errors
    /// The key and the reason of an option that does not fit them.
    pub fn new(
        options: &ImageOptions,
        augment: &AugmentOptions,
        found: usize,
        size: (usize, usize),
    ) -> Result<Transform, (&'static str, String)> {
        let channels = options.channels.unwrap_or(found);
        if channels != found && !matches!((found, channels), (1, 3) | (3, 1)) {
            return Err(("data.image.channels", format!("expected {found} as the pictures have, found {channels}")));
        }
        let (mean, std) = options.moments();
        for (key, numbers) in [("data.image.mean", &mean), ("data.image.std", &std)] {
            if numbers.len() != 1 && numbers.len() != channels {
                return Err((key, format!("expected 1 or {channels} numbers, found {}", numbers.len())));
            }
        }
        if augment.changes_colours() && !matches!(channels, 1 | 3) {
            return Err(("data.augment", format!("colours are changed of 1 or 3 channels, found {channels}")));
        }
        let of = |numbers: &[f64], channel: usize| numbers[channel % numbers.len()] as f32;
        let moments: Vec<(f32, f32)> = (0..channels).map(|channel| (of(&mean, channel), of(&std, channel))).collect();
        let plain = moments.iter().all(|moments| *moments == (0.0, 1.0));
        let jittered = augment.changes_colours();
        let fraction = |byte: usize, (mean, std): (f32, f32)| {
            let fraction = byte as f32 / 255.0;
            if plain || jittered { fraction } else { (fraction - mean) / std }
        };
        let fractions = moments.iter().map(|moments| std::array::from_fn(|byte| fraction(byte, *moments))).collect();
        let (height, width) = match (options.crop, options.resize) {
            (Some(Extent::Side(side)), _) => (side, side),
            (Some(Extent::Exact(height, width)), _) => (height, width),
            (None, Some(extent)) => scaled(extent, size),
            (None, None) => size,
        };
        let moments = (!plain).then_some(moments);
        Ok(Transform {
            options: options.clone(),
            augment: augment.clone(),
            channels,
            height,
            width,
            fractions,
            moments,
        })
    }

    /// Returns true where the row of a picture may differ from epoch to epoch.
    pub fn is_random(&self) -> bool {
        self.augment.is_of_rows()
    }

    /// Returns dtype and shape of a row.
    pub fn row(&self) -> (DType, Vec<usize>) {
        let dtype = match self.options.dtype {
            PixelType::Float32 => DType::F32,
            PixelType::Uint8 => DType::U8,
        };
        let shape = match self.options.layout {
            Layout::Nchw => vec![self.channels, self.height, self.width],
            Layout::Nhwc => vec![self.height, self.width, self.channels],
        };
        (dtype, shape)
    }

    /// Returns an empty collection of rows.
    pub fn empty(&self, rows: usize) -> Pixels {
        let count = rows * self.height * self.width * self.channels;
        match self.options.dtype {
            PixelType::Float32 => Pixels::Floats(Vec::with_capacity(count)),
            PixelType::Uint8 => Pixels::Bytes(Vec::with_capacity(count)),
        }
    }

    /// Appends the row of a picture.
    ///
    /// # Errors
    /// Its size is wrong: a reason that follows the name of the picture.
    pub fn apply(&self, picture: Picture, sample: Sample, draw: Draw, out: &mut Pixels) -> Result<(), String> {
        let numbers = |purpose: &str| draw.numbers(sample, purpose).map(Random);
        let mut picture = self.placed(picture.with_channels(self.channels), numbers("crop"))?;
        if let Some(mut random) = numbers("flip") {
            let [horizontal, vertical] = [random.fraction(), random.fraction()];
            if horizontal < self.augment.horizontal_flip {
                picture = picture.mirrored();
            }
            if vertical < self.augment.vertical_flip {
                picture = picture.upside_down();
            }
        }
        let raw = self.options.dtype == PixelType::Uint8 && !self.augment.changes_values();
        if let (true, Pixels::Bytes(values), Pixels::Bytes(out)) = (raw, &picture.pixels, &mut *out) {
            self.lay_out(&planes(values, self.channels), out);
            return Ok(());
        }
        let mut values = self.fractions(&picture);
        let (height, width) = (picture.height, picture.width);
        if let Some(mut random) = numbers("colour") {
            let bounded = matches!(picture.pixels, Pixels::Bytes(_));
            adjust(&self.augment, &mut values, self.channels, bounded, &mut random);
        }
        let numbers_of_bytes = matches!(picture.pixels, Pixels::Bytes(_)) && !self.augment.changes_colours();
        if let Some(moments) = self.moments.as_ref().filter(|_| !numbers_of_bytes) {
            for (plane, (mean, std)) in values.chunks_exact_mut(height * width).zip(moments) {
                plane.iter_mut().for_each(|value| *value = (*value - mean) / std);
            }
        }
        if let (Some(erasing), Some(mut random)) = (&self.augment.erasing, numbers("erase")) {
            erase(erasing, &mut values, (height, width), &mut random);
        }
        match out {
            Pixels::Floats(out) => self.lay_out(&values, out),
            Pixels::Bytes(out) => {
                let bytes: Vec<u8> = values.iter().map(|value| (value * 255.0).round() as u8).collect();
                self.lay_out(&bytes, out);
            }
        }
        Ok(())
    }

    /// Returns a picture of the size of a row.
    fn placed(&self, picture: Picture, random: Option<Random>) -> Result<Picture, String> {
        let (height, width) = (self.height, self.width);
        if let (Some(crop), Some(mut random)) = (&self.augment.random_resized_crop, random.clone()) {
            let area = crop.area((picture.height, picture.width), &mut random);
            return resized(picture.cropped(area), (height, width), self.options.interpolation);
        }
        let size = (picture.height, picture.width);
        let picture = match self.options.resize {
            Some(extent) => resized(picture, scaled(extent, size), self.options.interpolation)?,
            None => picture,
        };
        let (found_height, found_width) = (picture.height, picture.width);
        let wrong = |what: &str, (height, width): (usize, usize)| {
            Err(format!(
                "expected {what}{height} x {width} pixels (height x width), found {found_height} x {found_width}"
            ))
        };
        if let (Some(crop), Some(mut random)) = (&self.augment.random_crop, random) {
            let Some(area) = crop.area((found_height, found_width), (height, width), &mut random) else {
                let least = |size: usize| size.saturating_sub(2 * crop.padding);
                return wrong("at least ", (least(height), least(width)));
            };
            return Ok(picture.cropped(area));
        }
        if self.options.crop.is_none() && (found_height, found_width) != (height, width) {
            return wrong("", (height, width));
        }
        let middle = |size: usize, part: usize| match size.checked_sub(part) {
            Some(rest) => (rest as f64 / 2.0).round_ties_even() as isize,
            None => -((part - size) / 2).cast_signed(),
        };
        let area = Area { top: middle(found_height, height), left: middle(found_width, width), height, width };
        Ok(picture.cropped(area))
    }

    /// Returns the numbers of a picture, channel after channel.
    fn fractions(&self, picture: &Picture) -> Vec<f32> {
        let channels = self.channels;
        match &picture.pixels {
            Pixels::Floats(values) => planes(values, channels),
            Pixels::Bytes(values) => {
                let mut out = Vec::with_capacity(values.len());
                for (channel, table) in self.fractions.iter().enumerate() {
                    out.extend(values.iter().skip(channel).step_by(channels).map(|byte| table[usize::from(*byte)]));
                }
                out
            }
        }
    }

    /// Appends the numbers of a row, which come channel after channel.
    fn lay_out<T: Copy>(&self, values: &[T], out: &mut Vec<T>) {
        match self.options.layout {
            Layout::Nchw => out.extend_from_slice(values),
            Layout::Nhwc => {
                let plane = self.height * self.width;
                out.extend(
                    (0..plane)
                        .flat_map(|place| (0..self.channels).map(move |channel| (place, channel)))
                        .map(|(place, channel)| values[channel * plane + place]),
                );
            }
        }
    }
}

/// Returns height and width after resizing: the longer side is cut to whole pixels.
fn scaled(extent: Extent, (height, width): (usize, usize)) -> (usize, usize) {
    let long = |side: usize, short: usize, long: usize| {
        let scaled = side as u128 * long as u128 / (short as u128).max(1);
        usize::try_from(scaled).unwrap_or(usize::MAX)
    };
    match extent {
        Extent::Exact(height, width) => (height, width),
        Extent::Side(side) if width <= height => (long(side, width, height), side),
        Extent::Side(side) => (side, long(side, height, width)),
    }
}

/// Returns the values channel after channel.
fn planes<T: Copy>(values: &[T], channels: usize) -> Vec<T> {
    (0..channels).flat_map(|channel| values.iter().skip(channel).step_by(channels).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::image::decode;
    use crate::data::image::testing::{expected, file, golden};

    fn row(options: &ImageOptions) -> Result<Pixels, String> {
        let picture = decode(&file("colours.png"), 3).unwrap();
        let size = (picture.height, picture.width);
        let transform = Transform::new(options, &AugmentOptions::default(), 3, size).unwrap();
        let mut out = transform.empty(1);
        transform.apply(picture, Sample::of(0), Draw::Fixed, &mut out)?;
        let count: usize = transform.row().1.iter().product();
        match &out {
            Pixels::Bytes(values) => assert_eq!(values.len(), count),
            Pixels::Floats(values) => assert_eq!(values.len(), count),
        }
        Ok(out)
    }

    fn bytes(options: ImageOptions) -> Vec<u8> {
        let options = ImageOptions { dtype: PixelType::Uint8, layout: Layout::Nhwc, ..options };
        match row(&options).unwrap() {
            Pixels::Bytes(values) => values,
            Pixels::Floats(_) => panic!("no bytes"),
        }
    }

    #[test]
    fn sizes_and_middles_are_torchvisions() {
        for side in [4, 10] {
            let (_, values) = expected(&format!("short.{side}"));
            let found = bytes(ImageOptions { resize: Some(Extent::Side(side)), ..ImageOptions::default() });
            assert_eq!(found.len(), values.len());
            assert!(found.iter().zip(&values).all(|(a, b)| a.abs_diff(*b) <= 1), "{side}");
        }
        for (height, width) in [(6, 5), (4, 4), (12, 14), (12, 5)] {
            let (_, values) = expected(&format!("crop.{height}x{width}"));
            let crop = Some(Extent::Exact(height, width));
            assert_eq!(bytes(ImageOptions { crop, ..ImageOptions::default() }), values, "{height} x {width}");
        }
    }

    #[test]
    fn numbers_are_torchvisions() {
        let options = ImageOptions {
            resize: Some(Extent::Side(6)),
            crop: Some(Extent::Side(5)),
            normalise: Some(crate::data::image::options::Normalise::Imagenet),
            ..ImageOptions::default()
        };
        let Pixels::Floats(found) = row(&options).unwrap() else { panic!("no numbers") };
        let expected = golden("tensor").to_vec::<f32>().unwrap();
        // A byte that is 1 off is 1 / (255 * 0.224) off here.
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= 0.018, "{worst}");
        let exact = found.iter().zip(&expected).filter(|(a, b)| (**a - **b).abs() < 1e-6).count();
        assert!(exact * 4 > found.len() * 3, "{exact} of {}", found.len());
        let Pixels::Floats(last) = row(&ImageOptions { layout: Layout::Nhwc, ..options }).unwrap() else {
            panic!("no numbers")
        };
        assert_eq!(last[..3], [found[0], found[25], found[50]]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let transform = |options: &ImageOptions, found| {
            Transform::new(options, &AugmentOptions::default(), found, (4, 6))
                .map_err(|(key, reason)| format!("{key}: {reason}"))
        };
        let two = ImageOptions { mean: Some(vec![0.1, 0.2, 0.3]), ..ImageOptions::default() };
        assert_eq!(transform(&two, 2).unwrap_err(), "data.image.mean: expected 1 or 2 numbers, found 3");
        let three = ImageOptions { channels: Some(3), ..ImageOptions::default() };
        assert_eq!(transform(&three, 2).unwrap_err(), "data.image.channels: expected 2 as the pictures have, found 3");
        let plain = transform(&ImageOptions::default(), 1).unwrap();
        let picture =
            |height, width| Picture { height, width, channels: 1, pixels: Pixels::Bytes(vec![0; height * width]) };
        let error = plain.apply(picture(6, 4), Sample::of(0), Draw::Fixed, &mut plain.empty(1)).unwrap_err();
        assert_eq!(error, "expected 4 x 6 pixels (height x width), found 6 x 4");
        let crop = crate::data::RandomCrop { padding: 1 };
        let augment = AugmentOptions { random_crop: Some(crop), ..AugmentOptions::default() };
        let options = ImageOptions { crop: Some(Extent::Side(8)), ..ImageOptions::default() };
        let random = Transform::new(&options, &augment, 1, (8, 8)).unwrap();
        let draw = Draw::Random { seed: 0, epoch: 1 };
        let error = random.apply(picture(8, 5), Sample::of(0), draw, &mut random.empty(1)).unwrap_err();
        assert_eq!(error, "expected at least 6 x 6 pixels (height x width), found 8 x 5");
    }
}
