//! A column of arrays as pictures.

use super::{Picture, PixelType, Pixels, Transform};
use crate::data::{Column, DataError, DataOptions, Dataset, Draw, Sample, Source};
use crate::graph::{DType, Tensor};
use std::path::Path;
use std::sync::Arc;

/// A source one of whose columns goes through a transform.
#[derive(Debug)]
pub(in crate::data) struct Pictured {
    inner: Arc<dyn Source>,
    columns: Vec<Column>,
    position: usize,
    transform: Transform,
}

/// Returns a dataset with the column that the options name, or else the only one whose rows have three dimensions, as
/// pictures; the dataset itself where there is nothing to do.
///
/// # Errors
/// There is no such column, or the options do not fit it.
pub(in crate::data) fn image_column(dataset: Dataset, options: &DataOptions) -> Result<Dataset, DataError> {
    let augment = options.augment.clone().unwrap_or_default();
    if options.image.is_none() && !augment.is_of_rows() {
        return Ok(dataset);
    }
    let named = options.image.as_ref().and_then(|image| image.column.as_deref()).or(augment.column.as_deref());
    let position = match named {
        Some(name) => dataset.position(name)?,
        None => {
            let fitting = |column: &Column| column.shape.len() == 3;
            let mut found = dataset.columns().iter().enumerate().filter(|(_, column)| fitting(column));
            match (found.next(), found.next()) {
                (Some((position, _)), None) => position,
                (first, _) => {
                    let found = if first.is_some() { "several are" } else { "none is" };
                    let reason = format!("which column is of pictures? Of rows of three dimensions {found}");
                    return Err(DataError::Setting { key: "data.image.column", reason });
                }
            }
        }
    };
    Ok(Dataset::of(Pictured::new(dataset.source().clone(), position, options)?))
}

impl Pictured {
    /// Returns a source whose column at `position` is of pictures.
    ///
    /// # Errors
    /// The column or the options do not fit each other.
    pub fn new(inner: Arc<dyn Source>, position: usize, options: &DataOptions) -> Result<Pictured, DataError> {
        let mut columns = inner.columns().to_vec();
        let column = &mut columns[position];
        let fail = |column: &Column, reason: String| DataError::Column {
            path: inner.path().to_path_buf(),
            column: column.name.clone(),
            reason,
        };
        let image = options.image.clone().unwrap_or_default();
        if !matches!(column.dtype, DType::U8 | DType::F32) {
            return Err(fail(column, format!("holds {}, expected uint8 or float32 for pictures", column.dtype)));
        }
        if column.dtype == DType::F32 && image.dtype == PixelType::Uint8 {
            let reason = format!("\"uint8\" needs bytes, and column \"{}\" holds float32", column.name);
            return Err(DataError::Setting { key: "data.image.dtype", reason });
        }
        let Some((channels, height, width)) = size(&column.shape) else {
            let reason = format!("has rows of shape {:?}, expected [channels, height, width]", column.shape);
            return Err(fail(column, reason));
        };
        let transform = Transform::new(&image, &options.augment.clone().unwrap_or_default(), channels, (height, width))
            .map_err(|(key, reason)| DataError::Setting { key, reason })?;
        (column.dtype, column.shape) = transform.row();
        Ok(Pictured { inner, columns, position, transform })
    }

    fn transformed(&self, tensor: &Tensor, samples: &[Sample], draw: Draw) -> Result<Tensor, DataError> {
        let column = &self.inner.columns()[self.position];
        let (channels, height, width) = size(&column.shape).expect("invariant: checked when it was made");
        let bytes = channels * height * width * column.dtype.size();
        let mut out = self.transform.empty(samples.len());
        for (row, sample) in tensor.bytes().chunks_exact(bytes.max(1)).zip(samples) {
            let pixels = match column.dtype {
                DType::U8 => Pixels::Bytes(together(row, channels)),
                _ => {
                    let number = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("four bytes"));
                    let values: Vec<f32> = row.chunks_exact(4).map(number).collect();
                    Pixels::Floats(together(&values, channels))
                }
            };
            let picture = Picture { height, width, channels, pixels };
            self.transform.apply(picture, *sample, draw, &mut out).map_err(|reason| DataError::Row {
                path: self.inner.path().to_path_buf(),
                row: sample.row,
                reason: format!("does not fit: {reason}"),
            })?;
        }
        Ok(tensor_of(&self.transform, samples.len(), out))
    }
}

/// Returns rows as a tensor.
pub(in crate::data) fn tensor_of(transform: &Transform, rows: usize, pixels: Pixels) -> Tensor {
    let shape = [&[rows], transform.row().1.as_slice()].concat();
    match pixels {
        Pixels::Bytes(values) => Tensor::from_vec(&shape, values),
        Pixels::Floats(values) => Tensor::from_vec(&shape, values),
    }
}

/// Returns channels, height and width of rows.
fn size(shape: &[usize]) -> Option<(usize, usize, usize)> {
    let (channels, height, width) = match shape {
        [height, width] => (1, *height, *width),
        [channels, height, width] => (*channels, *height, *width),
        _ => return None,
    };
    (channels > 0 && height > 0 && width > 0).then_some((channels, height, width))
}

/// Returns the channels of a pixel together.
fn together<T: Copy>(planes: &[T], channels: usize) -> Vec<T> {
    let plane = planes.len() / channels;
    if channels == 1 {
        return planes.to_vec();
    }
    (0..plane).flat_map(|place| (0..channels).map(move |channel| planes[channel * plane + place])).collect()
}

impl Source for Pictured {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn rows(&self) -> usize {
        self.inner.rows()
    }

    fn columns(&self) -> &[Column] {
        &self.columns
    }

    fn read(&self, columns: &[usize], samples: &[Sample], draw: Draw) -> Result<Vec<Tensor>, DataError> {
        let mut read = self.inner.read(columns, samples, draw)?;
        for (column, tensor) in columns.iter().zip(&mut read) {
            if *column == self.position {
                *tensor = self.transformed(tensor, samples, draw)?;
            }
        }
        Ok(read)
    }

    fn is_random(&self, column: usize) -> bool {
        if column == self.position { self.transform.is_random() } else { self.inner.is_random(column) }
    }

    fn whole(&self, column: usize) -> Option<&Tensor> {
        if column == self.position { None } else { self.inner.whole(column) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{
        AugmentOptions, BatchOptions, Batches, Erasing, Extent, Feed, ImageOptions, LastBatch, Loader, Loading,
        RandomCrop, RandomResizedCrop, Sampler,
    };
    use std::collections::HashMap;

    const ROWS: usize = 12;

    fn dataset() -> Dataset {
        let pixels = (0..ROWS * 3 * 6 * 7).map(|place| (place * 37 % 251) as u8).collect();
        let images = Tensor::from_vec(&[ROWS, 3, 6, 7], pixels);
        let numbers = Tensor::ints(&(0..ROWS as i64).collect::<Vec<_>>());
        Dataset::new(Path::new("a.npz"), vec![("images".into(), images), ("row".into(), numbers)]).unwrap()
    }

    fn all() -> AugmentOptions {
        AugmentOptions {
            random_crop: Some(RandomCrop { padding: 2 }),
            horizontal_flip: 0.5,
            vertical_flip: 0.5,
            brightness: 0.4,
            contrast: 0.4,
            saturation: 0.4,
            erasing: Some(Erasing::default()),
            ..AugmentOptions::default()
        }
    }

    fn open(image: Option<ImageOptions>, augment: Option<AugmentOptions>) -> Result<Dataset, DataError> {
        image_column(dataset(), &DataOptions { image, augment, ..DataOptions::default() })
    }

    /// Returns the pixels of each row in an epoch, read in batches.
    fn rows(dataset: &Dataset, size: usize, sampler: Sampler, workers: usize, epoch: u64) -> HashMap<i64, Vec<f32>> {
        let feed = |column: usize, dtype| Feed {
            input: dataset.columns()[column].name.clone(),
            source: dataset.source().clone(),
            column,
            dtype,
            pad: None,
            classes: None,
        };
        let options = BatchOptions { size, seed: 3, sampler, last_batch: LastBatch::Keep };
        let batches = Batches::new(vec![feed(0, DType::F32), feed(1, DType::I64)], options).unwrap();
        let loader = Loader::new(&batches, Loading { workers, prefetch: 3 });
        let mut found = HashMap::new();
        for index in 0..batches.len() {
            let batch = loader.take(epoch, index).0.unwrap();
            let values = batch[0].1.to_vec::<f32>().unwrap();
            let numbers = batch[1].1.to_ints().unwrap();
            let size = values.len() / numbers.len();
            found.extend(numbers.into_iter().zip(values.chunks_exact(size).map(<[f32]>::to_vec)));
        }
        assert_eq!(found.len(), ROWS);
        found
    }

    #[test]
    fn a_row_is_the_same_in_any_batch_and_another_in_the_next_epoch() {
        let resized =
            AugmentOptions { random_crop: None, random_resized_crop: Some(RandomResizedCrop::default()), ..all() };
        for augment in [all(), resized] {
            let dataset = open(None, Some(augment)).unwrap();
            let first = rows(&dataset, 1, Sampler::Sequential, 0, 2);
            for (size, sampler, workers) in
                [(5, Sampler::Shuffle, 0), (4, Sampler::Shuffle, 3), (12, Sampler::Sequential, 1)]
            {
                assert_eq!(rows(&dataset, size, sampler, workers, 2), first, "{size}, {workers} workers");
            }
            let next = rows(&dataset, 5, Sampler::Shuffle, 0, 3);
            assert!((0..ROWS as i64).all(|row| next[&row] != first[&row]));
            let plain = rows(&open(Some(ImageOptions::default()), None).unwrap(), 5, Sampler::Shuffle, 0, 1);
            assert_eq!(rows(&dataset, 5, Sampler::Sequential, 2, 0), plain, "nothing is random in evaluation");
        }
    }

    /// One kind more leaves the choices of the others as they are.
    #[test]
    fn kinds_are_drawn_apart() {
        let flips = AugmentOptions { horizontal_flip: 0.5, ..AugmentOptions::default() };
        let both =
            AugmentOptions { erasing: Some(Erasing { probability: 0.0, ..Erasing::default() }), ..flips.clone() };
        let [flips, both] =
            [flips, both].map(|augment| rows(&open(None, Some(augment)).unwrap(), 4, Sampler::Shuffle, 0, 1));
        assert_eq!(flips, both);
        let plain = rows(&open(Some(ImageOptions::default()), None).unwrap(), 4, Sampler::Shuffle, 0, 1);
        let turned = flips.iter().filter(|(row, pixels)| plain[row] != **pixels).count();
        assert!((1..ROWS).contains(&turned), "{turned}");
    }

    #[test]
    fn bytes_become_fractions_less_the_mean() {
        let image = ImageOptions { mean: Some(vec![0.5]), std: Some(vec![0.25]), ..ImageOptions::default() };
        let pictured = open(Some(image), None).unwrap();
        assert_eq!((pictured.columns()[0].dtype, pictured.columns()[0].shape.as_slice()), (DType::F32, &[3, 6, 7][..]));
        let found = pictured.values("images").unwrap().to_vec::<f32>().unwrap();
        let bytes = dataset().values("images").unwrap().to_vec::<u8>().unwrap();
        assert!(found.iter().zip(&bytes).all(|(found, byte)| *found == (f32::from(*byte) / 255.0 - 0.5) / 0.25));
        let raw = ImageOptions { dtype: PixelType::Uint8, ..ImageOptions::default() };
        assert_eq!(open(Some(raw), None).unwrap().values("images").unwrap().to_vec::<u8>().unwrap(), bytes);
        let same = open(None, None).unwrap();
        assert_eq!(same.columns()[0].dtype, DType::U8, "without options nothing is done");
    }

    #[test]
    fn numbers_stay_as_they_are_and_grey_gets_a_channel() {
        let values: Vec<f32> = (0..24).map(|value| value as f32 - 5.0).collect();
        let columns = vec![("x".to_string(), Tensor::from_vec(&[2, 3, 4], values.clone()))];
        let dataset = Dataset::new(Path::new("a.npz"), columns).unwrap();
        let image = ImageOptions { column: Some("x".into()), ..ImageOptions::default() };
        let options = DataOptions { image: Some(image), ..DataOptions::default() };
        let pictured = image_column(dataset.clone(), &options).unwrap();
        assert_eq!(pictured.columns()[0].shape, [1, 3, 4]);
        assert_eq!(pictured.values("x").unwrap().to_vec::<f32>().unwrap(), values);
        let wide = ImageOptions { channels: Some(3), crop: Some(Extent::Side(2)), ..options.image.unwrap() };
        let pictured = image_column(dataset, &DataOptions { image: Some(wide), ..DataOptions::default() }).unwrap();
        let found = pictured.values("x").unwrap();
        assert_eq!(found.shape(), [2, 3, 2, 2]);
        // The upper edge is at round(0.5) = 0, to even.
        assert_eq!(found.to_vec::<f32>().unwrap()[..8], [-4.0, -3.0, 0.0, 1.0, -4.0, -3.0, 0.0, 1.0]);
    }

    #[test]
    fn the_column_is_the_only_one_of_pictures() {
        let error = |columns: Vec<(&str, Tensor)>, image: ImageOptions| {
            let columns = columns.into_iter().map(|(name, tensor)| (name.to_string(), tensor)).collect();
            let dataset = Dataset::new(Path::new("a.npz"), columns).unwrap();
            image_column(dataset, &DataOptions { image: Some(image), ..DataOptions::default() })
                .unwrap_err()
                .to_string()
        };
        let picture = || Tensor::zeros(DType::U8, &[2, 3, 4, 4]);
        assert_eq!(
            error(vec![("a", picture()), ("b", picture())], ImageOptions::default()),
            "data.image.column: which column is of pictures? Of rows of three dimensions several are"
        );
        let flat = Tensor::zeros(DType::F32, &[2, 9]);
        assert_eq!(
            error(vec![("a", flat.clone())], ImageOptions::default()),
            "data.image.column: which column is of pictures? Of rows of three dimensions none is"
        );
        let named = |name: &str| ImageOptions { column: Some(name.into()), ..ImageOptions::default() };
        assert_eq!(
            error(vec![("a", flat)], named("a")),
            "a.npz: column \"a\" has rows of shape [9], expected [channels, height, width]"
        );
        assert_eq!(
            error(vec![("a", Tensor::zeros(DType::I64, &[2, 3, 4, 4]))], ImageOptions::default()),
            "a.npz: column \"a\" holds int64, expected uint8 or float32 for pictures"
        );
        assert!(error(vec![("abc", picture())], named("abd")).contains("did you mean \"abc\""));
    }
}
