//! Batches of rows in an order that sampler, seed and epoch alone decide.

use super::check::Feed;
use super::order::Sampler;
use super::source::{Draw, Sample};
use super::{DataError, Mix};
use crate::graph::{DType, Tensor};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

/// A batch: the names of what reads it, each with its rows.
pub type Batch = Vec<(String, Tensor)>;

/// What an input of a batch is, without its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Its name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Sizes.
    pub sizes: Vec<usize>,
}

impl Shape {
    /// Returns its bytes.
    pub fn bytes(&self) -> u64 {
        self.sizes.iter().fold(self.dtype.size() as u64, |bytes, size| bytes.saturating_mul(*size as u64))
    }
}

/// What becomes of rows that do not fill a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum LastBatch {
    /// They are a smaller batch.
    #[default]
    Keep,
    /// They are left out of this epoch.
    Drop,
    /// They are filled up to a batch by repeats of the last row that do not count.
    Pad,
}

/// How rows become batches.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchOptions {
    /// Rows in a batch, at least 1.
    pub size: usize,
    /// Seed of the order and of all that is random in reading.
    pub seed: u64,
    /// How rows are drawn.
    pub sampler: Sampler,
    /// What becomes of the rest.
    pub last_batch: LastBatch,
}

/// Inputs that need not be read for some rows, because what follows from them is kept.
#[derive(Clone, Debug)]
pub struct Elsewhere {
    /// The inputs.
    pub inputs: Vec<String>,
    /// The rows: a bit for each.
    rows: Arc<[AtomicU64]>,
}

impl Elsewhere {
    /// Returns it for these inputs, and none of so many rows.
    pub fn new(inputs: Vec<String>, rows: usize) -> Elsewhere {
        Elsewhere { inputs, rows: (0..rows.div_ceil(64)).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Returns true for a row that is kept.
    pub fn has(&self, row: usize) -> bool {
        self.rows.get(row / 64).is_some_and(|bits| bits.load(Ordering::Acquire) >> (row % 64) & 1 == 1)
    }

    /// Says whether a row is kept.
    pub fn set(&self, row: usize, kept: bool) {
        let Some(bits) = self.rows.get(row / 64) else { return };
        match kept {
            true => bits.fetch_or(1 << (row % 64), Ordering::AcqRel),
            false => bits.fetch_and(!(1 << (row % 64)), Ordering::AcqRel),
        };
    }
}

/// The batches of a dataset. Clones are cheap and give the same batches.
#[derive(Clone, Debug)]
pub struct Batches(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    feeds: Vec<Feed>,
    rows: usize,
    options: BatchOptions,
    mix: Option<Mix>,
    /// The orders of the last two epochs that were asked for: those of one and the next are read side by side where
    /// batches are made ahead.
    orders: Mutex<Vec<(u64, Arc<Vec<Sample>>)>>,
}

impl Batches {
    /// Returns the batches of columns that [`check`](super::check()) has passed.
    ///
    /// # Errors
    /// There would be no batch.
    ///
    /// # Panics
    /// When there is no feed, the feeds' lengths differ or the batch size is 0.
    pub fn new(feeds: Vec<Feed>, options: BatchOptions) -> Result<Batches, DataError> {
        Batches::mixed(feeds, options, None)
    }

    /// Returns batches as [`new`](Batches::new) does, whose rows are then mixed in training.
    ///
    /// # Errors
    /// There would be no batch.
    ///
    /// # Panics
    /// When there is no feed, the feeds' lengths differ or the batch size is 0.
    pub fn mixed(feeds: Vec<Feed>, options: BatchOptions, mix: Option<Mix>) -> Result<Batches, DataError> {
        assert!(options.size > 0, "a batch has a row");
        let rows = feeds.first().expect("at least one column is fed").rows();
        assert!(feeds.iter().all(|feed| feed.rows() == rows), "columns of a dataset have equal lengths");
        let batches = Batches(Arc::new(Inner { feeds, rows, options, mix, orders: Mutex::default() }));
        if batches.is_empty() {
            return Err(DataError::NoBatch { rows, batch: batches.0.options.size });
        }
        Ok(batches)
    }

    /// Returns the number of batches of an epoch.
    pub fn len(&self) -> usize {
        match self.0.options.last_batch {
            LastBatch::Keep | LastBatch::Pad => self.0.rows.div_ceil(self.0.options.size),
            LastBatch::Drop => self.0.rows / self.0.options.size,
        }
    }

    /// Returns true when there is no batch.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of rows of an epoch.
    pub fn rows(&self) -> usize {
        self.0.rows.min(self.len() * self.0.options.size)
    }

    /// Returns the number of rows of batch `index` that count.
    pub fn rows_of(&self, index: usize) -> usize {
        self.0.rows.saturating_sub(index * self.0.options.size).min(self.0.options.size)
    }

    /// Returns true where making a batch is no more than copying rows.
    pub fn is_cheap(&self) -> bool {
        self.0.feeds.iter().all(Feed::is_cheap)
    }

    /// Returns the samples of an epoch (epochs count from 1) in their order.
    pub fn order(&self, epoch: u64) -> Arc<Vec<Sample>> {
        let inner = &self.0;
        let mut orders = inner.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = if inner.options.sampler.is_sequential() { 0 } else { epoch };
        if let Some((_, order)) = orders.iter().find(|(of, _)| *of == epoch) {
            return order.clone();
        }
        let order = Arc::new(inner.options.sampler.order(inner.rows, inner.options.seed, epoch));
        orders.insert(0, (epoch, order.clone()));
        orders.truncate(2);
        order
    }

    /// Returns the samples of batch `index` (from 0) of an epoch; none where there is no such batch.
    pub fn samples(&self, epoch: u64, index: usize) -> Vec<Sample> {
        let (start, order) = (index.saturating_mul(self.0.options.size), self.order(epoch));
        order.iter().skip(start).take(self.rows_of(index)).copied().collect()
    }

    /// Returns the rows that batch `index` (from 0) of an epoch is read from, also those that only fill it up; none where
    /// there is no such batch.
    pub fn rows_read(&self, epoch: u64, index: usize) -> Vec<usize> {
        let mut rows: Vec<usize> = self.samples(epoch, index).iter().map(|sample| sample.row).collect();
        if let (LastBatch::Pad, Some(last)) = (self.0.options.last_batch, rows.last().copied()) {
            rows.resize(self.0.options.size, last);
        }
        rows
    }

    /// Returns the number of rows that there are to read.
    pub fn all_rows(&self) -> usize {
        self.0.rows
    }

    /// Returns the number of tensors of a batch.
    pub fn width(&self) -> usize {
        self.0.feeds.len()
    }

    /// Returns true where rows are drawn with replacement, so that an epoch does not read all of them.
    pub fn draws_again(&self) -> bool {
        matches!(self.0.options.sampler, Sampler::Weighted(_) | Sampler::Balanced(_))
    }

    /// Returns why a row of some inputs may differ from epoch to epoch; `None` where it is always the same.
    pub fn varies(&self, inputs: &[&str]) -> Option<String> {
        if self.0.mix.is_some() {
            return Some("rows of a batch are mixed with each other (data.augment)".into());
        }
        let random = |feed: &&Feed| inputs.contains(&feed.input.as_str()) && feed.source.is_random(feed.column);
        let random = self.0.feeds.iter().find(random)?;
        Some(format!("the rows of \"{}\" differ from epoch to epoch (data.augment)", random.input))
    }

    /// Returns what tells the data of some inputs from others: where they come from, size and time of the files, and the
    /// elements of a few rows as they are read.
    ///
    /// # Errors
    /// A row cannot be read.
    pub fn identity(&self, inputs: &[&str]) -> Result<[u8; 32], DataError> {
        const ROWS: usize = 16;
        let rows = self.0.rows;
        let mut hasher = Sha256::new();
        let samples: Vec<Sample> = (0..ROWS.min(rows)).map(|place| Sample::of(place * rows / ROWS.min(rows))).collect();
        for feed in self.0.feeds.iter().filter(|feed| inputs.contains(&feed.input.as_str())) {
            let (path, column) = (feed.source.path(), &feed.source.columns()[feed.column]);
            hasher.update(format!(
                "{} {} {column:?} {rows}
",
                feed.input,
                path.display()
            ));
            if let Ok(found) = std::fs::metadata(path) {
                let changed = found.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                hasher.update(format!(
                    "{} {changed:?}
",
                    found.len()
                ));
            }
            for tensor in feed.source.read(&[feed.column], &samples, Draw::Fixed)? {
                hasher.update(tensor.bytes());
            }
        }
        Ok(hasher.finalize().into())
    }

    /// Returns the name of the column that an input is fed from.
    pub fn column(&self, input: &str) -> Option<&str> {
        let feed = self.0.feeds.iter().find(|feed| feed.input == input)?;
        feed.source.columns().get(feed.column).map(|column| column.name.as_str())
    }

    /// Returns the rows of the largest batch, with those that only fill it up.
    pub fn most(&self) -> usize {
        if self.0.options.last_batch == LastBatch::Pad { self.0.options.size } else { self.rows_of(0) }
    }

    /// Returns what a batch of so many rows is.
    pub fn shapes(&self, rows: usize) -> Vec<Shape> {
        let shape = |feed: &Feed| {
            let column = feed.source.columns().get(feed.column);
            let mut sizes = vec![rows];
            sizes.extend(column.iter().flat_map(|column| column.shape.iter().copied()));
            let mut dtype = feed.dtype;
            if let Some((axis, classes)) = feed.classes {
                sizes.insert(axis.min(sizes.len()), classes);
                dtype = DType::F32;
            }
            Shape { name: feed.input.clone(), dtype, sizes }
        };
        self.0.feeds.iter().map(shape).collect()
    }

    /// Returns batch `index` (from 0) of the rows in the order of the file, with nothing random.
    ///
    /// # Errors
    /// A row cannot be read.
    ///
    /// # Panics
    /// When there is no batch of that index.
    pub fn in_file_order(&self, index: usize) -> Result<Batch, DataError> {
        assert!(index < self.len(), "batch {index} of {}", self.len());
        let start = index * self.0.options.size;
        let samples = (start..start + self.rows_of(index)).map(Sample::of).collect();
        self.read(samples, Draw::Fixed)
    }

    /// Returns batch `index` (from 0) of an epoch: the model's input names, each with its rows.
    ///
    /// # Errors
    /// A row cannot be read.
    ///
    /// # Panics
    /// When there is no batch of that index.
    pub fn batch(&self, epoch: u64, index: usize) -> Result<Batch, DataError> {
        self.without(epoch, index, None)
    }

    /// As [`Batches::batch`], without the inputs that are not read where all rows of the batch are kept elsewhere.
    ///
    /// # Errors
    /// A row cannot be read.
    ///
    /// # Panics
    /// When there is no batch of that index.
    pub fn without(&self, epoch: u64, index: usize, elsewhere: Option<&Elsewhere>) -> Result<Batch, DataError> {
        assert!(index < self.len(), "batch {index} of {}", self.len());
        let start = index * self.0.options.size;
        let order = self.order(epoch);
        let samples = order[start..start + self.rows_of(index)].to_vec();
        let draw = if epoch == 0 { Draw::Fixed } else { Draw::Random { seed: self.0.options.seed, epoch } };
        let elsewhere =
            elsewhere.filter(|elsewhere| epoch > 0 && samples.iter().all(|sample| elsewhere.has(sample.row)));
        let left_out = |input: &str| elsewhere.is_some_and(|elsewhere| elsewhere.inputs.iter().any(|own| own == input));
        let mut batch = self.read_without(samples, draw, &left_out)?;
        if let Some(mix) = &self.0.mix {
            mix.apply(&mut batch, self.rows_of(index), index, draw);
        }
        Ok(batch)
    }

    fn read(&self, samples: Vec<Sample>, draw: Draw) -> Result<Batch, DataError> {
        self.read_without(samples, draw, &|_| false)
    }

    fn read_without(
        &self,
        mut samples: Vec<Sample>,
        draw: Draw,
        left_out: &dyn Fn(&str) -> bool,
    ) -> Result<Batch, DataError> {
        let count = samples.len();
        if self.0.options.last_batch == LastBatch::Pad
            && let Some(last) = samples.last().copied()
        {
            samples.resize(self.0.options.size, last);
        }
        let feeds: Vec<&Feed> = self.0.feeds.iter().filter(|feed| !left_out(&feed.input)).collect();
        let mut tensors: Vec<Option<Tensor>> = vec![None; feeds.len()];
        for (position, feed) in feeds.iter().enumerate() {
            if tensors[position].is_some() {
                continue;
            }
            let together: Vec<usize> =
                (position..feeds.len()).filter(|other| Arc::ptr_eq(&feeds[*other].source, &feed.source)).collect();
            let columns: Vec<usize> = together.iter().map(|other| feeds[*other].column).collect();
            let read = feed.source.read(&columns, &samples, draw)?;
            for (other, tensor) in together.into_iter().zip(read) {
                tensors[other] = Some(tensor);
            }
        }
        let finish = |(feed, tensor): (&&Feed, Option<Tensor>)| {
            let tensor = tensor.expect("invariant: a source gives every column");
            let tensor = if tensor.dtype() == feed.dtype { tensor } else { widened(&tensor, feed.dtype) };
            let tensor = feed.padded(tensor, count);
            (
                feed.input.clone(),
                feed.classes.map_or_else(|| tensor.clone(), |(axis, count)| one_hot(&tensor, axis, count)),
            )
        };
        Ok(feeds.iter().zip(tensors).map(finish).collect())
    }
}

/// Returns integers or bools as wider integers; [`check`](super::check()) allows no other change.
fn widened(tensor: &Tensor, dtype: DType) -> Tensor {
    let values = tensor.to_f64s().expect("invariant: integers of 32 bits at most, exact in f64");
    match dtype {
        DType::I32 => Tensor::from_vec(tensor.shape(), values.into_iter().map(|value| value as i32).collect()),
        _ => Tensor::from_vec(tensor.shape(), values.into_iter().map(|value| value as i64).collect()),
    }
}

/// Returns labels as float32 with an axis of classes: 1 for the label, 0 for the others.
fn one_hot(labels: &Tensor, axis: usize, classes: usize) -> Tensor {
    let values = labels.to_ints().expect("invariant: checked to be labels");
    let mut shape = labels.shape().to_vec();
    let inner: usize = shape[axis..].iter().product();
    shape.insert(axis, classes);
    let mut out = vec![0f32; values.len() * classes];
    for (place, label) in values.into_iter().enumerate() {
        let label = usize::try_from(label).expect("invariant: checked to be a class");
        out[(place / inner * classes + label) * inner + place % inner] = 1.0;
    }
    Tensor::from_vec(&shape, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(rows: usize, options: BatchOptions) -> Result<Batches, DataError> {
        let x: Vec<f32> = (0..rows * 2).map(|value| value as f32).collect();
        let labels: Vec<u8> = (0..rows).map(|value| value as u8).collect();
        let feeds = vec![
            Feed::of("x", Tensor::from_vec(&[rows, 2], x), DType::F32),
            Feed { pad: Some(-100), ..Feed::of("target", Tensor::from_vec(&[rows], labels), DType::I64) },
        ];
        Batches::new(feeds, options)
    }

    const OPTIONS: BatchOptions =
        BatchOptions { size: 4, seed: 0, sampler: Sampler::Shuffle, last_batch: LastBatch::Keep };

    #[test]
    fn an_epoch_holds_every_row_once_and_columns_stay_together() {
        for (last_batch, sizes) in [(LastBatch::Keep, vec![4, 4, 2]), (LastBatch::Drop, vec![4, 4])] {
            let batches = batches(10, BatchOptions { last_batch, ..OPTIONS }).unwrap();
            assert_eq!(batches.rows(), sizes.iter().sum::<usize>());
            let mut seen = Vec::new();
            for (index, size) in sizes.iter().enumerate() {
                let batch = batches.batch(3, index).unwrap();
                assert_eq!((batch[0].0.as_str(), batch[1].0.as_str()), ("x", "target"));
                assert_eq!(batch[0].1.shape(), [*size, 2]);
                let labels = batch[1].1.to_vec::<i64>().unwrap();
                let x = batch[0].1.to_vec::<f32>().unwrap();
                for (row, label) in labels.iter().enumerate() {
                    assert_eq!(x[row * 2..row * 2 + 2], [*label as f32 * 2.0, *label as f32 * 2.0 + 1.0]);
                }
                seen.extend(labels);
            }
            assert_eq!(batches.len(), sizes.len());
            let order: Vec<i64> = batches.order(3).iter().map(|sample| sample.row as i64).take(seen.len()).collect();
            assert_eq!(seen, order);
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), batches.rows());
        }
    }

    #[test]
    fn a_padded_batch_is_full_and_its_padding_does_not_count() {
        let batches = batches(10, BatchOptions { last_batch: LastBatch::Pad, ..OPTIONS }).unwrap();
        assert_eq!((batches.len(), batches.rows(), batches.rows_of(2)), (3, 10, 2));
        let batch = batches.batch(1, 2).unwrap();
        let labels = batch[1].1.to_vec::<i64>().unwrap();
        let x = batch[0].1.to_vec::<f32>().unwrap();
        assert_eq!(batch[0].1.shape(), [4, 2]);
        assert_eq!(labels[2..], [-100, -100]);
        assert!(labels[0] >= 0 && x[2..4] == x[4..6] && x[2..4] == x[6..8], "{x:?}");
        assert_eq!(
            batches.batch(1, 1).unwrap()[1].1.to_vec::<i64>().unwrap().iter().min().map(|least| *least >= 0),
            Some(true)
        );
    }

    #[test]
    fn without_shuffle_rows_are_slices_of_the_file() {
        let batches = batches(10, BatchOptions { sampler: Sampler::Sequential, ..OPTIONS }).unwrap();
        assert_eq!(batches.batch(1, 2).unwrap()[1].1.to_vec::<i64>().unwrap(), [8, 9]);
        let (first, again) = (&batches.batch(1, 0).unwrap()[0].1, &batches.batch(2, 0).unwrap()[0].1);
        assert_eq!(first, again);
        assert_eq!(first.bytes().as_ptr(), again.bytes().as_ptr());
        assert_eq!(first, &batches.in_file_order(0).unwrap()[0].1);
    }

    #[test]
    fn a_dropped_only_batch_is_an_error() {
        let error = batches(3, BatchOptions { last_batch: LastBatch::Drop, ..OPTIONS }).unwrap_err();
        assert_eq!(error.to_string(), "3 rows are fewer than one batch of 4, and last_batch = \"drop\" leaves none");
    }

    #[test]
    fn labels_become_rows_of_classes_along_their_axis() {
        let found = one_hot(&Tensor::ints(&[2, 0]), 1, 3);
        assert_eq!((found.shape(), found.to_vec::<f32>().unwrap()), (&[2, 3][..], vec![0.0, 0.0, 1.0, 1.0, 0.0, 0.0]));
        let found = one_hot(&Tensor::from_vec(&[1, 2], vec![1i64, 0]), 1, 2);
        assert_eq!((found.shape(), found.to_vec::<f32>().unwrap()), (&[1, 2, 2][..], vec![0.0, 1.0, 1.0, 0.0]));
        let feed =
            Feed { classes: Some((1, 11)), ..Feed::of("t", Tensor::from_vec(&[3], vec![9u8, 0, 10]), DType::I64) };
        let batches = Batches::new(vec![feed], BatchOptions { size: 2, ..OPTIONS }).unwrap();
        let batch = batches.in_file_order(1).unwrap();
        assert_eq!(batch[0].1.to_vec::<f32>().unwrap(), [[0.0; 10].as_slice(), &[1.0]].concat());
    }
}
