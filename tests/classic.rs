//! Training artifacts that this program writes: through the commands, and in the training interface of ONNX Runtime
//! where its package is there.

use crate::engines::{fixture, onnxruntime};
use freeze_plan::artifacts::{Checkpoint, read_checkpoint};
use freeze_plan::data::read_tensors;
use freeze_plan::graph::Tensor;
use freeze_plan::losses::{LossKind, LossSpec};
use freeze_plan::optim::{OptimizerKind, OptimizerSpec};
use freeze_plan::planner::Analysis;
use freeze_plan::runner::evaluate;
use freeze_plan::training::{PhaseOptions, Port, Rates, Role, build, prepare};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// The variable that names a Python with `onnxruntime-training-cpu==1.19.2`; see `fixtures/classic/device.py`.
const PYTHON: &str = "FREEZE_PLAN_TRAINING_PYTHON";
const TOLERANCE: f64 = 2e-5;

fn run(args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_freeze-plan")).args(args).output().unwrap()
}

fn stdout(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn fails(args: &[&str], code: i32) -> String {
    let output = run(args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    text
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn find(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A model with a plan of three epochs in which the second one freezes something.
struct Case {
    model: &'static str,
    data: &'static str,
    columns: [&'static str; 2],
    batch: usize,
    /// How many units the second epoch freezes.
    units: usize,
    optimizer: &'static str,
    /// Settings of the optimizer, as a job has them.
    settings: &'static [(&'static str, &'static str)],
    keep: bool,
}

/// A residual network with BatchNormalization.
const DIGITS: Case = Case {
    model: "digits/model.onnx",
    data: "digits/eval.npz",
    columns: ["images", "labels"],
    batch: 36,
    units: 5,
    optimizer: "sgd",
    settings: &[("lr", "0.05")],
    keep: false,
};

const CASES: [Case; 4] = [
    Case {
        model: "freezing/mlp.onnx",
        data: "freezing/mlp.npz",
        columns: ["x", "labels"],
        batch: 4,
        units: 1,
        optimizer: "sgd",
        settings: &[("lr", "0.2"), ("clip_norm", "0.25")],
        keep: false,
    },
    Case {
        model: "freezing/mlp.onnx",
        data: "freezing/mlp.npz",
        columns: ["x", "labels"],
        batch: 4,
        units: 2,
        optimizer: "adamw",
        settings: &[("lr", "0.02"), ("weight_decay", "0.1"), ("clip_norm", "0.5")],
        keep: true,
    },
    Case {
        model: "parity/resnet8.onnx",
        data: "parity/resnet8.npz",
        columns: ["images", "labels"],
        batch: 4,
        units: 5,
        optimizer: "sgd",
        settings: &[("lr", "0.005")],
        keep: false,
    },
    Case {
        model: "digits_vit/model.onnx",
        data: "digits/eval.npz",
        columns: ["images", "labels"],
        batch: 36,
        units: 9,
        optimizer: "adamw",
        settings: &[("lr", "0.002")],
        keep: false,
    },
];

impl Case {
    /// Writes the artifacts of all phases.
    fn artifacts(&self, folder: &Path) {
        let steps = format!("steps=2:{},3:0", self.units);
        let model = fixture(self.model);
        let settings: Vec<String> = self.settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut args = vec!["graph", path(&model), "--classic", path(folder), "--epochs", "3", "--policy", "steps"];
        args.extend(["--set", &steps, "--optimizer", self.optimizer]);
        args.extend(settings.iter().flat_map(|setting| ["--optimizer-set", setting]));
        stdout(&args);
    }

    /// Writes the artifacts of the phase of an epoch, which go on from a checkpoint.
    fn onward(&self, folder: &Path, epoch: &str, from: &Path) {
        let model = fixture(self.model);
        let on_return = if self.keep { "keep" } else { "reset" };
        let args = ["graph", path(&model), "--classic", path(folder), "--epoch", epoch, "--from", path(from)];
        stdout(&[&args[..], &["--on-return", on_return]].concat());
    }

    /// Returns the losses of a run of ours, in the operators that the artifacts have, and its trained model.
    fn run(&self, folder: &Path) -> (Vec<f64>, std::path::PathBuf) {
        let settings: String = self.settings.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
        let job = format!(
            "model = {:?}\n[data]\ntrain = {:?}\ninputs = {{ x = \"{}\" }}\ntarget = \"{}\"\nbatch = {}\nshuffle = false\n\
             [loss]\nkind = \"cross-entropy\"\n[optimizer]\nkind = \"{}\"\n{settings}[freeze]\npolicy = \"steps\"\n\
             steps = [{{ epoch = 2, frozen = {} }}, {{ epoch = 3, frozen = 0 }}]\n\
             [run]\nepochs = 3\ndir = \"run\"\ndevice = \"cpu\"\nlog_every = 1\nceiling_steps = 0\n\
             operators = \"standard\"\n",
            fixture(self.model),
            fixture(self.data),
            self.columns[0],
            self.columns[1],
            self.batch,
            self.optimizer,
            self.units,
        );
        let file = folder.join("job.toml");
        std::fs::write(&file, job).unwrap();
        stdout(&["train", path(&file), "--quiet"]);
        let events = std::fs::read_to_string(folder.join("run/events.jsonl")).unwrap();
        let events = events.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let losses = events.filter(|e| e["event"] == "step").map(|e| e["loss"].as_f64().unwrap()).collect();
        (losses, folder.join("run/model.onnx"))
    }

    fn spec(&self) -> OptimizerSpec {
        let mut spec = OptimizerSpec::new(OptimizerKind::from_name(self.optimizer).unwrap());
        for (name, value) in self.settings {
            match *name {
                "lr" => spec.lr = value.parse().ok(),
                "weight_decay" => spec.weight_decay = value.parse().ok(),
                "clip_norm" => spec.clip_norm = value.parse().ok(),
                other => panic!("{other}"),
            }
        }
        spec
    }
}

#[test]
fn a_plan_becomes_one_folder_for_each_frozen_set() {
    let folder = tempfile::tempdir().unwrap();
    let case = &DIGITS;
    case.artifacts(folder.path());
    let phases = json(&folder.path().join("phases.json"));
    let plan = std::fs::read(folder.path().join("plan.json")).unwrap();
    assert_eq!(phases["plan"]["sha256"], freeze_plan::plan::sha256_hex(&plan));
    assert_eq!(phases["format"], "freeze-plan-phases/1");
    let [first, second] = [&phases["phases"][0], &phases["phases"][1]];
    let when = serde_json::json!([{ "first_epoch": 1, "last_epoch": 1 }, { "first_epoch": 3, "last_epoch": 3 }]);
    assert_eq!((&first["folder"], &first["when"]), (&serde_json::json!("epoch-0001"), &when));
    assert_eq!(second["folder"], "epoch-0002");
    let frozen: Vec<&str> = second["frozen"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(frozen.contains(&"conv1.weight") && !first["frozen"].to_string().contains("conv1.weight"));
    assert_eq!(phases["phases"].as_array().unwrap().len(), 2);
    let inputs: Vec<&str> = phases["inputs"].as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap()).collect();
    assert_eq!(inputs, ["x", "target"]);
    for (entry, count) in [(first, 20), (second, 13)] {
        let at = |name: &str| folder.path().join(entry["folder"].as_str().unwrap()).join(name);
        let checkpoint = read_checkpoint(&at("checkpoint")).unwrap();
        let trains: Vec<&str> = checkpoint.trains.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(serde_json::json!(trains), entry["trains"]);
        assert_eq!((trains.len(), checkpoint.frozen.len()), (count, 32 - count));
        for name in ["training_model.onnx", "eval_model.onnx", "optimizer_model.onnx"] {
            assert!(std::fs::metadata(at(name)).unwrap().len() > 100, "{name}");
        }
        let nominal = std::fs::read(at("nominal_checkpoint")).unwrap();
        assert!(nominal.len() < 3000 && trains.iter().all(|name| find(&nominal, name)), "{}", nominal.len());
        let text = read_checkpoint(&at("nominal_checkpoint")).unwrap_err().to_string();
        assert!(text.contains("it is a nominal checkpoint"), "{text}");
    }
    // The files are what other commands take for artifacts.
    let tree = stdout(&["tree", path(&folder.path().join("epoch-0002"))]);
    assert!(tree.contains("block2"), "{tree}");
    // The same again, of the values of a checkpoint.
    let start = folder.path().join("epoch-0001/checkpoint");
    let before = std::fs::read(folder.path().join("epoch-0002/checkpoint")).unwrap();
    let said = std::fs::read(folder.path().join("phases.json")).unwrap();
    case.onward(folder.path(), "2", &start);
    assert_eq!(std::fs::read(folder.path().join("epoch-0002/checkpoint")).unwrap(), before);
    assert_eq!(std::fs::read(folder.path().join("phases.json")).unwrap(), said, "loss, optimizer and plan are kept");
}

#[test]
fn weights_of_a_checkpoint_go_back_into_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("digits/model.onnx");
    DIGITS.artifacts(folder.path());
    let at = folder.path().join("epoch-0001");
    let restored = folder.path().join("restored.onnx");
    stdout(&["restore", path(&model), path(&at), "--output", path(&restored)]);
    assert!(std::fs::read(&restored).unwrap() == std::fs::read(&model).unwrap(), "untrained weights change no byte");
    let mut checkpoint = read_checkpoint(&at.join("checkpoint")).unwrap();
    let (name, tensor) = &mut checkpoint.trains[0];
    let (name, changed) = (name.clone(), Tensor::float_full(tensor.dtype(), tensor.shape(), 0.25));
    *tensor = changed.clone();
    let file = folder.path().join("trained");
    let write = |checkpoint: &Checkpoint| {
        std::fs::write(&file, freeze_plan::artifacts::encode_checkpoint(checkpoint).bytes).unwrap();
    };
    write(&checkpoint);
    stdout(&["restore", path(&model), path(&file), "--output", path(&restored)]);
    let [old, new] = [&model, &restored].map(|path| freeze_plan::onnx::read(path).unwrap().model);
    let nodes = |model: &freeze_plan::graph::Model| format!("{:?}", model.graph.nodes());
    assert_eq!(nodes(&old), nodes(&new));
    for ((_, old, before), (_, value, after)) in old.graph.initializers().zip(new.graph.initializers()) {
        assert_eq!(old.name, value.name);
        assert!(after == if value.name == name { &changed } else { before }, "{}", value.name);
    }
    let other = fixture("freezing/mlp.onnx");
    let text = fails(&["restore", path(&other), path(&file), "--output", path(&restored)], 1);
    assert!(text.contains("which is no parameter of the model"), "{text}");
    checkpoint.trains.remove(0);
    write(&checkpoint);
    let text = fails(&["restore", path(&model), path(&file), "--output", path(&restored)], 1);
    assert!(text.contains(&format!("holds no \"{name}\"")), "{text}");
}

#[test]
fn what_artifacts_cannot_hold_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (fixture("digits/model.onnx"), folder.path().join("out"));
    let args =
        |more: &[&'static str]| [&["graph", path(&model), "--classic", path(&out), "--epochs", "4"], more].concat();
    let cases: [(&[&str], i32, &str); 9] = [
        (&["--optimizer", "lion"], 3, "the optimizer lion cannot be held"),
        (&["--optimizer", "sgd", "--optimizer-set", "momentum=0.9"], 3, "sgd with momentum cannot be held"),
        (&["--optimizer-set", "speed=1"], 2, "unknown field `speed`"),
        (&["--policy", "thaw"], 3, "training artifacts have one learning rate for all parameters"),
        (&["--policy", "thaw"], 3, "--set decay=1"),
        (&["--epoch", "9"], 2, "the plan has epochs 1 to 4"),
        (&["--freeze", "*"], 2, "no epoch in which something trains"),
        (&["--from", "nowhere"], 2, "--epoch"),
        (&["--epoch", "1", "--from", "Cargo.toml"], 1, "it is no checkpoint"),
    ];
    for (more, code, expected) in cases {
        let text = fails(&args(more), code);
        assert!(text.contains(expected), "{more:?}: {text}");
    }
    assert!(!out.join("phases.json").exists());
}

#[test]
fn what_a_plan_cannot_know_of_a_device_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (fixture("digits/model.onnx"), folder.path().join("out"));
    let args = ["graph", path(&model), "--classic", path(&out), "--epochs", "3"];
    let cases: [(&[&str], Option<&str>); 4] = [
        (&["gradient"], Some("decides by what a run measures")),
        (&["linear"], None),
        (&["svcca-linear"], Some("acts within epochs too: without --steps")),
        (&["svcca-linear", "--steps", "7"], None),
    ];
    for (policy, expected) in cases {
        let output = run(&[&args[..], &["--policy"], policy].concat());
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        let note = told.lines().find_map(|line| line.strip_prefix("note: "));
        match expected {
            Some(expected) => assert!(note.is_some_and(|note| note.contains(expected)), "{policy:?}: {told}"),
            None => assert_eq!(note, None, "{policy:?}"),
        }
    }
}

/// Returns the loss of our own eval graph on the first batch, with the weights of a checkpoint.
fn eval_loss(case: &Case, checkpoint: &Checkpoint) -> f64 {
    let prepared = prepare(&Analysis::of(&freeze_plan::onnx::read(&fixture(case.model)).unwrap().model)).unwrap();
    let model = freeze_plan::training::eval(&prepared, &LossSpec::new(LossKind::CrossEntropy), None).unwrap();
    let rows: BTreeMap<String, Tensor> = read_tensors(&fixture(case.data), None).unwrap().into_iter().collect();
    let mut state: BTreeMap<String, Tensor> = checkpoint.trains.iter().chain(&checkpoint.frozen).cloned().collect();
    for (input, column) in ["x", "target"].into_iter().zip(case.columns) {
        state.insert(input.into(), part(&rows[column], 0, case.batch));
    }
    let names = model.graph.inputs().iter().map(|id| model.graph.value_name(*id));
    let feeds: Vec<(&str, &Tensor)> = names.map(|name| (name, &state[name])).collect();
    evaluate(&mut onnxruntime(), &model, &feeds).unwrap()[0].to_f64s().unwrap()[0]
}

/// Returns the losses of our own graphs of a model in which nothing is frozen, from the state of a checkpoint on.
fn losses_from(case: &Case, checkpoint: &Checkpoint) -> Vec<f64> {
    let spec = case.spec();
    let prepared = prepare(&Analysis::of(&freeze_plan::onnx::read(&fixture(case.model)).unwrap().model)).unwrap();
    let options = PhaseOptions {
        frozen: Default::default(),
        frozen_inputs: true,
        rates: Rates::new(),
        loss: &LossSpec::new(LossKind::CrossEntropy),
        optimizer: &spec,
        output: None,
        seed: 0,
    };
    let step = build(&prepared, &options).unwrap();
    let group = &checkpoint.optimizer[0];
    let mut state: BTreeMap<String, Tensor> = checkpoint.trains.iter().chain(&checkpoint.frozen).cloned().collect();
    for (name, moments) in &group.moments {
        let names = ["exp_avg", "exp_avg_sq"].map(|slot| format!("{name}.{slot}"));
        state.extend(names.into_iter().zip(moments.iter().map(|(_, tensor)| tensor.clone())));
        state.insert(format!("{name}.step"), Tensor::scalar(group.step as f32));
    }
    state.insert("lr".into(), Tensor::scalar(spec.lr() as f32));
    let count = state.get("freeze_plan.batches").map_or(0, |count| count.to_f64s().unwrap()[0] as i64);
    let rows: BTreeMap<String, Tensor> = read_tensors(&fixture(case.data), None).unwrap().into_iter().collect();
    let mut engine = onnxruntime();
    let (train, update) = (&step.train, step.optimizer.as_ref().unwrap());
    let mut losses = Vec::new();
    for index in 0..rows[case.columns[1]].shape()[0] / case.batch {
        for (input, column) in ["x", "target"].into_iter().zip(case.columns) {
            state.insert(input.into(), part(&rows[column], index * case.batch, case.batch));
        }
        state.insert("step".into(), Tensor::scalar(count + 1 + index as i64));
        for (model, ports) in [(train, &step.contract.train), (update, &step.contract.optimizer)] {
            let feeds: Vec<(&str, &Tensor)> = ports.inputs.iter().map(|p| (p.name.as_str(), &state[&p.name])).collect();
            let outputs = evaluate(&mut engine, model, &feeds).unwrap();
            let named = |port: &Port| port.name.strip_suffix(".next").unwrap_or(&port.name).to_string();
            let made = ports.outputs.iter().zip(outputs).filter(|(port, _)| port.role != Role::Output);
            state.extend(made.map(|(port, tensor)| (named(port), tensor)));
        }
        losses.push(state["loss"].to_f64s().unwrap()[0]);
    }
    losses
}

fn part(column: &Tensor, from: usize, rows: usize) -> Tensor {
    let row = column.bytes().len() / column.shape()[0];
    let shape = [&[rows], &column.shape()[1..]].concat();
    Tensor::new(column.dtype(), shape, column.bytes().slice(from * row..(from + rows) * row)).unwrap()
}

/// Trains artifacts in the training interface; returns its losses. Its eval step gives what ours gives.
fn device(python: &str, case: &Case, artifacts: &Path, save: &Path) -> Vec<f64> {
    let begun = artifacts.join("checkpoint");
    trains(python, case, artifacts, save, &begun, serde_json::json!({}))
}

/// The same from the nominal checkpoint, with the parameters of artifacts and a checkpoint of them.
fn device_alone(python: &str, case: &Case, artifacts: &Path, save: &Path, from: (&Path, &Path)) -> Vec<f64> {
    let more = serde_json::json!({
        "checkpoint": artifacts.join("nominal_checkpoint"), "carry": { "artifacts": from.0, "checkpoint": from.1 },
    });
    trains(python, case, artifacts, save, from.1, more)
}

fn trains(python: &str, case: &Case, artifacts: &Path, save: &Path, begun: &Path, more: serde_json::Value) -> Vec<f64> {
    let begun = read_checkpoint(begun).unwrap();
    let rate: f64 = case.settings.iter().find(|(name, _)| *name == "lr").unwrap().1.parse().unwrap();
    let mut request = serde_json::json!({
        "artifacts": artifacts, "rows": fixture(case.data), "columns": case.columns, "batch": case.batch,
        "rate": rate, "save": save,
    });
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let file = save.with_extension("json");
    std::fs::write(&file, request.to_string()).unwrap();
    let output = Command::new(python).arg(fixture("classic/device.py")).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for (when, checkpoint) in [("before", begun), ("after", read_checkpoint(save).unwrap())] {
        near(
            &[said[when].as_f64().unwrap()],
            &[eval_loss(case, &checkpoint)],
            &format!("{} {when} training", case.model),
        );
    }
    said["losses"].as_array().unwrap().iter().map(|loss| loss.as_f64().unwrap()).collect()
}

/// Returns the largest difference of elements; of large ones relative to the largest.
fn difference(found: &Tensor, expected: &Tensor) -> f64 {
    let (Some(found), Some(expected)) = (found.to_f64s(), expected.to_f64s()) else { return 0.0 };
    let size = expected.iter().fold(1_f64, |size, value| size.max(value.abs()));
    found.iter().zip(&expected).fold(0_f64, |worst, (a, b)| worst.max((a - b).abs())) / size
}

fn near(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (step, (found, expected)) in found.iter().zip(expected).enumerate() {
        let off = (found - expected).abs() / expected.abs().max(1.0);
        assert!(off < TOLERANCE, "{what}: the loss of step {} is {found}, expected {expected}", step + 1);
    }
}

#[test]
fn a_device_trains_as_we_do_through_a_freeze_and_back() {
    let Ok(python) = std::env::var(PYTHON) else {
        eprintln!("skipped: {PYTHON} does not name a Python with onnxruntime-training-cpu 1.19.2");
        return;
    };
    for case in &CASES {
        let what = format!("{} with {}", case.model, case.optimizer);
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (ours, trained) = case.run(folder.path());
        let epochs: Vec<&[f64]> = ours.chunks(ours.len() / 3).collect();
        case.artifacts(folder.path());
        let first = device(&python, case, &at("epoch-0001"), &at("first"));
        near(&first, epochs[0], &format!("{what}, epoch 1"));
        case.onward(folder.path(), "2", &at("first"));
        let second = device(&python, case, &at("epoch-0002"), &at("second"));
        near(&second, epochs[1], &format!("{what}, frozen in epoch 2"));
        if case.optimizer == "sgd" {
            // Without this program: SGD has no state but the weights.
            let from = (at("epoch-0001"), at("first"));
            let alone = device_alone(&python, case, &at("epoch-0002"), &at("alone"), (&from.0, &from.1));
            near(&alone, epochs[1], &format!("{what}, frozen in epoch 2 from a buffer"));
        }
        let [first, second] = [at("first"), at("second")].map(|path| read_checkpoint(&path).unwrap());
        for (name, tensor) in
            second.frozen.iter().filter(|(name, _)| first.trains.iter().any(|(known, _)| known == name))
        {
            assert!(first.parameter(name) == Some(tensor), "{what}: {name} is frozen and moved");
        }
        case.onward(folder.path(), "3", &at("second"));
        let begun = read_checkpoint(&at("epoch-0001/checkpoint")).unwrap();
        let third = device(&python, case, &at("epoch-0001"), &at("third"));
        let restored = at("restored.onnx");
        stdout(&["restore", path(&fixture(case.model)), path(&at("third")), "--output", path(&restored)]);
        if case.optimizer == "sgd" {
            near(&third, epochs[2], &format!("{what}, all again in epoch 3"));
            let [found, expected] =
                [&restored, &trained].map(|path| freeze_plan::onnx::read(path).unwrap().model.graph);
            for (_, value, expected) in expected.initializers() {
                let found = found.value(found.find(&value.name).unwrap()).initializer.as_ref().unwrap();
                let off = difference(found, expected);
                assert!(off < 2e-6, "{what}: {} ends {off:.1e} off", value.name);
            }
        } else {
            // One count of steps for all: our run has one for each parameter.
            near(&third, &losses_from(case, &begun), &format!("{what}, all again in epoch 3"));
        }
    }
}
