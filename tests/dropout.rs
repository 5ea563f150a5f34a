//! Dropout that an export left in inference form, on the command line and in a job.

use crate::engines::fixture;
use freeze_plan::graph::Graph;
use freeze_plan::onnx::read;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_freeze-plan")).args(args).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Writes a model whose Dropout of ratio 0.3 is in inference form.
fn inference_form(folder: &Path) -> PathBuf {
    let file = read(&fixture("exports/dropout.torchscript_train.onnx")).unwrap();
    let edits = freeze_plan::training::trained_edits(&file.model.graph, &BTreeMap::new());
    let path = folder.join("model.onnx");
    std::fs::write(&path, file.rewrite(&edits).unwrap()).unwrap();
    let node = read(&path).unwrap().model.graph.nodes().last().unwrap().clone();
    assert!(node.op.is("Dropout") && node.input(2).is_none());
    path
}

/// Returns the ratio below which each random mask drops an element.
fn ratios(graph: &Graph) -> Vec<f64> {
    let masks = graph.nodes().iter().filter(|node| node.op.is("Less"));
    let least = masks.map(|node| graph.constant(node.input(1).unwrap()).unwrap().to_ints().unwrap()[0]);
    least.map(|least| least as f64 / 2f64.powi(32)).collect()
}

#[test]
fn graphs_have_the_dropout_that_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let model = inference_form(folder.path());
    let out = folder.path().join("out");
    let cases: [(&[&str], &[f64]); 4] = [
        (&[], &[]),
        (&["--dropout", "as-exported"], &[]),
        (&["--dropout", "on"], &[f64::from(0.3f32)]),
        (&["--dropout", "0.5"], &[0.5]),
    ];
    for (options, expected) in cases {
        let args = [&["graph", text(&model), "--out", text(&out), "--loss", "mse"], options].concat();
        let output = run(&args);
        assert!(output.status.success(), "{options:?}: {}", String::from_utf8_lossy(&output.stderr));
        let graph = |name: &str| read(&out.join(name)).unwrap().model.graph;
        let (train, eval) = (graph("train.onnx"), graph("eval.onnx"));
        let found = ratios(&train);
        assert_eq!(found.len(), expected.len(), "{options:?}");
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{options:?}: {found:?}");
        assert_eq!(train.find("step").is_some(), !expected.is_empty(), "{options:?}: masks follow the step");
        assert!(ratios(&eval).is_empty() && eval.find("step").is_none(), "{options:?}: inference is without");
    }
}

#[test]
fn dropout_that_the_export_removed_is_an_error_with_the_flags_that_keep_it() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("exports/dropout.torchscript.onnx");
    let output = run(&["graph", text(&model), "--out", text(folder.path()), "--loss", "mse", "--dropout", "on"]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{message}");
    assert!(message.contains("the model has no Dropout node"), "{message}");
    assert!(message.contains("optimize=False") && message.contains("TrainingMode.PRESERVE"), "{message}");
    let output = run(&["graph", text(&model), "--out", text(folder.path()), "--dropout", "1.5"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--dropout: expected a ratio in [0, 1), found 1.5"));
}

/// Returns a job of three epochs of one batch at rate 0: only the masks differ from step to step.
fn job(folder: &Path, dropout: &str) -> PathBuf {
    let artifacts = fixture("classic/convnet");
    let job = format!(
        "model = {artifacts:?}\n{dropout}\n[data]\ntrain = {:?}\ninputs = {{ x = \"input.x\" }}\n\
         target = \"target\"\nbatch = 8\nshuffle = false\n[optimizer]\nkind = \"sgd\"\nlr = 0.0\n\
         [freeze]\npolicy = \"none\"\n[run]\nepochs = 3\ndir = \"run\"\nlog_every = 1\n",
        artifacts.join("oracle.npz"),
    );
    let file = folder.join("job.toml");
    std::fs::write(&file, job).unwrap();
    file
}

#[test]
fn masks_differ_from_step_to_step_unless_the_ratio_is_0() {
    for (dropout, random) in [("", true), ("dropout = \"on\"", true), ("dropout = 0.5", true), ("dropout = 0", false)] {
        let folder = tempfile::tempdir().unwrap();
        let output = run(&["train", text(&job(folder.path(), dropout)), "--no-plan"]);
        assert!(output.status.success(), "{dropout}: {}", String::from_utf8_lossy(&output.stderr));
        let events = std::fs::read_to_string(folder.path().join("run/events.jsonl")).unwrap();
        let events = events.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let losses: Vec<f64> = events.filter(|e| e["event"] == "step").map(|e| e["loss"].as_f64().unwrap()).collect();
        assert_eq!(losses.len(), 3);
        let differ = losses[0] != losses[1] && losses[1] != losses[2];
        assert_eq!(differ, random, "{dropout}: {losses:?}");
        let resolved = std::fs::read_to_string(folder.path().join("run/job.toml")).unwrap();
        let expected = ["dropout = \"as-exported\"", "dropout = 0.0", dropout];
        assert!(expected.iter().any(|line| !line.is_empty() && resolved.contains(line)), "{resolved}");
        let trained = read(&folder.path().join("run/model.onnx")).unwrap().model.graph;
        let dropout = trained.nodes().iter().find(|node| node.op.is("Dropout")).unwrap();
        assert!(dropout.input(2).is_none(), "the trained model is in inference form");
    }
}

#[test]
fn a_job_refuses_other_values_with_key_and_line() {
    let folder = tempfile::tempdir().unwrap();
    for (dropout, words) in [
        ("dropout = \"onn\"", "key `dropout` at line 2: unknown value \"onn\", did you mean \"on\"?"),
        ("dropout = 1.0", "key `dropout` at line 2: expected a ratio in [0, 1), found 1"),
        ("dropout = true", "key `dropout` at line 2: expected \"as-exported\", \"on\" or a ratio in [0, 1), found"),
    ] {
        let output = run(&["train", text(&job(folder.path(), dropout))]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn a_vision_transformer_trains_with_its_dropout_while_blocks_freeze() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("run");
    let sets = [format!("run.dir={}", text(&dir)), "run.epochs=2".into(), "freeze.freeze_start=0".into()];
    let job = fixture("digits_vit/job.toml");
    let mut args = vec!["train", text(&job), "--no-plan"];
    args.extend(sets.iter().flat_map(|set| ["--set", set]));
    let output = run(&args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let plan = json(&std::fs::read_to_string(dir.join("plan.json")).unwrap());
    assert_eq!((&plan["epochs"][0]["frozen_units"], &plan["epochs"][1]["frozen_units"]), (&0.into(), &13.into()));
    let events = std::fs::read_to_string(dir.join("events.jsonl")).unwrap();
    let accuracy = json(events.lines().last().unwrap())["metrics"]["accuracy"].as_f64().unwrap();
    assert!(accuracy > 0.3, "two epochs give {accuracy}, chance is 0.1");
    let random = |file: &Path| {
        let graph = read(file).unwrap().model.graph;
        graph.nodes().iter().filter(|node| node.op.is("Dropout")).map(|node| node.input(2).is_some()).collect()
    };
    let (before, after): (Vec<bool>, Vec<bool>) =
        (random(&fixture("digits_vit/model.onnx")), random(&dir.join("model.onnx")));
    assert_eq!((before, after), (vec![true; 8], vec![false; 8]));
}
