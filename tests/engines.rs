//! The engines and fixtures that integration tests use.

use freeze_plan::graph::Tensor;
use freeze_plan::runner::cuda::Driver;
use freeze_plan::runner::{Device, Engine, LocateOptions, OnnxRuntime, locate};
use freeze_plan::trainer::{EngineOptions, engine};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Returns ONNX Runtime with two threads, fetching it on a machine that has none.
pub fn onnxruntime() -> OnnxRuntime {
    let device = if cuda_is_there().is_ok() { Device::Cuda(0) } else { Device::Cpu };
    let options = LocateOptions { device, ..LocateOptions::default() };
    let found = locate(&options, &mut |text| eprintln!("{text}")).expect("ONNX Runtime is found or fetched");
    OnnxRuntime::new(&found.path, 2).expect("ONNX Runtime loads")
}

/// Returns every engine: ONNX Runtime on the processor and, where there is a device, on CUDA, and tract.
pub fn engines() -> Vec<Box<dyn Engine>> {
    let own: Box<dyn Engine> = Box::new(onnxruntime());
    let mut engines: Vec<Box<dyn Engine>> = [Some(own), embedded()].into_iter().flatten().collect();
    match cuda() {
        Ok(engine) => engines.push(engine),
        Err(reason) => eprintln!("skipped on CUDA: {reason}"),
    }
    engines
}

#[cfg(feature = "tract")]
fn embedded() -> Option<Box<dyn Engine>> {
    Some(Box::new(freeze_plan::runner::Tract::new()))
}

#[cfg(not(feature = "tract"))]
fn embedded() -> Option<Box<dyn Engine>> {
    None
}

/// Returns ONNX Runtime on the first NVIDIA device, or why there is none to test on.
pub fn cuda() -> Result<Box<dyn Engine>, String> {
    cuda_is_there()?;
    let options = LocateOptions { device: Device::Cuda(0), offline: true, ..LocateOptions::default() };
    engine(&options, &EngineOptions::default(), &mut |text| eprintln!("{text}")).map_err(|error| error.to_string())
}

/// Returns why there is no device to test on. A process loads one ONNX Runtime: where there is a device, the one for CUDA.
fn cuda_is_there() -> Result<(), String> {
    static THERE: OnceLock<Result<(), String>> = OnceLock::new();
    let there = THERE.get_or_init(|| {
        let driver = Driver::read().map_err(|error| error.to_string())?;
        let device = driver.devices.first().ok_or("the driver has no device")?;
        if device.name.contains("computes nothing") {
            return Err(format!("the device is a {}", device.name));
        }
        let options = LocateOptions { device: Device::Cuda(0), offline: true, ..LocateOptions::default() };
        locate(&options, &mut |_| {}).map(drop).map_err(|error| error.to_string())
    });
    there.clone()
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
