//! Training artifacts of ONNX Runtime, against what its own training package makes of them.

use crate::engines::{deviation, fixture, golden, onnxruntime};
use freeze_plan::artifacts::{Artifacts, find, read};
use freeze_plan::data::read_tensors;
use freeze_plan::graph::Tensor;
use freeze_plan::training::trained_edits;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

const CASES: [&str; 5] = ["mlp", "convnet", "frozen", "norm", "gate"];
const TOLERANCE: f64 = 1e-5;

fn artifacts(name: &str) -> Artifacts {
    read(&find(&fixture("classic").join(name)).unwrap().unwrap()).unwrap()
}

fn tensors(name: &str, file: &str) -> BTreeMap<String, Tensor> {
    read_tensors(&fixture("classic").join(name).join(file), None).unwrap().into_iter().collect()
}

fn names(value: &serde_json::Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_string()).collect()
}

#[test]
fn the_recovered_model_gives_what_the_plain_model_gives() {
    let mut engine = onnxruntime();
    for (name, with_eval) in CASES.iter().flat_map(|name| [(*name, true), (*name, false)]) {
        let mut files = find(&fixture("classic").join(name)).unwrap().unwrap();
        files.eval = files.eval.filter(|_| with_eval);
        let file = read(&files).unwrap().to_file();
        let random = file.model.graph.nodes().iter().filter(|node| node.op.is("Dropout") && node.input(2).is_some());
        assert_eq!(random.count(), usize::from(name == "convnet"), "{name}: Dropout trains as it did");
        let oracle = tensors(name, "oracle.npz");
        let inputs = file.model.graph.inputs().iter().map(|id| file.model.graph.value_name(*id));
        let feeds: Vec<(&str, &Tensor)> = inputs.map(|input| (input, &oracle[&format!("input.{input}")])).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plain.onnx");
        let untrained = trained_edits(&file.model.graph, &BTreeMap::new());
        std::fs::write(&path, file.rewrite(&untrained).unwrap()).unwrap();
        let plain = freeze_plan::onnx::read(&path).unwrap().model;
        let found = freeze_plan::runner::evaluate(&mut engine, &plain, &feeds).unwrap();
        assert_eq!(found.len(), 1, "{name}: the loss is gone");
        let off = deviation(&found[0], &oracle["output"]);
        assert!(off < TOLERANCE, "{name}: off by {off:.1e}");
    }
}

#[test]
fn parameters_are_those_of_the_checkpoint_bit_for_bit() {
    let cases = golden("classic/cases.json");
    for name in CASES {
        let (case, found) = (&cases[name], artifacts(name));
        let values = tensors(name, "values.npz");
        let graph = &found.model.graph;
        for (parameter, expected) in &values {
            let id = graph.find(parameter).unwrap_or_else(|| panic!("{name}: {parameter} is lost"));
            assert!(graph.value(id).initializer.as_ref() == Some(expected), "{name}: {parameter} has another value");
        }
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names
        };
        let trains = found.checkpoint.trains.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(sorted(trains), names(&case["trains"]), "{name}");
        assert_eq!(sorted(found.frozen()), names(&case["frozen"]), "{name}");
        let analysis = freeze_plan::planner::Analysis::of(&found.model);
        let trainable = analysis.trainable().into_iter().map(str::to_string).collect();
        assert_eq!(sorted(trainable), sorted([names(&case["trains"]), names(&case["frozen"])].concat()), "{name}");
        let nodes: Vec<String> = graph.nodes().iter().map(|node| node.op.to_string()).collect();
        // The forward part of "norm" comes from the training model, where Gelu was fused.
        let same = nodes == names(&case["nodes"]) || name == "norm" && nodes.contains(&"Erf".into());
        assert!(
            same && !nodes.iter().any(|op| op.contains('.')),
            "{name}: the nodes are those of the plain model: {nodes:?}"
        );
        assert_eq!(graph.value_name(graph.outputs()[0]), case["output"], "{name}");
        assert_eq!(found.model.opset(), case["opset"].as_i64().unwrap(), "{name}");
        let loss = found.loss.unwrap();
        let kinds = [
            ("MSELoss", "mse"),
            ("CrossEntropyLoss", "cross-entropy"),
            ("L1Loss", "l1"),
            ("BCEWithLogitsLoss", "binary-cross-entropy"),
        ];
        let expected = kinds.iter().find(|(theirs, _)| case["loss"] == *theirs).unwrap().1;
        assert_eq!((loss.spec.kind.name(), loss.prediction.as_str()), (expected, case["output"].as_str().unwrap()));
        let steps = found.checkpoint.optimizer.first().map_or(0, |group| group.step);
        assert_eq!(steps, case["steps_before"].as_i64().unwrap(), "{name}");
    }
}

#[test]
fn ten_steps_give_the_losses_of_its_own_training_session() {
    let cases = golden("classic/cases.json");
    for (name, input) in [("mlp", "x"), ("frozen", "x")] {
        let (case, oracle) = (&cases[name], tensors(name, "oracle.npz"));
        let folder = tempfile::tempdir().unwrap();
        let artifacts = fixture("classic").join(name);
        let job = format!(
            "model = {artifacts:?}\n[data]\ntrain = {:?}\ninputs = {{ {input} = \"steps.{input}\" }}\n\
             target = \"steps.target\"\nbatch = {}\nshuffle = false\n[freeze]\npolicy = \"none\"\n\
             [run]\nepochs = 1\ndir = \"run\"\nlog_every = 1\n",
            artifacts.join("oracle.npz"),
            case["rows"],
        );
        let file = folder.path().join("job.toml");
        std::fs::write(&file, job).unwrap();
        let rate = format!("optimizer.lr={}", case["rate"]);
        let output = run(&["train", file.to_str().unwrap(), "--set", &rate]);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let events = std::fs::read_to_string(folder.path().join("run/events.jsonl")).unwrap();
        let events = events.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let losses: Vec<f64> = events.filter(|e| e["event"] == "step").map(|e| e["loss"].as_f64().unwrap()).collect();
        let expected = oracle["losses"].to_f64s().unwrap();
        assert_eq!(losses.len(), expected.len());
        for (step, (found, expected)) in losses.iter().zip(&expected).enumerate() {
            let off = (found - expected).abs();
            assert!(off < TOLERANCE, "{name}: the loss of step {} is {found}, its session has {expected}", step + 1);
        }
        let trained = freeze_plan::onnx::read(&folder.path().join("run/model.onnx")).unwrap().model.graph;
        // The runtime's own statistics take the biased variance, PyTorch's and ours the unbiased one.
        let biased = |name: &str| name.ends_with("running_var");
        for (name, expected) in oracle.iter().filter_map(|(name, t)| Some((name.strip_prefix("after.")?, t))) {
            let found = trained.value(trained.find(name).unwrap()).initializer.as_ref().unwrap();
            let off = deviation(found, expected);
            assert!(off < 1e-4 || biased(name), "{name} ends {off:.1e} off");
        }
    }
}

fn run(args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_freeze-plan")).args(args).output().unwrap()
}

fn stdout(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).replace("\n  ", " ")
}

#[test]
fn commands_take_a_folder_and_any_of_its_files() {
    let folder = fixture("classic/frozen");
    let shown = stdout(&[folder.to_str().unwrap()]);
    assert!(shown.contains("loss cross-entropy of \"logits\" against \"labels\""), "{shown}");
    assert!(shown.contains("the checkpoint keeps stem.conv.weight, stem.conv.bias frozen"), "{shown}");
    assert!(shown.contains("eps 1e-8") && shown.contains("weight_decay 0.05"), "{shown}");
    for file in ["tiny_training_model.onnx", "tiny_eval_model.onnx", "tiny_optimizer_model.onnx", "tiny_checkpoint"] {
        assert_eq!(stdout(&[folder.join(file).to_str().unwrap()]), shown, "{file}");
    }
    let json = |more: &[&str]| -> serde_json::Value {
        let args = [&[folder.to_str().unwrap(), "--format", "json"], more].concat();
        serde_json::from_str(&stdout(&args)).unwrap()
    };
    assert_eq!(json(&[])["epochs"][0]["frozen"], serde_json::json!(["stem.conv.weight", "stem.conv.bias"]));
    assert_eq!(json(&["--keep", "stem.*"])["epochs"][0]["frozen"], serde_json::json!([]));
    assert_eq!(json(&["--keep", "*.bias"])["epochs"][0]["frozen"], serde_json::json!(["stem.conv.weight"]));
    let tree = stdout(&["tree", folder.to_str().unwrap()]);
    assert!(tree.contains("running_var float32[4] 4 statistic"), "{tree}");
}

#[test]
fn graphs_take_loss_and_frozen_list_from_the_files() {
    let out = tempfile::tempdir().unwrap();
    let at = |path: &Path| path.to_str().unwrap().to_string();
    stdout(&["graph", &at(&fixture("classic/frozen")), "--out", &at(out.path()), "--optimizer", "adamw"]);
    let text = std::fs::read_to_string(out.path().join("contract.json")).unwrap();
    let contract: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(contract["frozen"], serde_json::json!(["stem.conv.weight", "stem.conv.bias"]));
    stdout(&["graph", &at(&fixture("classic/gate")), "--out", &at(out.path())]);
    let train = freeze_plan::onnx::read(&out.path().join("train.onnx")).unwrap().model.graph;
    assert!(train.find("left").is_some() && train.find("target").is_some());
}

#[test]
fn incomplete_artifacts_are_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let fails = |path: &str| {
        let output = run(&[path]);
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.lines().count() == 1 && !text.contains("panicked"), "{text}");
        text
    };
    assert!(fails(&at("")).contains("is a folder without a training_model.onnx"));
    let copy = |from: &str, to: &str| std::fs::copy(fixture("classic").join(from), at(to)).unwrap();
    copy("mlp/training_model.onnx", "a_training_model.onnx");
    assert!(fails(&at("")).contains("a_checkpoint is missing"));
    assert!(fails(&at("a_training_model.onnx")).contains("a_checkpoint is missing"));
    copy("convnet/checkpoint", "a_checkpoint");
    assert!(fails(&at("")).contains("trains \"fc1.weight\""), "parameters of another model");
    copy("mlp/training_model.onnx", "b_training_model.onnx");
    assert!(fails(&at("")).contains("several training models: a_training_model.onnx, b_training_model.onnx"));
}
