//! JPEG and PNG files, by what is in them and not by their names.
//!
//! A picture is turned as its EXIF orientation says. Transparency is dropped, palettes are looked up, 16 bits become 8.

use super::{Picture, Pixels};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};
use std::io::Cursor;

/// Returns a picture with 1 or 3 channels.
///
/// # Errors
/// What is wrong with the bytes.
pub(in crate::data) fn decode(bytes: &[u8], channels: usize) -> Result<Picture, String> {
    if bytes.starts_with(&[0xff, 0xd8]) && !ends(bytes) {
        return Err("it ends before its picture does".into());
    }
    let mut decoder = decoder(bytes)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| error.to_string())?;
    image.apply_orientation(orientation);
    let grey = matches!(image, DynamicImage::ImageLuma8(_) | DynamicImage::ImageLumaA8(_))
        || matches!(image, DynamicImage::ImageLuma16(_) | DynamicImage::ImageLumaA16(_));
    let (height, width) = (image.height() as usize, image.width() as usize);
    let (found, pixels) = if grey { (1, image.into_luma8().into_raw()) } else { (3, image.into_rgb8().into_raw()) };
    Ok(Picture { height, width, channels: found, pixels: Pixels::Bytes(pixels) }.with_channels(channels))
}

/// Returns height and width as decoding gives them.
///
/// # Errors
/// What is wrong with the bytes.
pub(in crate::data) fn size_of(bytes: &[u8]) -> Result<(usize, usize), String> {
    let mut decoder = decoder(bytes)?;
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    let lies = matches!(
        decoder.orientation().unwrap_or(Orientation::NoTransforms),
        Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH
    );
    Ok(if lies { (width, height) } else { (height, width) })
}

fn decoder(bytes: &[u8]) -> Result<impl ImageDecoder, String> {
    let format = image::guess_format(bytes).ok();
    let format = format.filter(|format| matches!(format, ImageFormat::Jpeg | ImageFormat::Png));
    let format = format.ok_or_else(|| "expected JPEG or PNG".to_string())?;
    let reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.into_decoder().map_err(|error| error.to_string())
}

/// Returns true when a JPEG has an end after its last scan: a decoder fills what is missing with grey.
fn ends(bytes: &[u8]) -> bool {
    let last = |code: u8| bytes.windows(2).rposition(|marker| marker == [0xff, code]);
    last(0xd9).is_some_and(|end| last(0xda).is_some_and(|scan| scan < end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::image::testing::{bytes, expected, file};

    /// Compares a picture with one of the golden file: every byte is at most `most` away, and in the mean `mean`.
    fn compare(name: &str, found: &Picture, golden: &str, most: u8, mean: f64) {
        let (shape, values) = expected(golden);
        let own = [found.height, found.width, found.channels];
        assert_eq!(own[..shape.len()], shape, "{name}");
        let away: Vec<u8> = bytes(found).iter().zip(&values).map(|(a, b)| a.abs_diff(*b)).collect();
        let average = away.iter().map(|away| f64::from(*away)).sum::<f64>() / away.len() as f64;
        let worst = away.iter().copied().max().unwrap();
        assert!(worst <= most && average <= mean, "{name}: at most {worst}, mean {average}");
    }

    #[test]
    fn png_is_what_pillow_reads() {
        for name in ["colours", "grey", "palette", "alpha", "grey_alpha", "bits"] {
            let name = format!("{name}.png");
            compare(&name, &decode(&file(&name), 3).unwrap(), &format!("rgb.{name}"), 0, 0.0);
            compare(&name, &decode(&file(&name), 1).unwrap(), &format!("grey.{name}"), 0, 0.0);
        }
        compare("deep.png", &decode(&file("deep.png"), 1).unwrap(), "grey.deep.png", 0, 0.0);
    }

    /// Decoders differ where they interpolate colours that are stored at half the size.
    #[test]
    fn jpeg_is_close_to_what_pillow_reads() {
        for (name, most, mean) in [
            ("full.jpg", 2, 0.5),
            ("grey.jpg", 1, 0.5),
            ("photo.jpg", 3, 0.6),
            ("progressive.jpg", 4, 0.6),
            ("ink.jpg", 3, 1.0),
        ] {
            compare(name, &decode(&file(name), 3).unwrap(), &format!("rgb.{name}"), most, mean);
        }
        compare("photo.jpg", &decode(&file("photo.jpg"), 1).unwrap(), "grey.photo.jpg", 3, 0.6);
    }

    #[test]
    fn pictures_are_turned_as_they_say() {
        let data = file("exif.jpg");
        // The entry of the orientation: tag 0x0112, type 3, count 1, value 6.
        let entry = [0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 6];
        let at = data.windows(entry.len()).position(|part| part == entry).unwrap();
        for orientation in 1..=8 {
            let mut turned = data.clone();
            turned[at + entry.len() - 1] = orientation;
            let picture = decode(&turned, 3).unwrap();
            compare("exif.jpg", &picture, &format!("exif.{orientation}"), 2, 0.5);
            assert_eq!(size_of(&turned).unwrap(), (picture.height, picture.width), "{orientation}");
        }
    }

    #[test]
    fn what_is_no_picture_or_half_a_picture_is_refused() {
        for name in ["photo.jpg", "progressive.jpg", "exif.jpg", "colours.png"] {
            let data = file(name);
            for part in [10, data.len() / 2, data.len() * 9 / 10] {
                assert!(decode(&data[..part], 3).is_err(), "{part} bytes of {name}");
            }
        }
        assert_eq!(decode(b"GIF89a", 3).unwrap_err(), "expected JPEG or PNG");
        assert_eq!(decode(b"", 3).unwrap_err(), "expected JPEG or PNG");
    }
}
