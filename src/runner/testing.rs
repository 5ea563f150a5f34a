//! The engines that tests run on, and a plan without costs.

use super::engine::Engine;
use super::locate::{LocateOptions, locate};
use crate::cost::{StepCost, UnitCost};
use crate::plan::{FreezePlan, Inputs, ModelInfo, PlanOptions, StepCosts, build};
use crate::training::Prepared;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Returns every engine that tests run on: ONNX Runtime, and tract where it is compiled in.
/// With `FREEZE_PLAN_TEST_ENGINES=embedded` a machine without ONNX Runtime tests tract alone.
pub fn engines() -> Vec<Box<dyn Engine>> {
    let mut engines: Vec<Box<dyn Engine>> = Vec::new();
    match library() {
        Ok(path) => engines.push(Box::new(open(path))),
        Err(_) if cfg!(feature = "tract") && embedded_is_enough() => {}
        Err(reason) => panic!("{reason}"),
    }
    #[cfg(feature = "tract")]
    engines.push(Box::new(super::Tract::new()));
    match cuda() {
        Ok(engine) => engines.push(Box::new(engine)),
        Err(reason) => eprintln!("skipped on CUDA: {reason}"),
    }
    engines
}

/// Returns ONNX Runtime on the first NVIDIA device, or why there is none to test on.
pub fn cuda() -> Result<super::OnnxRuntime, String> {
    let path = cuda_library().as_ref().map_err(String::clone)?;
    let cuda = super::Cuda { tf32: false, graphs: true, cache: None };
    super::OnnxRuntime::on_cuda(path, 0, 2, &cuda).map_err(|error| error.to_string())
}

/// Returns the library of ONNX Runtime for CUDA where there is a device that computes. A process loads one library, so
/// that is the one that computes on the processor, too.
fn cuda_library() -> &'static Result<PathBuf, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let driver = super::cuda::Driver::read().map_err(|error| error.to_string())?;
        let device = driver.devices.first().ok_or("the driver has no device")?;
        if device.name.contains("computes nothing") {
            return Err(format!("the device is a {}", device.name));
        }
        let options = LocateOptions { runtime: None, offline: true, device: super::Device::Cuda(0) };
        let found = locate(&options, &mut |_| {}).map_err(|error| error.to_string())?;
        super::cuda::check(0, &super::cuda::provider_beside(&found.path)).map_err(|error| error.to_string())?;
        Ok(found.path)
    })
}

/// Returns ONNX Runtime.
pub fn onnxruntime() -> super::OnnxRuntime {
    match library() {
        Ok(path) => open(path),
        Err(reason) => panic!("{reason}"),
    }
}

/// Returns the library of ONNX Runtime.
pub fn library_path() -> PathBuf {
    match library() {
        Ok(path) => path.to_path_buf(),
        Err(reason) => panic!("{reason}"),
    }
}

fn open(path: &std::path::Path) -> super::OnnxRuntime {
    super::OnnxRuntime::new(path, 2).expect("ONNX Runtime loads")
}

fn embedded_is_enough() -> bool {
    std::env::var_os("FREEZE_PLAN_TEST_ENGINES").is_some_and(|engines| engines == "embedded")
}

fn library() -> Result<&'static std::path::Path, &'static str> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        if let Ok(path) = cuda_library() {
            return Ok(path.clone());
        }
        let options = LocateOptions { offline: embedded_is_enough(), ..LocateOptions::default() };
        locate(&options, &mut |line| eprintln!("{line}"))
            .map(|located| located.path)
            .map_err(|error| format!("tests need ONNX Runtime: {error}\nhint: {}", error.hint()))
    });
    found.as_deref().map_err(String::as_str)
}

struct NoCosts;

impl StepCosts for NoCosts {
    fn cost(&self, _: &HashSet<&str>) -> StepCost {
        StepCost::default()
    }

    fn keeps_backward_alive(&self, _: &HashSet<&str>) -> Vec<String> {
        Vec::new()
    }
}

/// Returns the linear plan of a model's leaf units, without costs.
pub fn linear(prepared: &Prepared, epochs: usize, freeze_start: f64, freeze_level: f64) -> FreezePlan {
    let costs = vec![UnitCost::default(); prepared.units.len()];
    let inputs = Inputs {
        model: &ModelInfo::default(),
        units: &prepared.units,
        costs: &costs,
        step_costs: &NoCosts,
        epochs,
        steps_per_epoch: 0,
        accompanied: None,
    };
    let options = PlanOptions::default().with("freeze_start", freeze_start).with("freeze_level", freeze_level);
    build(&inputs, &options).expect("a plan can be made")
}
