//! Policies that decide by what is measured, on the costs of real models.

use crate::engines::fixture;
use freeze_plan::modules::UnitKind;
use freeze_plan::onnx::read;
use freeze_plan::plan::{History, Observation, PlanOptions, Point, Predicted, Signal};
use freeze_plan::planner::{Analysis, Basis, Request};
use std::collections::HashMap;

const FILES: [&str; 4] = [
    "models/densenet.torchscript.onnx",
    "models/gpt2.torchscript.onnx",
    "models/unet.torchscript.onnx",
    "models/t5.torchscript.onnx",
];

fn basis(file: &str, options: &PlanOptions) -> Basis {
    let file = read(&fixture(file)).unwrap();
    let analysis = Analysis::of(&file.model);
    let graph = &analysis.model.graph;
    let dims = graph.inputs().iter().flat_map(|id| graph.fact(*id).shape.iter().flatten());
    let named = dims.filter(|dim| dim.known().is_none()).map(|dim| (dim.to_string(), 8));
    let sizes: HashMap<String, usize> = named.collect();
    let request = Request { epochs: 4, steps_per_epoch: 10, options, slots: 2, own_slots: Default::default(), sizes };
    Basis::of(&file, &analysis, &request).unwrap()
}

/// Returns a history of one observation after the first step.
fn measured(signal: Signal, values: Vec<f64>) -> History {
    let mut history = History::default();
    let mut seen = Observation::new(1, 0.1, 1.0, vec![false; values.len()]);
    seen.signals.insert(signal, values.into_iter().map(Some).collect());
    history.observations.push(seen);
    history
}

fn memory(predicted: &Predicted) -> u64 {
    predicted.gradient_bytes + predicted.slot_bytes + predicted.activation_bytes
}

#[test]
fn a_budget_is_kept_and_used() {
    let mut failures = Vec::new();
    for (file, kind, of) in FILES.into_iter().flat_map(|file| {
        let kinds = [UnitKind::Parameter, UnitKind::Leaf].into_iter();
        kinds.flat_map(move |kind| ["flops", "time", "memory"].map(|of| (file, kind, of)))
    }) {
        let whole = memory(&basis(file, &PlanOptions::of("none")).plan().unwrap().epochs[0].predicted);
        let cost = |predicted: &Predicted| match of {
            "memory" => memory(predicted) as f64 / whole as f64,
            _ => predicted.step_cost,
        };
        for target in [0.5, 0.7] {
            let options = PlanOptions { unit: Some(kind), ..PlanOptions::of("budget") };
            let basis = basis(file, &options.with("target", target).with("of", of));
            let planner = basis.planner().unwrap();
            let plan = planner.plan().unwrap();
            let units = planner.units().len();
            let mut values: Vec<f64> = (0..units).map(|index| ((index * 7919) % 97) as f64).collect();
            values[units - 1] = f64::NAN;
            let at = Point { epoch: 1, after: 1 };
            let replanned = planner.replan(&plan, at, &measured(Signal::Importance, values), 0).unwrap();
            let [first, second] = [&plan, &replanned].map(|plan| cost(&plan.epochs[3].predicted));
            let ahead = target - 0.15..=target;
            if !ahead.contains(&first) || !ahead.contains(&second) {
                failures.push(format!("{file} {kind:?} {of} {target}: {first:.3} ahead, {second:.3} measured"));
            }
            let name = &planner.units()[units - 1].parameters;
            if name.iter().any(|name| replanned.epochs[3].frozen.contains(name)) {
                failures.push(format!("{file}: {name:?} is frozen, and nothing is known of it"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
