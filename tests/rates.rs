//! Learning rates of single parameters: graphs, contract, training information.

use crate::engines::{engines, fixture};
use freeze_plan::graph::{Attributes, Builder, DType, Dim, Fact, Model, Tensor, dump};
use freeze_plan::losses::{LossKind, LossSpec};
use freeze_plan::onnx::{read, to_bytes};
use freeze_plan::optim::{OptimizerKind, OptimizerSpec};
use freeze_plan::planner::Analysis;
use freeze_plan::runner::evaluate;
use freeze_plan::training::stage::training_info;
use freeze_plan::training::{PhaseOptions, Prepared, Rate, TrainStep, build, prepare};
use std::path::Path;
use std::process::{Command, Output};

/// `y = (x W1 + b1) W2`, beside it a parameter that the loss does not depend on.
fn model(bias: &str) -> Prepared {
    let mut b = Builder::new("small");
    let x = b.input("x", Fact::new(DType::F32, vec![Dim::Symbol("batch".into()), Dim::Known(3)]));
    let first = b.initializer("fc1.weight", Tensor::from_vec(&[3, 4], vec![0.1f32; 12]));
    let shift = b.initializer(bias, Tensor::from_vec(&[4], vec![0.2f32; 4]));
    let second = b.initializer("fc2.weight", Tensor::from_vec(&[4, 2], vec![0.3f32; 8]));
    let side = b.initializer("side.weight", Tensor::from_vec(&[3, 2], vec![0.4f32; 6]));
    let hidden = b.op("MatMul", &[x, first], Attributes::none());
    let hidden = b.add(hidden, shift);
    let y = b.op("MatMul", &[hidden, second], Attributes::none());
    b.output(y, "y");
    let other = b.op("MatMul", &[x, side], Attributes::none());
    b.output(other, "z");
    let opsets = [(String::new(), 18)].into_iter().collect();
    prepare(&Analysis::of(&Model { graph: b.finish(), opsets, ir_version: 8, ..Model::default() })).unwrap()
}

fn options<'a>(
    loss: &'a LossSpec,
    optimizer: &'a OptimizerSpec,
    frozen: &[&'a str],
    rates: &[(&'a str, Rate)],
) -> PhaseOptions<'a> {
    let (frozen, rates) = (frozen.iter().copied().collect(), rates.iter().copied().collect());
    PhaseOptions { frozen, frozen_inputs: false, rates, loss, optimizer, output: None, seed: 0 }
}

fn sgd() -> (LossSpec, OptimizerSpec) {
    let optimizer = OptimizerSpec { lr: Some(0.5), momentum: Some(0.9), ..OptimizerSpec::new(OptimizerKind::Sgd) };
    (LossSpec::new(LossKind::Mse), optimizer)
}

/// Runs the update with gradients of 1 and slots of 0, and returns how far each element of the
/// parameters that train moves.
fn moves(step: &TrainStep, scales: Option<&[f32]>) -> Vec<(String, Vec<f64>)> {
    let optimizer = step.optimizer.as_ref().unwrap();
    let mut results = Vec::new();
    for mut engine in engines() {
        let mut feeds: Vec<(String, Tensor)> = vec![("lr".into(), Tensor::scalar(0.5f32))];
        feeds.extend(scales.map(|scales| ("lr_scale".to_string(), Tensor::from_vec(&[scales.len()], scales.to_vec()))));
        for (name, fact) in &step.passed {
            let shape = fact.sizes().unwrap();
            feeds.push((name.clone(), Tensor::float_full(DType::F32, &shape, 1.0)));
            feeds.push((name.strip_suffix(".grad").unwrap().into(), Tensor::float_full(DType::F32, &shape, 0.0)));
        }
        feeds.extend(step.slots.iter().map(|slot| (slot.name.clone(), slot.initial.clone())));
        let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let outputs = evaluate(engine.as_mut(), optimizer, &feeds).unwrap();
        let names = optimizer.graph.outputs().iter().map(|id| optimizer.graph.value_name(*id));
        let moved = names.zip(&outputs).filter_map(|(name, value)| {
            let own = name.strip_suffix(".next").filter(|own| step.trained.iter().any(|name| name == own))?;
            Some((own.to_string(), value.to_f64s().unwrap()))
        });
        results.push(moved.collect::<Vec<_>>());
    }
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{results:?}");
    results.remove(0)
}

fn all_are(moves: &[(String, Vec<f64>)], expected: &[(&str, f64)]) {
    let found: Vec<&str> = moves.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(found, expected.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    for ((name, moved), (_, expected)) in moves.iter().zip(expected) {
        assert!(moved.iter().all(|moved| moved == expected), "{name}: {moved:?}, expected {expected}");
    }
}

#[test]
fn rates_are_factors_of_those_of_the_groups() {
    let prepared = model("fc1.bias");
    let (loss, mut optimizer) = sgd();
    optimizer.groups = serde_json::from_str(r#"[{"parameters":["fc1.*"],"lr_scale":0.5}]"#).unwrap();
    let step = |frozen: &[&'static str], rates: &[(&'static str, Rate)]| {
        build(&prepared, &options(&loss, &optimizer, frozen, rates)).unwrap()
    };
    let plain = step(&[], &[]);
    assert_eq!((plain.lr_scales(), plain.contract.unused.as_slice()), (None, &["side.weight".to_string()][..]));
    let names = ["fc1.weight", "fc1.bias", "fc2.weight"];
    all_are(&moves(&plain, None), &[(names[0], -0.25), (names[1], -0.25), (names[2], -0.5)]);
    let fixed = step(&[], &[("fc1.bias", Rate::Fixed(0.25)), ("fc2.weight", Rate::Fixed(0.0))]);
    all_are(&moves(&fixed, None), &[(names[0], -0.25), (names[1], -0.0625), (names[2], 0.0)]);
    assert_eq!((fixed.lr_scales(), fixed.contract.lr_scale.len()), (None, 0));
    let rates = [
        ("fc1.weight", Rate::Varies(1)),
        ("fc1.bias", Rate::Varies(1)),
        ("fc2.weight", Rate::Fixed(2.0)),
        ("side.weight", Rate::Varies(3)),
    ];
    let varied = step(&[], &rates);
    assert_eq!(varied.lr_scales(), Some(4), "an element of a parameter that does not train counts");
    all_are(
        &moves(&varied, Some(&[9.0, 0.125, 9.0, 9.0])),
        &[(names[0], -0.03125), (names[1], -0.03125), (names[2], -1.0)],
    );
    let contract = serde_json::to_value(&varied.contract).unwrap();
    assert_eq!(contract["lr_scale"], serde_json::json!({"fc1.weight": 1, "fc1.bias": 1}));
    let port = &contract["optimizer"]["inputs"][1];
    assert_eq!(port, &serde_json::json!({"name": "lr_scale", "role": "lr-scale", "dtype": "float32", "shape": [4]}));
    let frozen = step(&["fc1.weight", "fc1.bias"], &rates);
    assert_eq!((frozen.lr_scales(), frozen.contract.lr_scale.len()), (None, 0), "nothing that trains varies");
    all_are(&moves(&frozen, None), &[(names[2], -1.0)]);
}

#[test]
fn graphs_without_rates_are_as_they_were() {
    let prepared = model("fc1.bias");
    let (loss, optimizer) = sgd();
    let bytes = |rates: &[(&'static str, Rate)]| {
        let step = build(&prepared, &options(&loss, &optimizer, &[], rates)).unwrap();
        (to_bytes(step.optimizer.as_ref().unwrap()), serde_json::to_string(&step.contract).unwrap())
    };
    let plain = bytes(&[]);
    assert_eq!(bytes(&[("fc1.bias", Rate::Fixed(1.0)), ("side.weight", Rate::Varies(0))]), plain);
    assert!(!plain.1.contains("scale"));
    let step = build(&prepared, &options(&loss, &optimizer, &[], &[])).unwrap();
    assert_eq!(dump(&step.optimizer.unwrap().graph), PLAIN);
}

const PLAIN: &str = "\
in  lr float32[]
in  fc1.weight float32[3,4]
in  fc1.weight.grad float32[3,4]
in  fc1.weight.momentum float32[3,4]
in  fc1.bias float32[4]
in  fc1.bias.grad float32[4]
in  fc1.bias.momentum float32[4]
in  fc2.weight float32[4,2]
in  fc2.weight.grad float32[4,2]
in  fc2.weight.momentum float32[4,2]
fc1.weight/update/Mul:0 = Mul(fc1.weight.momentum, fc1.weight/update/const)
fc1.weight.momentum.next = Add(fc1.weight/update/Mul:0, fc1.weight.grad)
fc1.weight/update/Mul_1:0 = Mul(fc1.weight.momentum.next, lr)
fc1.weight.next = Sub(fc1.weight, fc1.weight/update/Mul_1:0)
fc1.bias/update/Mul:0 = Mul(fc1.bias.momentum, fc1.bias/update/const)
fc1.bias.momentum.next = Add(fc1.bias/update/Mul:0, fc1.bias.grad)
fc1.bias/update/Mul_1:0 = Mul(fc1.bias.momentum.next, lr)
fc1.bias.next = Sub(fc1.bias, fc1.bias/update/Mul_1:0)
fc2.weight/update/Mul:0 = Mul(fc2.weight.momentum, fc2.weight/update/const)
fc2.weight.momentum.next = Add(fc2.weight/update/Mul:0, fc2.weight.grad)
fc2.weight/update/Mul_1:0 = Mul(fc2.weight.momentum.next, lr)
fc2.weight.next = Sub(fc2.weight, fc2.weight/update/Mul_1:0)
out fc1.weight.next float32[3,4]
out fc1.weight.momentum.next float32[3,4]
out fc1.bias.next float32[4]
out fc1.bias.momentum.next float32[4]
out fc2.weight.next float32[4,2]
out fc2.weight.momentum.next float32[4,2]
";

#[test]
fn wrong_rates_are_named() {
    let (loss, optimizer) = sgd();
    let error = |bias: &str, rates: &[(&'static str, Rate)]| {
        build(&model(bias), &options(&loss, &optimizer, &[], rates)).unwrap_err().to_string()
    };
    let expected = "\"lr_scale\" is a value of the model and the name of the factors of the learning rate in the \
                    training graphs";
    assert_eq!(error("lr_scale", &[("fc1.weight", Rate::Varies(0))]), expected);
    let fixed = [("fc1.weight", Rate::Fixed(0.5))];
    assert!(build(&model("lr_scale"), &options(&loss, &optimizer, &[], &fixed)).is_ok());
    let expected = "the learning rate of parameter \"fc1.weight\" needs a factor of at least 0, found -1";
    assert_eq!(error("fc1.bias", &[("fc1.weight", Rate::Fixed(-1.0))]), expected);
}

#[test]
fn training_information_holds_rates_that_do_not_vary() {
    let prepared = model("fc1.bias");
    let (loss, optimizer) = sgd();
    let written = |rates: &[(&'static str, Rate)]| {
        let options = options(&loss, &optimizer, &[], rates);
        let step = build(&prepared, &options).unwrap();
        training_info(&prepared.model, &prepared, &options, &step)
    };
    let momentum = |rates: &[(&'static str, Rate)]| {
        written(rates).unwrap().algorithm.nodes().iter().any(|node| node.op.name == "Momentum")
    };
    assert!(momentum(&[]) && momentum(&[("fc1.bias", Rate::Fixed(1.0))]));
    assert!(!momentum(&[("fc1.bias", Rate::Fixed(0.5))]));
    let error = written(&[("fc1.bias", Rate::Varies(0))]).err().unwrap();
    assert_eq!(
        error.to_string(),
        "parameter \"fc1.bias\" has a learning rate that is given with each step, which training information cannot hold"
    );
}

fn freeze_plan(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_freeze-plan")).args(args).output().unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The plan's factors of an epoch are constants of what `graph` writes.
#[test]
fn the_graphs_of_a_plan_have_its_rates() {
    let folder = tempfile::tempdir().unwrap();
    let (model, file, out) = (fixture("digits/model.onnx"), folder.path().join("plan.json"), folder.path().join("out"));
    let preview = freeze_plan(&[path(&model), "--format", "json", "--epochs", "3"]);
    let mut plan: serde_json::Value = serde_json::from_slice(&preview.stdout).unwrap();
    plan["epochs"][1]["lr_scale"] = serde_json::json!({"fc.weight": 0.125, "fc.bias": 1.0});
    std::fs::write(&file, plan.to_string()).unwrap();
    let args = ["graph", path(&model), "--out", path(&out), "--plan", path(&file), "--training-info", "--epoch"];
    let graph = |epoch: &str| {
        let output = freeze_plan(&[&args[..], &[epoch]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let optimizer = read(&out.join("optimizer.onnx")).unwrap().model.graph;
        let written = read(&out.join("training.onnx")).unwrap().training.remove(0);
        (dump(&optimizer), dump(&written.step))
    };
    let (plain, written) = graph("1");
    assert!(written.contains("Momentum"));
    let (scaled, algorithm) = graph("2");
    let rate = |dump: &str, name: &str| dump.contains(&format!("{name}/update/Mul:0 = Mul(lr, "));
    assert!(!rate(&plain, "fc.weight") && rate(&scaled, "fc.weight") && !rate(&scaled, "fc.bias"), "{scaled}");
    assert!(!algorithm.contains("Momentum") && rate(&algorithm, "fc.weight"), "{algorithm}");
    plan["epochs"][1]["lr_scale"] = serde_json::json!({"fc.weigth": 0.125});
    std::fs::write(&file, plan.to_string()).unwrap();
    let output = freeze_plan(&[&args[..], &["2"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("the plan scales the rate of \"fc.weigth\", which is no parameter of"), "{stderr}");
}
