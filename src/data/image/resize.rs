//! Resizing as Pillow does, which is what torchvision does with `antialias`.
//!
//! Bytes are at most 1 apart from Pillow's, but where a cubic or a sinc overshoots: Pillow cuts off between rows and
//! columns, in the other order.

use super::{Interpolation, Picture, Pixels};
use fast_image_resize::images::{Image, ImageRef, TypedImage, TypedImageRef};
use fast_image_resize::pixels::F32;
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

/// Returns a picture of another size.
///
/// # Errors
/// A size is none that a picture can have.
pub(in crate::data) fn resized(
    picture: Picture,
    (height, width): (usize, usize),
    interpolation: Interpolation,
) -> Result<Picture, String> {
    let channels = picture.channels;
    if (picture.height, picture.width) == (height, width) {
        return Ok(picture);
    }
    let options = ResizeOptions::new().use_alpha(false).resize_alg(match interpolation {
        Interpolation::Nearest => ResizeAlg::Nearest,
        Interpolation::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
        Interpolation::Bicubic => ResizeAlg::Convolution(FilterType::CatmullRom),
        Interpolation::Lanczos => ResizeAlg::Convolution(FilterType::Lanczos3),
    });
    let side = |side: usize| u32::try_from(side).map_err(|error| format!("a side of {side}: {error}"));
    let work = Work { from: (side(picture.height)?, side(picture.width)?), to: (side(height)?, side(width)?), options };
    let pixels = match picture.pixels {
        Pixels::Bytes(values) if channels == 3 => Pixels::Bytes(work.bytes(&values, PixelType::U8x3)?),
        Pixels::Bytes(values) => {
            Pixels::Bytes(by_channel(&values, channels, |plane| work.bytes(plane, PixelType::U8))?)
        }
        Pixels::Floats(values) => Pixels::Floats(by_channel(&values, channels, |plane| work.floats(plane))?),
    };
    Ok(Picture { height, width, channels, pixels })
}

struct Work {
    from: (u32, u32),
    to: (u32, u32),
    options: ResizeOptions,
}

impl Work {
    fn bytes(&self, values: &[u8], of: PixelType) -> Result<Vec<u8>, String> {
        let source = ImageRef::new(self.from.1, self.from.0, values, of).map_err(|error| error.to_string())?;
        let mut out = Image::new(self.to.1, self.to.0, of);
        Resizer::new().resize(&source, &mut out, &self.options).map_err(|error| error.to_string())?;
        Ok(out.into_vec())
    }

    fn floats(&self, values: &[f32]) -> Result<Vec<f32>, String> {
        let pixels: Vec<F32> = values.iter().map(|value| F32::new(*value)).collect();
        let source = TypedImageRef::new(self.from.1, self.from.0, &pixels).map_err(|error| error.to_string())?;
        let mut out = TypedImage::<F32>::new(self.to.1, self.to.0);
        Resizer::new().resize_typed(&source, &mut out, &self.options).map_err(|error| error.to_string())?;
        Ok(out.pixels().iter().map(|pixel| pixel.0).collect())
    }
}

/// Applies a function to each channel.
fn by_channel<T: Copy + Default>(
    values: &[T],
    channels: usize,
    each: impl Fn(&[T]) -> Result<Vec<T>, String>,
) -> Result<Vec<T>, String> {
    if channels == 1 {
        return each(values);
    }
    let mut out = Vec::new();
    for channel in 0..channels {
        let plane: Vec<T> = values.iter().skip(channel).step_by(channels).copied().collect();
        let plane = each(&plane)?;
        out.resize(plane.len() * channels, T::default());
        out.iter_mut().skip(channel).step_by(channels).zip(plane).for_each(|(into, value)| *into = value);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::image::decode;
    use crate::data::image::testing::{bytes, expected, file};

    /// Sums are rounded in fixed point, by one way here and by another in Pillow: bytes may be 1 apart.
    #[test]
    fn sizes_are_torchvisions() {
        for (filter, name, of) in [
            (Interpolation::Nearest, "nearest", "colours.png"),
            (Interpolation::Bilinear, "bilinear", "colours.png"),
            (Interpolation::Bicubic, "bicubic", "smooth.png"),
            (Interpolation::Lanczos, "lanczos", "smooth.png"),
        ] {
            let picture = decode(&file(of), 3).unwrap();
            for size in [(4, 5), (12, 19), (9, 6)] {
                let (shape, values) = expected(&format!("resize.{name}.{}x{}", size.0, size.1));
                let found = resized(picture.clone(), size, filter).unwrap();
                assert_eq!([found.height, found.width, found.channels], shape[..]);
                let worst = bytes(&found).iter().zip(&values).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
                assert!(worst <= u8::from(name != "nearest"), "{name} {size:?}: {worst}");
            }
        }
    }

    #[test]
    fn numbers_and_single_channels_are_resized_as_bytes_are() {
        let colours = decode(&file("colours.png"), 3).unwrap();
        let all = resized(colours.clone(), (4, 5), Interpolation::Bilinear).unwrap();
        let values = bytes(&colours).iter().map(|value| f32::from(*value)).collect();
        let floats = Picture { pixels: Pixels::Floats(values), ..colours.clone() };
        let floats = resized(floats, (4, 5), Interpolation::Bilinear).unwrap();
        let Pixels::Floats(floats) = floats.pixels else { panic!("no numbers") };
        let worst = floats.iter().zip(bytes(&all)).map(|(a, b)| (a - f32::from(*b)).abs()).fold(0.0, f32::max);
        assert!(worst <= 1.0, "{worst}");
        let two: Vec<u8> = bytes(&colours).chunks_exact(3).flat_map(|rgb| [rgb[0], rgb[2]]).collect();
        let two = Picture { channels: 2, pixels: Pixels::Bytes(two), ..colours };
        let two = resized(two, (4, 5), Interpolation::Bilinear).unwrap();
        let expected: Vec<u8> = bytes(&all).chunks_exact(3).flat_map(|rgb| [rgb[0], rgb[2]]).collect();
        assert_eq!(bytes(&two), expected);
    }
}
