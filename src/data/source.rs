//! The seam between formats and batches: rows of named columns, wherever they come from.

use super::DataError;
use crate::graph::{DType, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sha2::{Digest, Sha256};
use std::fmt::Debug;
use std::path::Path;

/// A column of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its elements.
    pub dtype: DType,
    /// The shape of one row.
    pub shape: Vec<usize>,
}

/// A row that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sample {
    /// Number of the row, from 0.
    pub row: usize,
    /// How often the row came before in the same epoch: 0 but where a sampler draws rows more than once.
    pub copy: usize,
}

impl Sample {
    /// Returns a row that is read once.
    pub fn of(row: usize) -> Sample {
        Sample { row, copy: 0 }
    }
}

/// What the random choices of an epoch follow from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// Nothing is random: evaluation.
    Fixed,
    /// Training.
    Random {
        /// Seed of the data.
        seed: u64,
        /// Epoch, from 1.
        epoch: u64,
    },
}

impl Draw {
    /// Returns the random numbers of a sample for one `purpose`: the same for the same seed, epoch and sample, whatever
    /// was read before. `None` where nothing is random. The key of ChaCha8 is the SHA-256 of seed, epoch, row and copy
    /// (8 bytes each, little-endian) and the purpose.
    pub fn numbers(self, sample: Sample, purpose: &str) -> Option<ChaCha8Rng> {
        let Draw::Random { seed, epoch } = self else { return None };
        let mut hasher = Sha256::new();
        for number in [seed, epoch, sample.row as u64, sample.copy as u64] {
            hasher.update(number.to_le_bytes());
        }
        hasher.update(purpose.as_bytes());
        Some(ChaCha8Rng::from_seed(hasher.finalize().into()))
    }
}

/// Rows of named columns.
pub trait Source: Debug + Send + Sync {
    /// Returns the file or folder, as errors name it.
    fn path(&self) -> &Path;

    /// Returns the number of rows.
    fn rows(&self) -> usize;

    /// Returns the columns.
    fn columns(&self) -> &[Column];

    /// Reads rows of some columns, by their positions: for each column a tensor whose first dimension counts the
    /// samples. It is called from several threads, in any order.
    ///
    /// # Errors
    /// A row cannot be read or decoded.
    ///
    /// # Panics
    /// When there is no such column or row.
    fn read(&self, columns: &[usize], samples: &[Sample], draw: Draw) -> Result<Vec<Tensor>, DataError>;

    /// Returns true where the rows of a column may differ from epoch to epoch.
    fn is_random(&self, _column: usize) -> bool {
        false
    }

    /// Returns a column as one tensor, where it lies in memory or is mapped; taking rows of it is cheap.
    fn whole(&self, _column: usize) -> Option<&Tensor> {
        None
    }

    /// Returns the texts of a column whose numbers stand for them: the one at the place of the number.
    fn classes(&self, _column: usize) -> Option<&[String]> {
        None
    }

    /// Returns true where numbers have no types of their own: the format is text.
    fn is_untyped(&self) -> bool {
        false
    }

    /// Returns what labels a column can hold, where that is known without reading it.
    fn label_range(&self, _column: usize) -> Option<LabelRange> {
        None
    }
}

/// Labels from 0 to the largest, and one more that stands for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelRange {
    /// The largest label.
    pub largest: i64,
    /// What stands for none.
    pub none: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::Rng;

    #[test]
    fn draws_differ_by_everything_they_follow_from_and_by_nothing_else() {
        let draw = |seed, epoch, row, copy, purpose| {
            let numbers = Draw::Random { seed, epoch }.numbers(Sample { row, copy }, purpose);
            numbers.unwrap().next_u64()
        };
        let first = draw(1, 2, 3, 0, "flip");
        assert_eq!(first, draw(1, 2, 3, 0, "flip"));
        let others =
            [draw(2, 2, 3, 0, "flip"), draw(1, 3, 3, 0, "flip"), draw(1, 2, 4, 0, "flip"), draw(1, 2, 3, 1, "flip")];
        assert!(others.iter().all(|other| *other != first));
        assert_ne!(draw(1, 2, 3, 0, "crop"), first);
        assert!(Draw::Fixed.numbers(Sample::of(3), "flip").is_none());
    }
}
