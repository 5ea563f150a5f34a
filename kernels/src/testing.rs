//! Values and comparisons for tests.

use crate::exec::Exec;
use crate::pool::{Serial, Threads};
use crate::simd::Level;

/// A generator of pseudorandom numbers (xorshift).
pub(crate) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Returns values between -1 and 1.
    pub fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
    }
}

/// Fails where values differ by more than `tolerance` times the larger of 1 and what is expected.
pub(crate) fn close(what: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let allowed = tolerance * expected.abs().max(1.0);
        let error = (f64::from(*found) - expected).abs();
        assert!(error <= allowed, "{what}[{index}]: found {found}, expected {expected}, error {error:e}");
    }
}

/// Numbers in `-scale..scale`.
pub(crate) fn numbers(count: usize, seed: u64, scale: f32) -> Vec<f32> {
    Random::new(seed).floats(count).into_iter().map(|number| number * scale).collect()
}

/// Runs a kernel at every level, on one thread and on three, which must give the same bits, and
/// returns what each level gave.
pub(crate) fn everywhere(run: impl Fn(Exec<'_>) -> Vec<f32>) -> Vec<(&'static str, Vec<f32>)> {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    let mut found = Vec::new();
    for level in Level::available() {
        let alone = run(Exec { pool: &Serial, level: *level });
        let threads = run(Exec { pool: &Threads(3), level: *level });
        assert_eq!(bits(&alone), bits(&threads), "{}: threads change the result", level.name());
        found.push((level.name(), alone));
    }
    found
}

/// Asserts that a kernel gives what is expected, to `tolerance` of the greatest magnitude or of one's own.
pub(crate) fn check(what: &str, expected: &[f64], tolerance: f64, run: impl Fn(Exec<'_>) -> Vec<f32>) {
    for (level, found) in everywhere(run) {
        assert_eq!(found.len(), expected.len(), "{what}");
        let scale =
            expected.iter().filter(|value| value.is_finite()).fold(0.0_f64, |most, value| most.max(value.abs()));
        for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
            let found = f64::from(*found);
            let near = (found - expected).abs() <= tolerance * scale.max(1e-30);
            let same = found == *expected || (found.is_nan() && expected.is_nan());
            assert!(near || same, "{what}, {level}, at {at}: {found} instead of {expected}");
        }
    }
}
