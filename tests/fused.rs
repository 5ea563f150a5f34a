//! Models with fused operators against PyTorch, and what freezing leaves of them.

use crate::engines::{deviation, fixture, onnxruntime};
use freeze_plan::data::read_tensors;
use freeze_plan::graph::Tensor;
use freeze_plan::losses::{LossKind, LossSpec};
use freeze_plan::onnx::read;
use freeze_plan::optim::{OptimizerKind, OptimizerSpec};
use freeze_plan::planner::Analysis;
use freeze_plan::runner::evaluate;
use freeze_plan::training::{PhaseOptions, Prepared, Rates, TrainStep, build, prepare};
use std::collections::HashSet;

/// Relative to the largest gradient of the parameter; float32 sums over a whole model.
const TOLERANCE: f64 = 2e-4;
/// Gradients that are zero but for rounding (the bias of keys).
const NOISE: f64 = 2e-6;

struct Case {
    name: &'static str,
    /// Operators that the file has, and that must not remain where everything trains.
    fused: &'static [&'static str],
    /// Those of `fused` that stay where only the head trains.
    frozen: &'static [&'static str],
    /// Constants that are taken for parameters: nothing in the file tells them apart.
    tables: &'static [&'static str],
}

const CASES: [Case; 6] = [
    Case {
        name: "bert_optimizer",
        fused: &["EmbedLayerNormalization", "Attention", "SkipLayerNormalization", "BiasGelu"],
        frozen: &["EmbedLayerNormalization", "Attention", "SkipLayerNormalization", "BiasGelu"],
        tables: &[],
    },
    Case {
        name: "bert_extended",
        fused: &["FusedMatMul", "BiasGelu", "FusedGemm"],
        frozen: &["FusedMatMul", "BiasGelu", "FusedGemm"],
        tables: &[],
    },
    Case {
        name: "gpt2_extended",
        fused: &["FusedMatMul", "FastGelu", "SkipLayerNormalization"],
        frozen: &["FusedMatMul", "FastGelu", "SkipLayerNormalization"],
        tables: &[],
    },
    Case {
        name: "llama_optimizer",
        fused: &["SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", "QuickGelu"],
        frozen: &["SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", "QuickGelu"],
        tables: &["unsqueeze_14", "unsqueeze_15"],
    },
    Case {
        name: "llama_genai",
        fused: &["SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", "GroupQueryAttention"],
        frozen: &["SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", "GroupQueryAttention"],
        tables: &[],
    },
    Case { name: "llama_opset23", fused: &["Attention", "RMSNormalization"], frozen: &[], tables: &[] },
];

fn prepared(case: &Case) -> Prepared {
    let file = read(&fixture(&format!("fused/{}.onnx", case.name))).unwrap();
    let operators: HashSet<&str> = file.model.graph.nodes().iter().map(|node| node.op.name.as_str()).collect();
    for op in case.fused {
        assert!(operators.contains(op), "{} has no {op}", case.name);
    }
    prepare(&Analysis::of(&file.model)).unwrap_or_else(|error| panic!("{}: {error:?}", case.name))
}

fn step(case: &Case, prepared: &Prepared, frozen: HashSet<&str>) -> TrainStep {
    let loss = LossSpec { class_axis: Some(-1), ..LossSpec::new(LossKind::CrossEntropy) };
    let optimizer = OptimizerSpec::new(OptimizerKind::Sgd);
    let options = PhaseOptions {
        frozen,
        frozen_inputs: false,
        rates: Rates::new(),
        loss: &loss,
        optimizer: &optimizer,
        output: None,
        seed: 0,
    };
    build(prepared, &options).unwrap_or_else(|error| panic!("{}: {error:?}", case.name))
}

/// The weight of the last node.
fn head(prepared: &Prepared) -> &str {
    let graph = &prepared.model.graph;
    let last = graph.nodes().last().expect("the model has nodes");
    let mut names = last.inputs.iter().flatten().map(|id| graph.value_name(*id));
    names.find(|name| prepared.trainable().contains(name)).expect("the last node has a weight")
}

fn operators(step: &TrainStep) -> HashSet<&str> {
    step.train.graph.nodes().iter().map(|node| node.op.name.as_str()).collect()
}

/// Runs the train graph and returns its outputs by name.
fn run(prepared: &Prepared, step: &TrainStep, data: &[(String, Tensor)]) -> Vec<(String, Tensor)> {
    let graph = &step.train.graph;
    let column = |name: &str| data.iter().find(|column| column.0 == name).map(|column| column.1.clone());
    let feeds: Vec<(&str, Tensor)> = graph
        .inputs()
        .iter()
        .map(|id| {
            let name = graph.value_name(*id);
            let own = prepared.model.graph.find(name);
            let initializer = own.and_then(|id| prepared.model.graph.value(id).initializer.clone());
            (name, initializer.or_else(|| column(name)).expect(name))
        })
        .collect();
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let outputs = evaluate(&mut onnxruntime(), &step.train, &feeds).unwrap_or_else(|error| panic!("{error}"));
    graph.outputs().iter().map(|id| graph.value_name(*id).to_string()).zip(outputs).collect()
}

#[test]
fn gradients_of_fused_operators_are_pytorchs() {
    let mut failures = Vec::new();
    for case in &CASES {
        let (name, prepared) = (case.name, prepared(case));
        let step = step(case, &prepared, case.tables.iter().copied().collect());
        let remaining = operators(&step);
        for op in case.fused.iter().filter(|op| remaining.contains(**op)) {
            failures.push(format!("{name}: {op} is still there"));
        }
        let data = read_tensors(&fixture(&format!("fused/{name}.npz")), None).unwrap();
        let outputs = run(&prepared, &step, &data);
        let golden = |name: &str| data.iter().find(|column| column.0 == name).map(|column| &column.1);
        let mut compared = HashSet::new();
        for (output, found) in &outputs {
            let of = match output.strip_suffix(".grad") {
                Some(parameter) => format!("grad:{parameter}"),
                None if output == "loss" => "loss".to_string(),
                None => continue,
            };
            let Some(expected) = golden(&of) else {
                failures.push(format!("{name}: PyTorch has no {of}"));
                continue;
            };
            let expected = expected.reshaped(found.shape());
            let size = expected.to_f64s().unwrap().iter().fold(0f64, |most, value| most.max(value.abs()));
            let off = deviation(found, &expected);
            if off > TOLERANCE && off * size.max(1e-6) > NOISE {
                failures.push(format!("{name}: {of} is off by {off:.1e}"));
            }
            compared.insert(of);
        }
        for (golden, _) in data.iter().filter(|(golden, _)| golden.starts_with("grad:")) {
            if !compared.contains(golden) {
                failures.push(format!("{name}: no {golden} among the outputs"));
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn a_frozen_prefix_keeps_its_fused_operators() {
    for case in &CASES {
        let prepared = prepared(case);
        let head = head(&prepared);
        let frozen: HashSet<&str> = prepared.trainable().into_iter().filter(|name| *name != head).collect();
        let part = step(case, &prepared, frozen);
        let found = operators(&part);
        for op in case.frozen {
            assert!(found.contains(op), "{}: {op} has been taken apart", case.name);
        }
        let data = read_tensors(&fixture(&format!("fused/{}.npz", case.name)), None).unwrap();
        let outputs = run(&prepared, &part, &data);
        let gradient = format!("{}.grad", head);
        let (_, found) = outputs.iter().find(|(name, _)| *name == gradient).expect("the head has a gradient");
        let golden = format!("grad:{}", head);
        let (_, expected) = data.iter().find(|(name, _)| *name == golden).expect("PyTorch has it");
        let off = deviation(found, &expected.reshaped(found.shape()));
        assert!(off < TOLERANCE, "{}: the head's gradient is off by {off:.1e}", case.name);
    }
}
