//! What the tests of kernels share.

use crate::exec::Exec;
use crate::pool::{Serial, Threads};
use crate::simd::Level;

/// Numbers that look random, in `-scale..scale`.
pub(crate) fn numbers(count: usize, seed: u64, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next() * scale).collect()
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
