//! Training information of the ONNX standard: read, run against an oracle in Python, written.

use crate::engines::{engines, fixture, golden};
use freeze_plan::data::{self, BatchOptions, Batches, Dataset, LastBatch, Sampler, Wanted};
use freeze_plan::graph::{Attributes, Builder, DType, Dim, Fact, Model, Tensor};
use freeze_plan::onnx::read;
use freeze_plan::plan::{FreezePlan, PlanOptions, segments};
use freeze_plan::planner::{self, Analysis, Request};
use freeze_plan::runner::{Engine, Run, RunEvent, Schedule, Setup};
use freeze_plan::training::stage::{self, StageOptions};
use freeze_plan::training::{Objective, names};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::AtomicBool;

const MODELS: [&str; 6] = ["mlp_adam", "conv_nesterov", "mlp_adagrad", "rate_of_time", "three_gradients", "of_hidden"];

/// Relative to the largest element; float32 against float64 over 24 steps.
const TOLERANCE: f64 = 1e-5;

struct Result {
    losses: Vec<f64>,
    rates: Vec<Option<f64>>,
    state: BTreeMap<String, Tensor>,
}

fn list(value: &serde_json::Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
}

fn numbers(value: &serde_json::Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|item| item.as_f64().unwrap()).collect()
}

/// A plan that freezes `frozen` from an epoch on.
fn plan(
    file: &freeze_plan::onnx::OnnxFile,
    analysis: &Analysis,
    golden: &serde_json::Value,
    freezing: bool,
) -> FreezePlan {
    let options = PlanOptions { policy: "none".into(), ..PlanOptions::default() };
    let epochs = golden["epochs"].as_u64().unwrap() as usize;
    let request = Request {
        epochs,
        steps_per_epoch: 0,
        options: &options,
        slots: 1,
        own_slots: Default::default(),
        sizes: HashMap::from([("N".into(), 8)]),
    };
    let mut plan = planner::plan(file, analysis, &request).unwrap();
    if freezing {
        let from = golden["freeze_from"].as_u64().unwrap() as usize;
        for epoch in plan.epochs.iter_mut().filter(|epoch| epoch.epoch >= from) {
            epoch.frozen = list(&golden["frozen"]).into_iter().map(str::to_string).collect();
        }
    }
    plan
}

fn train(name: &str, engine: &mut dyn Engine, golden: &serde_json::Value, freezing: bool) -> Result {
    let file = read(&fixture(&format!("training_info/{name}.onnx"))).unwrap();
    let analysis = Analysis::as_written(&file.model);
    let (prepared, stage) = stage::prepare(&file, &analysis, 1).unwrap();
    assert_eq!(stage.slots_per_parameter(), golden["slots"].as_u64().unwrap(), "{name}");
    let plan = plan(&file, &analysis, golden, freezing);
    let dataset = Dataset::open(&fixture(&format!("training_info/{name}.npz")), &Default::default(), None).unwrap();
    let graph = &prepared.model.graph;
    let wanted = stage.inputs(graph).into_iter().map(|id| {
        let input = graph.value_name(id).to_string();
        let column = match (&stage.target, input.as_str()) {
            (Some(target), names::TARGET) => target.clone(),
            _ => input.clone(),
        };
        Wanted { column, input, fact: graph.fact(id).clone() }
    });
    let wanted: Vec<Wanted> = wanted.collect();
    let size = golden["batch"].as_u64().unwrap() as usize;
    let options = BatchOptions { size, seed: 0, sampler: Sampler::Sequential, last_batch: LastBatch::Keep };
    let batches = Batches::new(data::check(&dataset, &wanted).unwrap(), options).unwrap();
    let setup = Setup {
        prepared: &prepared,
        freezing: freeze_plan::runner::Freezing::of(&plan),
        objective: Objective::Stage { stage: &stage, lr: None },
        schedule: &Schedule::default(),
        evaluation: &Default::default(),
        train: &batches,
        eval: Some(&batches),
        loading: None,
        checkpoints: None,
        resume: None,
        seed: 0,
        recompute: &freeze_plan::training::Recompute::None,
        log_every: 1,
        accumulate: 1,
        nonfinite: Default::default(),
        ema: None,
        operators: freeze_plan::runner::Operators::Own,
        computing: Default::default(),
    };
    let (mut losses, mut rates) = (Vec::new(), Vec::new());
    let mut report = |event: RunEvent| {
        if let RunEvent::Step { loss, lr, .. } = event {
            losses.push(loss);
            rates.push(lr);
        }
    };
    let stop = AtomicBool::new(false);
    let mut run = Run::new(engine, &setup, &mut report).unwrap();
    for segment in segments(&plan) {
        let before = run.state.read_values(engine).unwrap();
        run.segment(engine, &segment, &mut report, &stop).unwrap();
        let after = run.state.read_values(engine).unwrap();
        for frozen in &segment.frozen {
            assert!(before[frozen] == after[frozen], "{name}: {frozen} moved while frozen");
            let slots = run.state.slots().any(|(slot, _)| slot.starts_with(&format!("{frozen}.")));
            assert!(!slots, "{name}: {frozen} has slots while frozen");
        }
    }
    let metrics = run.evaluate(engine).unwrap();
    assert!(metrics["loss"].is_finite(), "{name}");
    let mut state = run.state.read_values(engine).unwrap();
    state.extend(run.state.read_slots(engine).unwrap());
    Result { losses, rates, state }
}

#[test]
fn runs_agree_with_the_oracle() {
    let mut failed = Vec::new();
    for mut engine in engines() {
        for name in MODELS {
            let golden = golden(&format!("training_info/{name}.json"));
            for (kind, freezing) in [("plain", false), ("freezing", true)] {
                let result = train(name, engine.as_mut(), &golden, freezing);
                let at = format!("{name} {kind} on {}", engine.info().name);
                let expected = numbers(&golden[kind]["losses"]);
                assert_eq!(result.losses.len(), expected.len(), "{at}");
                for (step, (found, expected)) in result.losses.iter().zip(&expected).enumerate() {
                    if (found - expected).abs() > TOLERANCE * expected.abs() {
                        failed.push(format!("{at}: the loss of step {} is {found}, expected {expected}", step + 1));
                        break;
                    }
                }
                let frozen = list(&golden["frozen"]);
                for (key, expected) in golden[kind]["state"].as_object().unwrap() {
                    let expected = numbers(expected);
                    let slot_of_frozen = freezing && frozen.iter().any(|p| key.starts_with(&format!("{p}.")));
                    let Some(found) = result.state.get(key) else {
                        if !slot_of_frozen {
                            failed.push(format!("{at}: there is no \"{key}\""));
                        }
                        continue;
                    };
                    let found = found.to_f64s().or_else(|| Some(found.to_ints()?.iter().map(|n| *n as f64).collect()));
                    let found = found.unwrap();
                    let size = expected.iter().fold(1e-2f64, |size, value| size.max(value.abs()));
                    let off = found.iter().zip(&expected).fold(0f64, |off, (a, b)| off.max((a - b).abs()));
                    if found.len() != expected.len() || off > TOLERANCE * size {
                        failed.push(format!("{at}: \"{key}\" is off by {off:.1e} of {size:.1e}"));
                    }
                }
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn the_rate_of_a_step_is_its_own() {
    let mut engines = engines();
    let engine = engines[0].as_mut();
    for (name, expected) in [
        ("mlp_adam", [Some(0.05), Some(0.05)]),
        ("rate_of_time", [Some(0.3 * (-0.05f64).exp()), Some(0.3 * (-0.1f64).exp())]),
        ("three_gradients", [None, None]),
    ] {
        let result = train(name, engine, &golden(&format!("training_info/{name}.json")), false);
        for (found, expected) in result.rates.iter().zip(expected) {
            let same = match (found, expected) {
                (Some(found), Some(expected)) => (found - expected).abs() < 1e-6,
                (found, expected) => *found == expected,
            };
            assert!(same, "{name}: {found:?}, expected {expected:?}");
        }
    }
}

#[test]
fn what_is_frozen_is_in_no_graph_of_the_update() {
    for name in MODELS {
        let golden = golden(&format!("training_info/{name}.json"));
        let file = read(&fixture(&format!("training_info/{name}.onnx"))).unwrap();
        let (prepared, stage) = stage::prepare(&file, &Analysis::as_written(&file.model), 1).unwrap();
        let frozen: HashSet<&str> = list(&golden["frozen"]).into_iter().collect();
        let of = |frozen: HashSet<&str>| {
            let options = StageOptions { frozen, frozen_inputs: false, seed: 0, schedule: false };
            stage::build(&prepared, &stage, &options).unwrap()
        };
        let (whole, part) = (of(HashSet::new()), of(frozen.clone()));
        assert!(part.train.graph.nodes().len() < whole.train.graph.nodes().len(), "{name}");
        let graph = &part.optimizer.as_ref().unwrap().graph;
        for (_, value) in graph.values().filter(|(id, _)| graph.inputs().contains(id) || graph.outputs().contains(id)) {
            let frozen = frozen.iter().any(|p| value.name == *p || value.name.starts_with(&format!("{p}.")));
            assert!(!frozen, "{name}: {}", value.name);
        }
        let global: Vec<&String> =
            part.updated.iter().filter(|name| name.starts_with('T') || *name == "average").collect();
        assert_eq!(global.len(), 1, "{name}: {:?}", part.updated);
        let nothing = of(prepared.trainable().into_iter().collect());
        assert!(nothing.optimizer.is_none() && nothing.updated.is_empty(), "{name}");
    }
}

fn freeze_plan(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_freeze-plan")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn wrong_files_are_refused_with_one_line() {
    let faults = golden("training_info/wrong/faults.json");
    let folder = tempfile::tempdir().unwrap();
    for (name, expected) in faults.as_object().unwrap() {
        let model = fixture(&format!("training_info/wrong/{name}.onnx"));
        let output = freeze_plan(&["graph", path(&model), "--out", path(folder.path())]);
        let (line, expected) = (text(&output.stderr), expected.as_str().unwrap());
        let error = line.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        assert!(error.contains(expected), "{name}: {line}");
        assert!([Some(1), Some(3)].contains(&output.status.code()), "{name}: {:?}", output.status);
        let told = line.lines().filter(|line| !line.starts_with("hint: ")).count();
        assert!(!line.contains("panicked") && told <= 2, "{name}: {line}");
    }
}

/// Losses of every step of the run that a job describes.
fn losses(folder: &Path, job: &str) -> Vec<f64> {
    std::fs::write(folder.join("job.toml"), job).unwrap();
    let output = freeze_plan(&["train", path(&folder.join("job.toml")), "--no-plan", "--overwrite"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let events = std::fs::read_to_string(folder.join("run/events.jsonl")).unwrap();
    let steps = events.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    steps.filter(|event| event["event"] == "step").map(|event| event["loss"].as_f64().unwrap()).collect()
}

#[test]
fn a_job_without_loss_and_optimizer_runs_the_model_s_own() {
    let folder = tempfile::tempdir().unwrap();
    for (name, inputs, target) in [
        ("mlp_adam", "{ x = \"x\" }", "target = \"label\""),
        ("rate_of_time", "{ x = \"x\", label = \"label\" }", ""),
        ("conv_nesterov", "{ x = \"x\", weight = \"weight\" }", "target = \"wanted\""),
    ] {
        for extension in ["onnx", "npz"] {
            let file = format!("{name}.{extension}");
            std::fs::copy(fixture(&format!("training_info/{file}")), folder.path().join(file)).unwrap();
        }
        let job = format!(
            "model = \"{name}.onnx\"\n[data]\ntrain = \"{name}.npz\"\neval = \"{name}.npz\"\ninputs = {inputs}\n\
             {target}\nbatch = 8\nshuffle = false\n[freeze]\npolicy = \"none\"\n[run]\nepochs = 6\ndir = \"run\"\n\
             log_every = 1\n"
        );
        let found = losses(folder.path(), &job);
        let golden = golden(&format!("training_info/{name}.json"));
        for (found, expected) in found.iter().zip(numbers(&golden["plain"]["losses"])) {
            assert!((found - expected).abs() < TOLERANCE * expected.abs(), "{name}: {found}, expected {expected}");
        }
        // The trained model holds the state of the algorithm too.
        let trained = read(&folder.path().join("run/model.onnx")).unwrap();
        let step = &trained.training[0].step;
        let held = step.value(step.find("T").unwrap()).initializer.clone().unwrap();
        assert_eq!(held.to_ints(), Some(vec![24]), "{name}");
    }
}

#[test]
fn a_schedule_replaces_a_constant_rate_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let job = |name: &str, inputs: &str, more: &str| {
        format!(
            "model = \"{}\"\n[data]\ntrain = \"{}\"\ninputs = {{ x = \"x\", {inputs} }}\nbatch = 8\nshuffle = false\n\
             [freeze]\npolicy = \"none\"\n[run]\nepochs = 6\ndir = \"run\"\nlog_every = 1\n{more}",
            path(&fixture(&format!("training_info/{name}.onnx"))),
            path(&fixture(&format!("training_info/{name}.npz"))),
        )
    };
    let label = "label = \"label\"";
    let same = losses(folder.path(), &job("mlp_adam", label, "[schedule]\nkind = \"constant\"\n"));
    let golden = golden("training_info/mlp_adam.json");
    for (found, expected) in same.iter().zip(numbers(&golden["plain"]["losses"])) {
        assert!((found - expected).abs() < TOLERANCE * expected.abs(), "{found}, expected {expected}");
    }
    let other = losses(folder.path(), &job("mlp_adam", label, "[schedule]\nkind = \"cosine\"\n"));
    assert!(other[0] == same[0] && other[23] != same[23]);
    let wrong = [
        ("rate_of_time", label, "[schedule]\nkind = \"cosine\"\n", "is computed, so a schedule cannot replace it"),
        ("mlp_adam", label, "[loss]\nkind = \"mse\"\n", "[loss] needs [optimizer], or neither to run the model's"),
        ("mlp_adam", "labels = \"label\"", "", "data.inputs names \"labels\", the inputs of a step are x, label"),
        ("conv_nesterov", "weight = \"weight\"", "", "the input \"wanted\" of a step has no column in data.inputs"),
    ];
    for (name, inputs, more, expected) in wrong {
        std::fs::write(folder.path().join("wrong.toml"), job(name, inputs, more)).unwrap();
        let output = freeze_plan(&["train", path(&folder.path().join("wrong.toml"))]);
        let line = text(&output.stderr);
        assert!(!output.status.success() && line.contains(expected), "{line}");
    }
    let model = fixture("training_info/mlp_adam.onnx");
    let output = freeze_plan(&["graph", path(&model), "--out", path(folder.path()), "--stage", "2"]);
    assert!(text(&output.stderr).contains("there is no training information 2, the model has 1"));
}

/// A job on the digits with our optimizer, and the one on what `graph --training-info` wrote of it.
#[test]
fn a_written_step_trains_as_the_job_it_came_from() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("digits/model.onnx");
    let job = |model: &Path, more: &str| {
        format!(
            "model = \"{}\"\n[data]\ntrain = \"{}\"\ninputs = {{ x = \"images\" }}\ntarget = \"labels\"\nbatch = 64\n\
             shuffle = false\n[freeze]\npolicy = \"none\"\nfreeze = [{}]\n[run]\noperators = \"standard\"\nepochs = 1\ndir = \"run\"\nlog_every = 1\n{more}",
            path(model),
            path(&fixture("digits/train.npz")),
            if more.is_empty() { "" } else { "\"conv1\", \"block1.*\"" },
        )
    };
    for (kind, section) in [
        ("sgd", "[loss]\nkind = \"cross-entropy\"\n[optimizer]\nkind = \"sgd\"\nlr = 0.05\nmomentum = 0.9\n"),
        ("adamw", "[loss]\nkind = \"cross-entropy\"\n[optimizer]\nkind = \"adamw\"\nlr = 0.05\n"),
    ] {
        let expected = losses(folder.path(), &job(&model, section));
        let out = folder.path().join(kind);
        let output = freeze_plan(&[
            "graph",
            path(&model),
            "--out",
            path(&out),
            "--training-info",
            "--optimizer",
            kind,
            "--lr",
            "0.05",
            "--epoch",
            "1",
            "--policy",
            "none",
            "--freeze",
            "conv1",
            "--freeze",
            "block1.*",
        ]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let written = out.join("training.onnx");
        let step = read(&written).unwrap();
        assert!(step.training[0].update_binding.iter().all(|(key, _)| !key.starts_with("conv1.")), "{kind}");
        let found = losses(folder.path(), &job(&written, ""));
        assert_eq!(found.len(), expected.len());
        assert!(expected.len() > 10 && expected.last() < expected.first());
        for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert!((found - expected).abs() < 1e-5 * expected.abs(), "{kind} step {}: {found}, {expected}", step + 1);
        }
        let table = text(&freeze_plan(&[path(&written)]).stdout);
        assert!(table.contains("training information 1 of the model: loss \"loss\""), "{table}");
    }
}

/// `y = Dropout(x W)` with an input `target` beside `x`, and the mean of `(y - target)^2` as `loss`.
fn with_random_loss() -> Model {
    let mut b = Builder::new("random");
    let shape = |size| vec![Dim::Symbol("N".into()), Dim::Known(size)];
    let x = b.input("x", Fact::new(DType::F32, shape(4)));
    let wanted = b.input("target", Fact::new(DType::F32, shape(3)));
    let values = (0..12).map(|index| index as f32 / 12.0 - 0.4).collect();
    let weight = b.initializer("fc.weight", Tensor::from_vec(&[4, 3], values));
    let y = b.op("MatMul", &[x, weight], Attributes::none());
    let (ratio, random) = (b.constant("ratio", Tensor::scalar(0.5f32)), b.constant("random", Tensor::scalar(true)));
    let y = b.op("Dropout", &[y, ratio, random], Attributes::none());
    let off = b.sub(y, wanted);
    let square = b.mul(off, off);
    let loss = b.op("ReduceMean", &[square], Attributes::none().with("keepdims", 0));
    b.output(loss, "loss");
    Model { graph: b.finish(), opsets: BTreeMap::from([(String::new(), 18)]), ir_version: 8, ..Model::default() }
}

#[test]
fn a_written_step_has_room_for_random_values_and_for_an_input_called_target() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.onnx");
    std::fs::write(&file, freeze_plan::onnx::to_bytes(&with_random_loss())).unwrap();
    let tensors: Vec<(String, Tensor)> = [("x", 4), ("target", 3)]
        .map(|(name, size)| (name.into(), Tensor::from_vec(&[16, size], vec![0.5f32; 16 * size])))
        .into();
    let header = |(name, tensor): &(String, Tensor), at: &mut usize| {
        let start = *at;
        *at += tensor.bytes().len();
        format!("\"{name}\":{{\"dtype\":\"F32\",\"shape\":{:?},\"data_offsets\":[{start},{at}]}}", tensor.shape())
    };
    let mut at = 0;
    let header = format!("{{{}}}", tensors.iter().map(|t| header(t, &mut at)).collect::<Vec<_>>().join(","));
    let mut data = (header.len() as u64).to_le_bytes().to_vec();
    data.extend(header.as_bytes());
    tensors.iter().for_each(|(_, tensor)| data.extend(tensor.bytes()));
    std::fs::write(folder.path().join("rows.safetensors"), data).unwrap();
    let out = folder.path().join("out");
    for kind in ["sgd", "adam", "muon"] {
        let args = ["--loss", "output", "--optimizer", kind, "--lr", "0.05", "--training-info"];
        let output = freeze_plan(&[&["graph", path(&file), "--out", path(&out)], &args[..]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        let job = "model = \"out/training.onnx\"\n[data]\ntrain = \"rows.safetensors\"\n\
                   inputs = { x = \"x\", target = \"target\" }\nbatch = 8\n[freeze]\npolicy = \"none\"\n[run]\n\
                   epochs = 20\nlog_every = 1\ndir = \"run\"\n";
        let found = losses(folder.path(), job);
        assert!(found[30..].iter().sum::<f64>() < found[..10].iter().sum::<f64>(), "{kind}: {found:?}");
        assert_eq!(losses(folder.path(), job), found, "{kind}: the masks follow seed and step");
        assert_ne!(losses(folder.path(), &job.replace("dir", "seed = 1\ndir")), found, "{kind}");
    }
}
