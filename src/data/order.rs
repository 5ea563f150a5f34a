//! The order in which the rows of an epoch are read: a pure function of the sampler, seed and epoch.
//!
//! - `shuffle`: rows `0..n`, shuffled by Fisher-Yates from the last place down, `for i in n-1 down to 1: swap(i, j)`.
//! - `sequential`: rows `0..n`.
//! - `weighted`: `n` rows drawn with replacement, each with the probability `w / sum(w)`: the first row whose running
//!   sum of weights is above `u sum(w)`, `u` in [0, 1) with 53 bits.
//! - `balanced`: `n` rows, `n / c` of each of `c` classes that are there and one more of the first `n mod c` in an order
//!   that is shuffled; the rows of a class in shuffled order, again and again; then all of them shuffled.
//!
//! Random numbers below a bound are `(r * bound) >> 64`, where `r` are the 64-bit words, in sequence, of ChaCha8 under the
//! 32-byte key `seed (8 bytes, little-endian) | epoch (8 bytes, little-endian) | "freeze-plan/rows"` with nonce 0. The
//! order is part of the format of a run: a resumed run and another program find the same.

use super::source::Sample;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::collections::{BTreeMap, HashMap};

/// How rows are drawn.
#[derive(Clone, Debug, PartialEq)]
pub enum Sampler {
    /// Each row once, in an order of its own in each epoch.
    Shuffle,
    /// Each row once, in the order of the file.
    Sequential,
    /// As many rows as there are, drawn with replacement by their weights.
    Weighted(Vec<f64>),
    /// As many rows as there are, as many of each class.
    Balanced(Vec<i64>),
}

impl Sampler {
    /// Returns the rows of an epoch in their order.
    pub(super) fn order(&self, rows: usize, seed: u64, epoch: u64) -> Vec<Sample> {
        let mut random = Random::new(seed, epoch);
        match self {
            Sampler::Sequential => (0..rows).map(Sample::of).collect(),
            Sampler::Shuffle => {
                let mut order: Vec<usize> = (0..rows).collect();
                random.shuffle(&mut order);
                order.into_iter().map(Sample::of).collect()
            }
            Sampler::Weighted(weights) => {
                let mut sum = 0.0;
                let sums: Vec<f64> = weights
                    .iter()
                    .map(|weight| {
                        sum += weight;
                        sum
                    })
                    .collect();
                let last = sums.partition_point(|end| *end < sum);
                let mut draw = || {
                    let point = random.fraction() * sum;
                    sums.partition_point(|end| *end <= point).min(last)
                };
                counted((0..rows).map(|_| draw()))
            }
            Sampler::Balanced(labels) => {
                let mut classes: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
                labels.iter().enumerate().for_each(|(row, label)| classes.entry(*label).or_default().push(row));
                let mut classes: Vec<Vec<usize>> = classes.into_values().collect();
                random.shuffle(&mut classes);
                let count = classes.len().max(1);
                let mut order = Vec::with_capacity(rows);
                for (position, class) in classes.iter_mut().enumerate() {
                    let mut left = rows / count + usize::from(position < rows % count);
                    while left > 0 {
                        random.shuffle(class);
                        let taken = left.min(class.len());
                        order.extend_from_slice(&class[..taken]);
                        left -= taken;
                    }
                }
                random.shuffle(&mut order);
                counted(order.into_iter())
            }
        }
    }

    /// Returns true where every epoch has the order of the file.
    pub(super) fn is_sequential(&self) -> bool {
        *self == Sampler::Sequential
    }
}

/// Numbers the draws of each row.
fn counted(rows: impl Iterator<Item = usize>) -> Vec<Sample> {
    let mut seen: HashMap<usize, usize> = HashMap::new();
    rows.map(|row| {
        let count = seen.entry(row).or_default();
        *count += 1;
        Sample { row, copy: *count - 1 }
    })
    .collect()
}

struct Random(ChaCha8Rng);

impl Random {
    fn new(seed: u64, epoch: u64) -> Random {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&epoch.to_le_bytes());
        key[16..].copy_from_slice(b"freeze-plan/rows");
        Random(ChaCha8Rng::from_seed(key))
    }

    fn below(&mut self, bound: usize) -> usize {
        let scaled = (u128::from(self.0.next_u64()) * bound as u128) >> 64;
        usize::try_from(scaled).expect("invariant: below the bound")
    }

    fn fraction(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last + 1);
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(sampler: &Sampler, rows: usize, seed: u64, epoch: u64) -> Vec<usize> {
        sampler.order(rows, seed, epoch).into_iter().map(|sample| sample.row).collect()
    }

    #[test]
    fn the_order_is_fixed_for_all_time() {
        let expected: [(u64, u64, [usize; 10]); 3] = [
            (0, 1, [7, 4, 5, 6, 0, 1, 8, 2, 9, 3]),
            (0, 2, [5, 9, 0, 2, 1, 4, 8, 6, 3, 7]),
            (7, 1, [7, 1, 2, 3, 4, 6, 0, 9, 8, 5]),
        ];
        for (seed, epoch, order) in expected {
            assert_eq!(rows(&Sampler::Shuffle, 10, seed, epoch), order, "seed {seed}, epoch {epoch}");
        }
        assert_eq!(rows(&Sampler::Shuffle, 1000, 0, 1)[997..], [283, 370, 330]);
    }

    #[test]
    fn epochs_and_seeds_differ_and_the_first_and_last_row_are_met_everywhere() {
        let shuffled = |count, seed, epoch| rows(&Sampler::Shuffle, count, seed, epoch);
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
    fn weights_are_probabilities() {
        let sampler = Sampler::Weighted(vec![1.0, 0.0, 3.0, 0.0]);
        let mut met = [0usize; 4];
        for epoch in 0..1000 {
            let order = sampler.order(4, 1, epoch);
            assert_eq!(order.len(), 4);
            order.iter().for_each(|sample| met[sample.row] += 1);
            let copies: Vec<usize> = order.iter().filter(|sample| sample.row == 2).map(|sample| sample.copy).collect();
            assert_eq!(copies, (0..copies.len()).collect::<Vec<_>>());
        }
        assert!(met[1] == 0 && met[3] == 0 && (2900..3100).contains(&met[2]), "{met:?}");
    }

    #[test]
    fn classes_are_drawn_equally_often_and_their_rows_as_well() {
        let labels = vec![7, 7, 7, 7, 7, 7, -1, 3, 3, 7];
        let sampler = Sampler::Balanced(labels.clone());
        let mut more = [0usize; 3];
        for epoch in 1..100 {
            let order = sampler.order(10, 0, epoch);
            let count = |label: i64| order.iter().filter(|sample| labels[sample.row] == label).count();
            let counts = [count(7), count(-1), count(3)];
            assert_eq!(
                (counts.iter().sum::<usize>(), counts.iter().min(), counts.iter().max()),
                (10, Some(&3), Some(&4))
            );
            counts.iter().zip(&mut more).for_each(|(count, more)| *more += count - 3);
            let threes = |row| order.iter().filter(|sample| sample.row == row).count();
            assert!(threes(7).abs_diff(threes(8)) <= 1, "{order:?}");
            assert_eq!(
                order.iter().filter(|sample| sample.row == 6).map(|sample| sample.copy).max(),
                Some(count(-1) - 1)
            );
        }
        assert!(more.iter().all(|count| *count > 20), "{more:?}");
    }
}
