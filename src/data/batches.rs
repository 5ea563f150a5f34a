//! Batches of rows in an order that seed and epoch alone decide.
//!
//! The order of an epoch: rows `0..n`, shuffled by Fisher-Yates from the last place down,
//! `for i in n-1 down to 1: swap(i, j)` with `j = (r * (i + 1)) >> 64`, where `r` are the 64-bit
//! words, in sequence, of ChaCha8 under the 32-byte key `seed (8 bytes, little-endian) | epoch (8
//! bytes, little-endian) | "freeze-plan/rows"` with nonce 0. It is part of the format of a run:
//! a resumed run and another program find the same order.

use super::DataError;
use super::check::Feed;
use crate::graph::{DType, Tensor};
use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};

/// What becomes of rows that do not fill a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LastBatch {
    /// They are a smaller batch.
    #[default]
    Keep,
    /// They are left out of this epoch.
    Drop,
}

/// How rows become batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchOptions {
    /// Rows in a batch, at least 1.
    pub size: usize,
    /// Seed of the order.
    pub seed: u64,
    /// Whether each epoch has its own random order; else every epoch has the order of the file.
    pub shuffle: bool,
    /// What becomes of the rest.
    pub last_batch: LastBatch,
}

/// The batches of a dataset.
#[derive(Debug)]
pub struct Batches {
    feeds: Vec<Feed>,
    rows: usize,
    options: BatchOptions,
    /// The order that was used last, with its epoch.
    order: Mutex<Option<(u64, Arc<Vec<usize>>)>>,
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
        assert!(options.size > 0, "a batch has a row");
        let rows = feeds.first().expect("at least one column is fed").rows();
        assert!(feeds.iter().all(|feed| feed.rows() == rows), "columns of a dataset have equal lengths");
        let batches = Batches { feeds, rows, options, order: Mutex::new(None) };
        if batches.is_empty() {
            return Err(DataError::NoBatch { rows, batch: batches.options.size });
        }
        Ok(batches)
    }

    /// Returns the number of batches of an epoch.
    pub fn len(&self) -> usize {
        match self.options.last_batch {
            LastBatch::Keep => self.rows.div_ceil(self.options.size),
            LastBatch::Drop => self.rows / self.options.size,
        }
    }

    /// Returns true when there is no batch.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of rows of an epoch.
    pub fn rows(&self) -> usize {
        self.rows.min(self.len() * self.options.size)
    }

    /// Returns the number of rows of batch `index`.
    pub fn rows_of(&self, index: usize) -> usize {
        self.rows.saturating_sub(index * self.options.size).min(self.options.size)
    }

    /// Returns the row numbers of an epoch (epochs count from 1) in their order.
    pub fn order(&self, epoch: u64) -> Arc<Vec<usize>> {
        if !self.options.shuffle {
            return Arc::new((0..self.rows).collect());
        }
        let mut cached = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        match cached.as_ref() {
            Some((of, order)) if *of == epoch => order.clone(),
            _ => {
                let order = Arc::new(shuffled(self.rows, self.options.seed, epoch));
                *cached = Some((epoch, order.clone()));
                order
            }
        }
    }

    /// Returns batch `index` (from 0) of the rows in the order of the file.
    ///
    /// # Panics
    /// When there is no batch of that index.
    pub fn in_file_order(&self, index: usize) -> Vec<(String, Tensor)> {
        assert!(index < self.len(), "batch {index} of {}", self.len());
        let start = index * self.options.size;
        let end = (start + self.options.size).min(self.rows);
        self.feeds.iter().map(|feed| (feed.input.clone(), feed.take_range(start, end))).collect()
    }

    /// Returns batch `index` (from 0) of an epoch: the model's input names, each with its rows.
    ///
    /// # Panics
    /// When there is no batch of that index.
    pub fn batch(&self, epoch: u64, index: usize) -> Vec<(String, Tensor)> {
        assert!(index < self.len(), "batch {index} of {}", self.len());
        let start = index * self.options.size;
        let end = (start + self.options.size).min(self.rows);
        if !self.options.shuffle {
            return self.in_file_order(index);
        }
        let order = self.order(epoch);
        let rows = &order[start..end];
        self.feeds.iter().map(|feed| (feed.input.clone(), feed.take(rows))).collect()
    }
}

fn shuffled(count: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&epoch.to_le_bytes());
    key[16..].copy_from_slice(b"freeze-plan/rows");
    let mut random = ChaCha8Rng::from_seed(key);
    let mut rows: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        let scaled = (u128::from(random.next_u64()) * (last as u128 + 1)) >> 64;
        rows.swap(last, usize::try_from(scaled).expect("invariant: below the number of rows"));
    }
    rows
}

impl Feed {
    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.column.shape().first().copied().unwrap_or(0)
    }

    fn stride(&self) -> usize {
        self.column.shape()[1..].iter().product::<usize>() * self.column.dtype().size()
    }

    fn take(&self, rows: &[usize]) -> Tensor {
        let stride = self.stride();
        let bytes = self.column.bytes();
        let mut data = Vec::with_capacity(rows.len() * stride);
        for row in rows {
            data.extend_from_slice(&bytes[row * stride..(row + 1) * stride]);
        }
        self.finish(rows.len(), data.into())
    }

    fn take_range(&self, start: usize, end: usize) -> Tensor {
        let stride = self.stride();
        self.finish(end - start, self.column.bytes().slice(start * stride..end * stride))
    }

    fn finish(&self, rows: usize, data: Bytes) -> Tensor {
        let mut shape = self.column.shape().to_vec();
        shape[0] = rows;
        let tensor = Tensor::new(self.column.dtype(), shape, data).expect("invariant: whole rows");
        if tensor.dtype() == self.dtype { tensor } else { widened(&tensor, self.dtype) }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(rows: usize, options: BatchOptions) -> Result<Batches, DataError> {
        let x: Vec<f32> = (0..rows * 2).map(|value| value as f32).collect();
        let labels: Vec<u8> = (0..rows).map(|value| value as u8).collect();
        let feeds = vec![
            Feed { input: "x".into(), column: Tensor::from_vec(&[rows, 2], x), dtype: DType::F32 },
            Feed { input: "target".into(), column: Tensor::from_vec(&[rows], labels), dtype: DType::I64 },
        ];
        Batches::new(feeds, options)
    }

    const OPTIONS: BatchOptions = BatchOptions { size: 4, seed: 0, shuffle: true, last_batch: LastBatch::Keep };

    #[test]
    fn the_order_is_fixed_for_all_time() {
        let expected: [(u64, u64, [usize; 10]); 3] = [
            (0, 1, [7, 4, 5, 6, 0, 1, 8, 2, 9, 3]),
            (0, 2, [5, 9, 0, 2, 1, 4, 8, 6, 3, 7]),
            (7, 1, [7, 1, 2, 3, 4, 6, 0, 9, 8, 5]),
        ];
        for (seed, epoch, order) in expected {
            assert_eq!(shuffled(10, seed, epoch), order, "seed {seed}, epoch {epoch}");
        }
        assert_eq!(shuffled(1000, 0, 1)[997..], [283, 370, 330]);
    }

    #[test]
    fn an_epoch_holds_every_row_once_and_columns_stay_together() {
        for (last_batch, sizes) in [(LastBatch::Keep, vec![4, 4, 2]), (LastBatch::Drop, vec![4, 4])] {
            let batches = batches(10, BatchOptions { last_batch, ..OPTIONS }).unwrap();
            assert_eq!(batches.rows(), sizes.iter().sum::<usize>());
            let mut seen = Vec::new();
            for (index, size) in sizes.iter().enumerate() {
                let batch = batches.batch(3, index);
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
            let order: Vec<i64> = batches.order(3).iter().map(|row| *row as i64).take(seen.len()).collect();
            assert_eq!(seen, order);
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), batches.rows());
        }
    }

    #[test]
    fn without_shuffle_rows_are_slices_of_the_file() {
        let batches = batches(10, BatchOptions { shuffle: false, ..OPTIONS }).unwrap();
        assert_eq!(batches.batch(1, 2)[1].1.to_vec::<i64>().unwrap(), [8, 9]);
        let (first, again) = (&batches.batch(1, 0)[0].1, &batches.batch(2, 0)[0].1);
        assert_eq!(first, again);
        assert_eq!(first.bytes().as_ptr(), again.bytes().as_ptr());
    }

    #[test]
    fn epochs_and_seeds_differ_and_the_first_and_last_row_are_met_everywhere() {
        assert_ne!(shuffled(100, 0, 1), shuffled(100, 0, 2));
        assert_ne!(shuffled(100, 0, 1), shuffled(100, 1, 1));
        let mut met = [[0usize; 4]; 4];
        for epoch in 0..4000 {
            shuffled(4, 5, epoch).iter().enumerate().for_each(|(place, row)| met[place][*row] += 1);
        }
        assert!(met.iter().flatten().all(|count| (900..1100).contains(count)), "{met:?}");
        assert!(shuffled(0, 0, 1).is_empty() && shuffled(1, 0, 1) == [0]);
    }

    #[test]
    fn a_dropped_only_batch_is_an_error() {
        let error = batches(3, BatchOptions { last_batch: LastBatch::Drop, ..OPTIONS }).unwrap_err();
        assert_eq!(error.to_string(), "3 rows are fewer than one batch of 4, and last_batch = \"drop\" leaves none");
    }
}
