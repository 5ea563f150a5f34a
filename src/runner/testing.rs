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
    engines
}

/// Returns ONNX Runtime.
pub fn onnxruntime() -> super::OnnxRuntime {
    match library() {
        Ok(path) => open(path),
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
        let options = LocateOptions { runtime: None, offline: embedded_is_enough() };
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
