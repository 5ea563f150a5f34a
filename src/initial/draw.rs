//! Random numbers of a tensor: they follow from the seed and the name of the tensor, and from nothing else.

use super::law::Law;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

/// Returns `count` numbers of a law. The key of ChaCha8 is the SHA-256 of `weights`, the seed (8 bytes, little-endian)
/// and the name.
pub(super) fn draw(law: Law, count: usize, seed: u64, name: &str) -> Vec<f64> {
    let mut hasher = Sha256::new();
    hasher.update(b"weights");
    hasher.update(seed.to_le_bytes());
    hasher.update(name.as_bytes());
    let mut random = ChaCha8Rng::from_seed(hasher.finalize().into());
    let mut unit = || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    match law {
        Law::Fill(value) => vec![value; count],
        Law::Uniform(bound) => (0..count).map(|_| (2.0 * unit() - 1.0) * bound).collect(),
        Law::Normal(std) => {
            let mut values = Vec::with_capacity(count.saturating_add(1));
            while values.len() < count {
                // Box-Muller; the logarithm is of a number in (0, 1].
                let radius = (-2.0 * (1.0 - unit()).ln()).sqrt() * std;
                let angle = std::f64::consts::TAU * unit();
                values.extend([radius * angle.cos(), radius * angle.sin()]);
            }
            values.truncate(count);
            values
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_from_seed_and_name_and_have_the_moments_of_their_law() {
        const COUNT: usize = 20_001;
        let moments = |values: &[f64]| {
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
            (mean, variance.sqrt())
        };
        for (law, std) in [(Law::Uniform(0.5), 0.5 / 3f64.sqrt()), (Law::Normal(2.0), 2.0)] {
            let values = draw(law, COUNT, 3, "w");
            assert_eq!(values.len(), COUNT);
            assert_eq!(values, draw(law, COUNT, 3, "w"));
            assert_ne!(values, draw(law, COUNT, 4, "w"));
            assert_ne!(values, draw(law, COUNT, 3, "v"));
            let (mean, found) = moments(&values);
            // Four standard errors.
            assert!(mean.abs() < 4.0 * std / (COUNT as f64).sqrt(), "{mean}");
            assert!((found / std - 1.0).abs() < 4.0 / (COUNT as f64).sqrt(), "{found}");
        }
        assert!(draw(Law::Uniform(0.5), COUNT, 3, "w").iter().all(|value| (-0.5..0.5).contains(value)));
        assert_eq!(draw(Law::Fill(1.0), 2, 0, "w"), [1.0, 1.0]);
    }
}
