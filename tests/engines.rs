//! The engines and fixtures that integration tests use.

use freeze_plan::graph::Tensor;
use freeze_plan::runner::{Engine, LocateOptions, OnnxRuntime, Tract, locate};
use std::path::{Path, PathBuf};

/// Returns ONNX Runtime with two threads, fetching it on a machine that has none.
pub fn onnxruntime() -> OnnxRuntime {
    let options = LocateOptions::default();
    let found = locate(&options, &mut |text| eprintln!("{text}")).expect("ONNX Runtime is found or fetched");
    OnnxRuntime::new(&found.path, 2).expect("ONNX Runtime loads")
}

/// Returns every engine.
pub fn engines() -> Vec<Box<dyn Engine>> {
    vec![Box::new(onnxruntime()), Box::new(Tract::new())]
}

/// Returns the path of a fixture.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// Returns a golden file.
pub fn golden(name: &str) -> serde_json::Value {
    let text = std::fs::read_to_string(fixture(name)).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Returns the largest deviation of `found` from `expected`, relative to the size of `expected`.
pub fn deviation(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.shape(), expected.shape());
    let (found, expected) = (found.to_f64s().unwrap(), expected.to_f64s().unwrap());
    let size = expected.iter().fold(0f64, |size, value| size.max(value.abs()));
    let worst = found.iter().zip(&expected).fold(0f64, |worst, (a, b)| worst.max((a - b).abs()));
    worst / size.max(1e-6)
}
