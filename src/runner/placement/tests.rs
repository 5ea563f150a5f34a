//! Where the graphs of the fixtures would run on CUDA.

use super::{lower, on_cpu};
use crate::autodiff::Form;
use crate::graph::{INTERNAL_DOMAIN, Model};
use crate::losses::{LossKind, LossSpec};
use crate::onnx::read;
use crate::optim::{OptimizerKind, OptimizerSpec};
use crate::planner::Analysis;
use crate::runner::native::{Target, optimize};
use crate::training::{PhaseOptions, Prepared, Rates, build, prepare};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

/// Operators of fixtures for which nothing is on the device, by fixture, with the reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

fn json(name: &str) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(fixture(name)).unwrap()).unwrap()
}

/// File, loss and class axis of every model with a loss.
fn files() -> Vec<(String, LossSpec)> {
    let spec = |entry: &serde_json::Value| {
        let kind = LossKind::from_name(entry["loss"].as_str().unwrap()).unwrap();
        LossSpec { class_axis: entry["class_axis"].as_i64(), ..LossSpec::new(kind) }
    };
    let mut files = Vec::new();
    for (model, entry) in json("models/index.json").as_object().unwrap() {
        for way in entry["files"].as_object().unwrap().keys() {
            files.push((format!("models/{model}.{way}"), spec(entry)));
        }
    }
    for entry in std::fs::read_dir(fixture("graphs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "onnx") {
            let name = format!("graphs/{}", path.file_stem().unwrap().to_str().unwrap());
            files.push((name.clone(), spec(&json(&format!("{name}.json")))));
        }
    }
    files.sort_by(|a, b| a.0.cmp(&b.0));
    files
}

fn graphs(name: &str, loss: &LossSpec, form: Form, optimizer: OptimizerKind) -> Vec<(&'static str, Model)> {
    let file = read(&fixture(&format!("{name}.onnx"))).unwrap();
    let prepared = Prepared { form, ..prepare(&Analysis::of(&file.model)).unwrap() };
    let options = PhaseOptions {
        frozen: HashSet::new(),
        frozen_inputs: false,
        rates: Rates::new(),
        loss,
        optimizer: &OptimizerSpec::new(optimizer),
        output: None,
        seed: 0,
    };
    let step = build(&prepared, &options).unwrap();
    let optimizer = step.optimizer.map(|model| ("optimizer", model));
    let graphs = [("train", step.train), ("eval", step.eval)].into_iter().chain(optimizer);
    graphs.map(|(part, model)| (part, optimize(&model, Target::Device).into_owned())).collect()
}

/// Names of this program's operators in a graph.
fn own(model: &Model) -> Vec<&str> {
    let own = model.graph.nodes().iter().filter(|node| node.op.domain == INTERNAL_DOMAIN);
    own.map(|node| node.op.name.as_str()).collect()
}

#[test]
fn the_graphs_of_every_fixture_are_on_the_device() {
    let mut failures = Vec::new();
    let mut used = BTreeSet::new();
    let (mut before, mut count) = (BTreeMap::<String, usize>::new(), 0);
    for (name, loss) in files() {
        let own_form = !name.starts_with("models/") || name.ends_with(".torchscript");
        for form in [Form::Portable, Form::Native].into_iter().take(1 + usize::from(own_form)) {
            for (part, model) in graphs(&name, &loss, form, OptimizerKind::AdamW) {
                assert!(model.opset() <= 21, "{name}: {}", model.opset());
                count += 1;
                for misplaced in on_cpu(&model, &own(&model)) {
                    *before.entry(misplaced.operator.to_string()).or_default() += 1;
                }
                let lowered = lower(&model, &own(&model));
                for misplaced in on_cpu(&lowered, &own(&model)) {
                    let excepted = |row: &&(&str, &str, &str)| name.starts_with(row.0) && misplaced.operator.is(row.1);
                    match EXCEPTIONS.iter().find(excepted) {
                        Some(row) => drop(used.insert(*row)),
                        None => failures.push(format!("{name}, {form:?}, {part}: {misplaced}")),
                    }
                }
            }
        }
    }
    println!("{count} graphs; lowered: {before:?}");
    assert!(count > 500 && before.contains_key("Celu") && before.contains_key("ConvTranspose"), "{count} {before:?}");
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    assert_eq!(used.len(), EXCEPTIONS.len(), "an exception is not needed");
}

#[test]
fn every_optimizer_is_on_the_device() {
    let (name, loss) = files().into_iter().find(|(name, _)| name == "graphs/convs").unwrap();
    let mut failures = Vec::new();
    for optimizer in OptimizerKind::ALL {
        for form in [Form::Portable, Form::Native] {
            let (_, model) = graphs(&name, &loss, form, optimizer).pop().unwrap();
            let left = on_cpu(&lower(&model, &own(&model)), &own(&model)).into_iter();
            failures.extend(left.map(|misplaced| format!("{}, {form:?}: {misplaced}", optimizer.name())));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}
