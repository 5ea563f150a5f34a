//! What the tests of the measures share: the goldens and seeded matrices.

use super::{Activations, Layout};
use nalgebra::DMatrix;
use serde_json::Value;

/// Two sets of `cases.json`.
pub struct Pair {
    pub name: String,
    pub x: Activations,
    pub y: Activations,
}

/// Reads `fixtures/signals/cases.json`, written by `make.py` beside it.
pub fn cases() -> Value {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/signals/cases.json");
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// Runs the check on every pair that has values of the measure.
pub fn each_pair(measure: &str, check: impl Fn(&Pair, &Value)) {
    let cases = cases();
    let mut checked = 0;
    for case in cases["pairs"].as_array().unwrap() {
        if let Some(expected) = case.get(measure) {
            let name = format!("{measure} of {}", case["name"].as_str().unwrap());
            check(&Pair { name, x: matrix(&case["x"]), y: matrix(&case["y"]) }, expected);
            checked += 1;
        }
    }
    assert!(checked >= 4, "{checked} pairs have {measure}");
}

pub fn matrix(value: &Value) -> Activations {
    let shape: Vec<usize> = floats(&value["shape"]).iter().map(|axis| *axis as usize).collect();
    let layout = match value["layout"].as_str().unwrap() {
        "samples" => Layout::Samples,
        "channels" => Layout::Channels,
        "last" => Layout::Last,
        other => panic!("layout {other}"),
    };
    Activations::of_slice(&floats(&value["values"]), &shape, layout).unwrap()
}

pub fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

pub fn set(matrix: &DMatrix<f64>) -> Activations {
    Activations::of_slice(matrix.transpose().as_slice(), &[matrix.nrows(), matrix.ncols()], Layout::Samples).unwrap()
}

/// Returns numbers of about mean 0 and variance 1, the same for the same arguments.
pub fn random(rows: usize, columns: usize, seed: u64) -> DMatrix<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1);
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let _warm_up: f64 = (0..16).map(|_| uniform()).sum();
    DMatrix::from_fn(rows, columns, |_, _| (0..12).map(|_| uniform()).sum::<f64>() - 6.0)
}

pub fn close(what: &str, found: f64, expected: f64) {
    let tolerance = 1e-6 * expected.abs().max(1.0);
    assert!((found - expected).abs() <= tolerance, "{what}: found {found}, expected {expected}");
}

pub fn close_all(what: &str, found: &[f64], expected: &Value) {
    let expected = floats(expected);
    assert_eq!(found.len(), expected.len(), "{what}: {found:?} {expected:?}");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        close(&format!("{what} [{index}]"), *found, expected);
    }
}
