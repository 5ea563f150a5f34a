//! What is minimized and how: several losses and targets, a loss that the model computes, parameter
//! groups, and gradients of several batches as those of one.

use crate::engines::{deviation, engines};
use freeze_plan::data::{self, BatchOptions, Batches, Dataset, LastBatch, Sampler, Wanted};
use freeze_plan::graph::{Attributes, Builder, DType, Dim, Fact, Model, Tensor};
use freeze_plan::losses::LossSpec;
use freeze_plan::modules::{UnitKind, recover, units};
use freeze_plan::onnx::{read, to_bytes};
use freeze_plan::optim::OptimizerSpec;
use freeze_plan::planner::Analysis;
use freeze_plan::runner::{Engine, RunEvent, Schedule, Setup, evaluate, train};
use freeze_plan::training::{Objective, Own, PhaseOptions, Prepared, Rates, Role, build, prepare, targets};
use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::AtomicBool;

fn wave(shape: &[usize], seed: usize) -> Tensor {
    let count = shape.iter().product();
    let value = |index: usize| ((index * 37 + seed * 53 + 11) % 97) as f32 / 50.0 - 0.97;
    Tensor::from_vec::<f32>(shape, (0..count).map(value).collect())
}

/// A hidden layer with the outputs `logits` of three classes, `value`, and `loss`, the mean of the
/// squared value.
fn model() -> Model {
    let mut b = Builder::new("heads");
    let x = b.input("x", Fact::new(DType::F32, vec![Dim::Symbol("N".into()), Dim::Known(6)]));
    let layer = |b: &mut Builder, x, name: &str, from: usize, to: usize| {
        let weight = b.initializer(&format!("{name}.weight"), wave(&[to, from], to));
        let bias = b.initializer(&format!("{name}.bias"), wave(&[to], 7 * to));
        b.op("Gemm", &[x, weight, bias], Attributes::none().with("transB", 1))
    };
    let hidden = layer(&mut b, x, "body.fc", 6, 8);
    let hidden = b.unary("Tanh", hidden);
    let logits = layer(&mut b, hidden, "classes", 8, 3);
    let value = layer(&mut b, hidden, "score", 8, 1);
    b.output(logits, "logits");
    b.output(value, "value");
    let square = b.mul(value, value);
    let loss = b.op("ReduceMean", &[square], Attributes::none().with("keepdims", 0));
    b.output(loss, "loss");
    Model { graph: b.finish(), opsets: BTreeMap::from([(String::new(), 18)]), ir_version: 8, ..Model::default() }
}

fn prepared() -> Prepared {
    prepare(&Analysis::of(&model())).unwrap()
}

/// The model without its output `loss`, whose name the loss takes.
fn without_loss() -> Prepared {
    let mut file = model();
    let mut b = Builder::new("heads");
    let mut map = std::collections::HashMap::new();
    for id in file.graph.inputs() {
        map.insert(*id, b.input(file.graph.value_name(*id), file.graph.fact(*id).clone()));
    }
    for (id, _, _) in file.graph.initializers() {
        map.insert(id, b.copy_value(&file.graph, id));
    }
    for node in file.graph.nodes().iter().take(7) {
        let inputs: Vec<_> = node.inputs.iter().map(|id| id.map(|id| map[&id])).collect();
        let outputs = b.copy_node(&file.graph, node, &inputs);
        map.extend(node.outputs.iter().zip(outputs).filter_map(|(old, new)| Some(((*old)?, new?))));
    }
    for name in ["logits", "value"] {
        b.mark_output(map[&file.graph.find(name).unwrap()]);
    }
    file.graph = b.finish();
    prepare(&Analysis::of(&file)).unwrap()
}

fn rows(count: usize) -> Vec<(String, Tensor)> {
    let labels = (0..count as i64).map(|row| (row * 5 + 1) % 3).collect();
    vec![
        ("x".into(), wave(&[count, 6], 1)),
        ("labels".into(), Tensor::from_vec(&[count], labels)),
        ("scores".into(), wave(&[count, 1], 3)),
    ]
}

fn loss(text: &str) -> LossSpec {
    serde_json::from_str(text).unwrap()
}

/// Runs the train graph of a loss on five rows; returns its loss and gradients.
fn step(engine: &mut dyn Engine, prepared: &Prepared, loss: &LossSpec) -> BTreeMap<String, Tensor> {
    let optimizer: OptimizerSpec = serde_json::from_str(r#"{"kind":"sgd"}"#).unwrap();
    let options = PhaseOptions {
        frozen: HashSet::new(),
        frozen_inputs: false,
        rates: Rates::new(),
        loss,
        optimizer: &optimizer,
        output: None,
        seed: 0,
    };
    let step = build(prepared, &options).unwrap();
    let data = rows(5);
    let column = |name: &str| &data.iter().find(|column| column.0 == name).unwrap().1;
    let graph = &step.train.graph;
    let feeds: Vec<(&str, Tensor)> = graph
        .inputs()
        .iter()
        .map(|id| {
            let name = graph.value_name(*id);
            let own = prepared.model.graph.find(name);
            let own = own.and_then(|id| prepared.model.graph.value(id).initializer.clone());
            let given = match name {
                "target" | "target.labels" => column("labels"),
                "target.scores" => column("scores"),
                name => own.as_ref().unwrap_or_else(|| column(name)),
            };
            (name, given.clone())
        })
        .collect();
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let outputs = evaluate(engine, &step.train, &feeds).unwrap();
    graph.outputs().iter().map(|id| graph.value_name(*id).to_string()).zip(outputs).collect()
}

#[test]
fn a_sum_has_the_weighted_gradients_of_its_terms() {
    let first = r#"{"kind":"cross-entropy","output":"logits","target":"labels"}"#;
    let second = r#"{"kind":"mse","output":"value","target":"scores"}"#;
    let sum = r#"{"kind":"sum","terms":[
        {"kind":"cross-entropy","output":"logits","target":"labels","weight":0.5},
        {"kind":"mse","output":"value","target":"scores","weight":3},
        {"kind":"l1","output":"value","target":"scores","weight":0}]}"#;
    let prepared = without_loss();
    let found: Vec<String> =
        targets(&prepared, &loss(sum), None).unwrap().into_iter().map(|target| target.input).collect();
    assert_eq!(found, ["target.labels", "target.scores"]);
    let optimizer: OptimizerSpec = serde_json::from_str(r#"{"kind":"sgd"}"#).unwrap();
    let own = Own { loss: &loss(sum), output: None, optimizer: &optimizer };
    let built = Objective::Own(own).build(&prepared, HashSet::new(), false, Rates::new(), 0).unwrap();
    for ports in [&built.contract.train.inputs, &built.contract.eval.inputs] {
        let targets = ports.iter().filter(|port| port.role == Role::Target).map(|port| port.name.as_str());
        assert_eq!(targets.collect::<Vec<_>>(), ["target.labels", "target.scores"]);
    }
    for mut engine in engines() {
        let [first, second, sum] = [first, second, sum].map(|text| step(engine.as_mut(), &prepared, &loss(text)));
        let mut compared = 0;
        for (name, found) in sum.iter().filter(|(name, _)| *name == "loss" || name.ends_with(".grad")) {
            let part = |values: &BTreeMap<String, Tensor>| -> Vec<f64> {
                values.get(name).map_or_else(|| vec![0.0; found.len()], |values| values.to_f64s().unwrap())
            };
            let expected = part(&first).iter().zip(part(&second)).map(|(a, b)| (0.5 * a + 3.0 * b) as f32).collect();
            let off = deviation(found, &Tensor::from_vec::<f32>(found.shape(), expected));
            assert!(off < 1e-6, "{name} is off by {off:.1e} on {}", engine.info().name);
            compared += 1;
        }
        assert_eq!(compared, 7);
    }
}

#[test]
fn a_loss_of_the_model_is_differentiated_as_it_is() {
    for mut engine in engines() {
        let own = step(engine.as_mut(), &prepared(), &loss(r#"{"kind":"output","output":"loss"}"#));
        let other = r#"{"kind":"sum","terms":[{"kind":"mse","output":"value","target":"scores"}]}"#;
        assert!(own.contains_key("score.weight.grad") && !own.contains_key("classes.weight.grad"));
        assert_eq!(own["loss"].shape(), [0usize; 0]);
        let square: f64 = own["value"].to_f64s().unwrap().iter().map(|value| value * value).sum();
        assert!((own["loss"].to_f64s().unwrap()[0] - square / 5.0).abs() < 1e-6);
        let expected = 2.0 * own["value"].to_f64s().unwrap().iter().sum::<f64>() / 5.0;
        assert!((own["score.bias.grad"].to_f64s().unwrap()[0] - expected).abs() < 1e-6);
        let options = loss(other);
        let optimizer: OptimizerSpec = serde_json::from_str(r#"{"kind":"sgd"}"#).unwrap();
        let prepared = prepared();
        let options = PhaseOptions {
            frozen: HashSet::new(),
            frozen_inputs: false,
            rates: Rates::new(),
            loss: &options,
            optimizer: &optimizer,
            output: None,
            seed: 0,
        };
        let error = build(&prepared, &options).unwrap_err().to_string();
        assert_eq!(error, "\"loss\" is a value of the model and the name of the loss in the training graphs");
    }
}

/// Trains the model on 74 rows for three epochs, of which freezing starts in the second, and returns
/// what remains, with the losses of the steps.
fn run(
    engine: &mut dyn Engine,
    optimizer: &str,
    size: usize,
    accumulate: usize,
) -> (Vec<f64>, BTreeMap<String, Tensor>) {
    let prepared = without_loss();
    let optimizer: OptimizerSpec = serde_json::from_str(optimizer).unwrap();
    let loss =
        loss(r#"{"kind":"sum","terms":[{"output":"logits"},{"kind":"mse","output":"value","target":"scores"}]}"#);
    let units = units(&recover(&prepared.model), UnitKind::Leaf);
    let plan = crate::plans::linear(&units, 3, 0.2, 1.0);
    assert!(plan.epochs[0].frozen.is_empty() && !plan.epochs[2].frozen.is_empty());
    let dataset = Dataset::new(Path::new("rows"), rows(74)).unwrap();
    let own = Own { loss: &loss, output: None, optimizer: &optimizer };
    let graph = &prepared.model.graph;
    let mut wanted =
        vec![Wanted { column: "x".into(), input: "x".into(), fact: graph.fact(graph.find("x").unwrap()).clone() }];
    for target in targets(&prepared, &loss, None).unwrap() {
        let column = target.name.unwrap_or_else(|| "labels".into());
        wanted.push(Wanted { column, input: target.input, fact: target.fact });
    }
    let options = BatchOptions { size, seed: 0, sampler: Sampler::Shuffle, last_batch: LastBatch::Keep };
    let batches = Batches::new(data::check(&dataset, &wanted).unwrap(), options).unwrap();
    let setup = Setup {
        recompute: &freeze_plan::training::Recompute::None,
        prepared: &prepared,
        freezing: freeze_plan::runner::Freezing::of(&plan),
        objective: Objective::Own(own),
        schedule: &Schedule::cosine(0.0, 2),
        evaluation: &Default::default(),
        train: &batches,
        eval: Some(&batches),
        loading: None,
        checkpoints: None,
        resume: None,
        seed: 0,
        log_every: 1,
        accumulate,
        nonfinite: Default::default(),
        ema: None,
        operators: freeze_plan::runner::Operators::Own,
        computing: Default::default(),
    };
    let (mut losses, mut steps) = (Vec::new(), 0);
    let mut report = |event: RunEvent| match event {
        RunEvent::Start { steps: all, .. } => steps = all,
        RunEvent::Step { loss, lr, step, .. } => {
            assert_eq!(step, losses.len() / 2 + 1);
            losses.extend([loss, lr.unwrap()]);
        }
        RunEvent::Epoch { train_loss, metrics, .. } => {
            assert!(train_loss.is_finite() && metrics.contains_key("accuracy"));
        }
        _ => {}
    };
    let outcome = train(engine, &setup, &mut report, &AtomicBool::new(false)).unwrap();
    assert_eq!(losses.len(), 2 * steps);
    (losses, outcome.values)
}

/// Batches of 8 in steps of four, and what is left of an epoch (8 and 2 rows), are batches of 32 and
/// one of 10.
#[test]
fn accumulated_batches_are_one_batch() {
    let kinds = [
        r#"{"kind":"sgd","lr":0.1,"momentum":0.9,"weight_decay":0.01,"clip_norm":0.5}"#,
        r#"{"kind":"adamw","lr":0.01}"#,
    ];
    for mut engine in engines() {
        for kind in kinds {
            let (whole, expected) = run(engine.as_mut(), kind, 32, 1);
            let (losses, found) = run(engine.as_mut(), kind, 8, 4);
            assert_eq!(whole.len(), 18);
            let worst = whole.iter().zip(&losses).map(|(a, b)| (a - b).abs()).fold(0f64, f64::max);
            assert!(losses.len() == whole.len() && worst < 1e-6, "{kind}: losses are off by {worst:.1e}");
            for (name, expected) in &expected {
                let (found, expected) = (found[name].to_f64s().unwrap(), expected.to_f64s().unwrap());
                let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0f64, f64::max);
                assert!(worst < 1e-6, "{kind}: {name} is off by {worst:.1e} on {}", engine.info().name);
            }
            let (alone, _) = run(engine.as_mut(), kind, 8, 1);
            assert_eq!(alone.len(), 60);
        }
    }
}

#[test]
fn groups_scale_rates_and_set_decay() {
    let groups = r#"{"kind":"sgd","lr":0.1,"weight_decay":0.1,"groups":[
        {"parameters":["*"],"lr_scale":0.5,"weight_decay":0},
        {"parameters":["body.*"],"weight_decay":0.3},
        {"parameters":["score","classes.bias"],"lr_scale":0}]}"#;
    let plain = r#"{"kind":"sgd","lr":0.05}"#;
    let decaying = r#"{"kind":"sgd","lr":0.05,"weight_decay":0.3}"#;
    let prepared = without_loss();
    let start = |name: &str| {
        let graph = &prepared.model.graph;
        graph.value(graph.find(name).unwrap()).initializer.clone().unwrap()
    };
    for mut engine in engines() {
        let grouped = one_step(engine.as_mut(), &prepared, groups);
        let expected = one_step(engine.as_mut(), &prepared, plain);
        let decayed = one_step(engine.as_mut(), &prepared, decaying);
        for name in ["score.weight", "score.bias", "classes.bias"] {
            assert_eq!(grouped[name], start(name), "{name}");
            assert_ne!(expected[name], start(name), "{name}");
        }
        assert!(deviation(&grouped["classes.weight"], &expected["classes.weight"]) < 1e-6);
        for name in ["body.fc.weight", "body.fc.bias"] {
            assert!(deviation(&grouped[name], &decayed[name]) < 1e-6, "{name}");
            assert_ne!(grouped[name], expected[name], "{name}");
        }
    }
}

/// Makes one step on five rows.
fn one_step(engine: &mut dyn Engine, prepared: &Prepared, optimizer: &str) -> BTreeMap<String, Tensor> {
    let optimizer: OptimizerSpec = serde_json::from_str(optimizer).unwrap();
    let loss =
        loss(r#"{"kind":"sum","terms":[{"output":"logits"},{"kind":"mse","output":"value","target":"scores"}]}"#);
    let options = PhaseOptions {
        frozen: HashSet::new(),
        frozen_inputs: false,
        rates: Rates::new(),
        loss: &loss,
        optimizer: &optimizer,
        output: None,
        seed: 0,
    };
    let built = build(prepared, &options).unwrap();
    let grads = step(engine, prepared, &loss);
    let update = built.optimizer.unwrap();
    let graph = &update.graph;
    let rate = Tensor::scalar(optimizer.lr() as f32);
    let feeds: Vec<(&str, Tensor)> = graph
        .inputs()
        .iter()
        .map(|id| graph.value_name(*id))
        .map(|name| match (name, grads.get(name)) {
            ("lr", _) => (name, rate.clone()),
            (_, Some(grad)) => (name, grad.clone()),
            _ => {
                let id = prepared.model.graph.find(name).unwrap();
                (name, prepared.model.graph.value(id).initializer.clone().unwrap())
            }
        })
        .collect();
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let outputs = evaluate(engine, &update, &feeds).unwrap();
    let names = graph.outputs().iter().map(|id| graph.value_name(*id).strip_suffix(".next").unwrap().to_string());
    names.zip(outputs).collect()
}

/// Writes columns as numpy's `savez` does.
fn npz(path: &Path, columns: &[(String, Tensor)]) {
    let mut archive = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, tensor) in columns {
        let dtype = if tensor.dtype() == DType::I64 { "<i8" } else { "<f4" };
        let dims: String = tensor.shape().iter().map(|dim| format!("{dim},")).collect();
        let mut header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({dims}), }}");
        while (header.len() + 11) % 64 != 0 {
            header.push(' ');
        }
        header.push('\n');
        archive.start_file(format!("{name}.npy"), options).unwrap();
        archive.write_all(b"\x93NUMPY\x01\x00").unwrap();
        archive.write_all(&u16::try_from(header.len()).unwrap().to_le_bytes()).unwrap();
        archive.write_all(header.as_bytes()).unwrap();
        archive.write_all(tensor.bytes()).unwrap();
    }
    archive.finish().unwrap();
}

const JOB: &str = r#"model = "model.onnx"
[data]
train = "rows.npz"
eval = "rows.npz"
inputs = { x = "x" }
target = { a = "labels", b = "scores" }
batch = 4
[[losses]]
kind = "cross-entropy"
output = "logits"
target = "a"
[[losses]]
kind = "smooth-l1"
output = "value"
target = "b"
weight = 0.25
[optimizer]
kind = "adamw"
lr = 0.01
[[optimizer.groups]]
parameters = ["*.bias"]
weight_decay = 0
[[optimizer.groups]]
parameters = ["body.*"]
lr_scale = 0.1
[freeze]
policy = "none"
[run]
epochs = 2
accumulate = 3
log_every = 1
dir = "run"
"#;

fn job(folder: &Path, edits: &[(&str, &str)]) -> Output {
    std::fs::write(folder.join("model.onnx"), to_bytes(&without_loss().model)).unwrap();
    job_of_model(folder, edits)
}

fn job_of_model(folder: &Path, edits: &[(&str, &str)]) -> Output {
    npz(&folder.join("rows.npz"), &rows(30));
    let mut text = JOB.to_string();
    for (from, to) in edits {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    std::fs::write(folder.join("job.toml"), text).unwrap();
    let file = folder.join("job.toml");
    let args = ["train", file.to_str().unwrap(), "--overwrite", "--no-plan"];
    Command::new(env!("CARGO_BIN_EXE_freeze-plan")).args(args).output().unwrap()
}

#[test]
fn a_job_of_several_losses_and_groups() {
    let folder = tempfile::tempdir().unwrap();
    let output = job(folder.path(), &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let events = std::fs::read_to_string(folder.path().join("run/events.jsonl")).unwrap();
    let steps = events.lines().filter(|line| line.contains("\"event\":\"step\"")).count();
    assert_eq!(steps, 2 * 3, "30 rows are 8 batches, which are 3 steps");
    assert!(String::from_utf8_lossy(&output.stdout).contains("accuracy"));
    let trained = read(&folder.path().join("run/model.onnx")).unwrap();
    let graph = &trained.model.graph;
    let weight = graph.value(graph.find("body.fc.weight").unwrap()).initializer.clone().unwrap();
    assert_ne!(weight, wave(&[8, 6], 8));
    let resolved = std::fs::read_to_string(folder.path().join("run/job.toml")).unwrap();
    std::fs::write(folder.path().join("again.toml"), &resolved).unwrap();
    let again = freeze_plan::runner::Job::load(&folder.path().join("again.toml"), &[]).unwrap();
    assert_eq!(again.resolved(), resolved);
    assert_eq!((again.losses.len(), again.optimizer.unwrap().groups.len()), (2, 2));
}

#[test]
fn a_job_whose_model_computes_the_loss() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.onnx"), to_bytes(&model())).unwrap();
    let losses = &JOB[JOB.find("[[losses]]").unwrap()..JOB.find("[optimizer]").unwrap()];
    let target = "target = { a = \"labels\", b = \"scores\" }\n";
    let own = (losses, "[loss]\nkind = \"output\"\noutput = \"loss\"\n");
    let output = job_of_model(folder.path(), &[own, (target, "")]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("the loss does not depend on \"classes.weight\""), "{stderr}");
    let events = std::fs::read_to_string(folder.path().join("run/events.jsonl")).unwrap();
    let event = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let losses: Vec<f64> = events.lines().map(event).filter_map(|event| event["metrics"]["loss"].as_f64()).collect();
    assert!(losses.len() == 3 && losses[1] < losses[0] && losses[2] == losses[1], "{losses:?}");
    let output = job_of_model(folder.path(), &[own]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && stderr.contains("is the target of no loss"), "{stderr}");
}

#[test]
fn graphs_of_losses_and_optimizers_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    std::fs::write(path("model.onnx"), to_bytes(&without_loss().model)).unwrap();
    let graph = |args: &[&str]| {
        let (model, out) = (path("model.onnx"), path("out"));
        let args = [&["graph", &model, "--out", &out], args].concat();
        Command::new(env!("CARGO_BIN_EXE_freeze-plan")).args(args).output().unwrap()
    };
    let cases: [(&[&str], &str, usize); 5] = [
        (&["--loss", "smooth-l1", "--loss-output", "value", "--optimizer", "muon"], "value float32", 3),
        (&["--loss", "nll", "--optimizer", "rmsprop"], "labels int64", 1),
        (&["--loss", "kl", "--optimizer", "adagrad"], "labels float32", 1),
        (&["--loss", "hinge-embedding", "--optimizer", "lion"], "labels int64", 1),
        (&["--loss", "margin-ranking", "--loss-output", "value", "--loss-output", "value"], "value int64", 1),
    ];
    for (args, target, slots) in cases {
        let output = graph(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        let contract = std::fs::read_to_string(path("out/contract.json")).unwrap();
        let contract: serde_json::Value = serde_json::from_str(&contract).unwrap();
        let inputs = contract["train"]["inputs"].as_array().unwrap();
        let found = inputs.iter().find(|port| port["role"] == "target").unwrap();
        assert_eq!(found["name"], "target");
        assert!(target.ends_with(found["dtype"].as_str().unwrap()), "{args:?}: {found}");
        let inputs = contract["optimizer"]["inputs"].as_array().unwrap();
        let own =
            |port: &&serde_json::Value| port["role"] == "slot" && port["name"].as_str().unwrap().contains(".bias.");
        let count = inputs.iter().filter(own).count();
        let biases = inputs.iter().filter(|port| port["role"] == "parameter").count() / 2;
        assert_eq!(count, slots * biases, "{args:?}");
    }
    let failures: [(&[&str], &str); 3] = [
        (&["--loss", "sum"], "--loss is \"sum\", expected one of"),
        (&["--loss", "triplet"], "the loss triplet needs 3 entries in outputs, found 0"),
        (
            &["--loss", "mse", "--loss-output", "valu"],
            "the model has no output \"valu\"; its outputs are logits, value",
        ),
    ];
    for (args, expected) in failures {
        let output = graph(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(expected), "{args:?}\n{stderr}");
    }
}

#[test]
fn mistakes_in_losses_targets_and_groups_are_named() {
    type Case<'a> = (&'a [(&'a str, &'a str)], i32, &'a str);
    let cases: [Case<'_>; 14] = [
        (
            &[("target = \"a\"", "traget = \"a\"")],
            2,
            "unknown key `traget` in [losses.0] at line 11, did you mean `target`?",
        ),
        (
            &[("smooth-l1", "smooth-l2")],
            2,
            "key `losses.1.kind` at line 13: unknown value \"smooth-l2\", did you mean \"smooth-l1\"?",
        ),
        (&[("[[losses]]", "[loss]\nkind = \"mse\"\n[[losses]]")], 2, "`losses`"),
        (
            &[("target = \"a\"", "target = \"aa\"")],
            1,
            "a loss has the target \"aa\", which is not in data.target, did you mean \"a\"?",
        ),
        (
            &[("target = \"a\"\n", "")],
            1,
            "data.target names its columns (a, b): each loss needs one of these as its `target`",
        ),
        (
            &[("b = \"scores\"", "b = \"scores\", c = \"scores\"")],
            1,
            "data.target names \"c\", which is the target of no loss",
        ),
        (
            &[("{ a = \"labels\", b = \"scores\" }", "\"labels\"")],
            1,
            "a loss has the target \"a\": data.target needs a table such as { a = \"column\" }",
        ),
        (&[("b = \"scores\"", "b = \"labels\"")], 1, "column \"labels\" does not fit the target \"b\": expected"),
        (
            &[("output = \"logits\"", "output = \"logit\"")],
            1,
            "the model has no output \"logit\"; its outputs are logits, value",
        ),
        (
            &[("\"*.bias\"", "\"*.bais\"")],
            2,
            "the groups of the optimizer: group pattern \"*.bais\" matches no unit and no parameter",
        ),
        (&[("lr_scale = 0.1", "lr_scale = -1")], 2, "the optimizer adamw needs lr_scale of at least 0, found -1"),
        (
            &[("lr_scale = 0.1", "lr_scal = 1")],
            2,
            "unknown key `lr_scal` in [optimizer.groups.1] at line 25, did you mean `lr_scale`?",
        ),
        (&[("accumulate = 3", "accumulate = 0")], 2, "key `run.accumulate` at line 30: expected 1 or more, found 0"),
        (
            &[("{ a = \"labels\", b = \"scores\" }", "{ a = 3 }")],
            2,
            "key `data.target.a` at line 6: expected a column or an array of columns, found integer 3",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (edits, code, expected) in cases {
        let output = job(folder.path(), edits);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && stderr.contains(expected), "{edits:?}\n{stderr}");
    }
}

#[test]
fn the_plan_counts_the_slots_that_muon_and_its_fallback_keep() {
    let folder = tempfile::tempdir().unwrap();
    let groups = &JOB[JOB.find("[[optimizer.groups]]").unwrap()..JOB.find("[freeze]").unwrap()];
    let plan = |groups_of_muon: &str| {
        let output = job(folder.path(), &[("adamw", "muon"), (groups, groups_of_muon)]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        let plan = std::fs::read_to_string(folder.path().join("run/plan.json")).unwrap();
        let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
        (plan["epochs"][0]["predicted"]["slot_bytes"].as_u64().unwrap(), stderr.contains("its fallback updates all"))
    };
    let (matrices, biases) = (8 * 6 + 3 * 8 + 8, 8 + 3 + 1);
    assert_eq!(plan(""), (4 * (matrices + 2 * biases), false));
    let classes = "[[optimizer.groups]]\nparameters = [\"classes.*\"]\nfallback = true\n";
    assert_eq!(plan(classes), (4 * (matrices + 3 * 8 + 2 * biases), false));
    let all = "[[optimizer.groups]]\nparameters = [\"*\"]\nfallback = true\n";
    assert_eq!(plan(all), (4 * 2 * (matrices + biases), true));
}

#[test]
fn what_does_not_fit_is_said_before_the_run_s_folder_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        (("log_every = 1", "recompute = [\"bodies.*\"]"), 1, "the pattern \"bodies.*\" of modules to recompute"),
        (("lr = 0.01", "lr = -0.01"), 2, "job.toml: key `optimizer` at line 17: the optimizer adamw needs lr"),
        (("weight = 0.25", "weight = -1"), 2, "job.toml: key `losses` at line 8: the loss smooth-l1 needs weight"),
        (("b = \"scores\"", "b = \"labels\""), 1, "column \"labels\" does not fit the target \"b\": expected"),
    ];
    for (edit, code, expected) in cases {
        let output = job(folder.path(), &[edit]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(code), 1), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
        assert!(!folder.path().join("run").exists());
    }
}

#[test]
fn a_model_whose_output_is_called_target_trains_with_a_named_target() {
    let folder = tempfile::tempdir().unwrap();
    let mut b = Builder::new("names");
    let x = b.input("step", Fact::new(DType::F32, vec![Dim::Symbol("N".into()), Dim::Known(6)]));
    let weight = b.initializer("fc.weight", wave(&[6, 1], 2));
    let y = b.op("MatMul", &[x, weight], Attributes::none());
    b.output(y, "target");
    let opsets = BTreeMap::from([(String::new(), 18)]);
    let names = Model { graph: b.finish(), opsets, ir_version: 8, ..Model::default() };
    std::fs::write(folder.path().join("model.onnx"), to_bytes(&names)).unwrap();
    let losses = &JOB[JOB.find("[[losses]]").unwrap()..JOB.find("[optimizer]").unwrap()];
    let groups = &JOB[JOB.find("[[optimizer.groups]]").unwrap()..JOB.find("[freeze]").unwrap()];
    let input = ("{ x = \"x\" }", "{ step = \"x\" }");
    let plain = ("target = { a = \"labels\", b = \"scores\" }", "target = \"scores\"");
    let output = job_of_model(folder.path(), &[input, plain, (losses, "[loss]\nkind = \"mse\"\n"), (groups, "")]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(3) && stderr.contains("hint: ") && stderr.contains("target = \"y\""),
        "{stderr}"
    );
    let named = (plain.0, "target = { y = \"scores\" }");
    let loss = (losses, "[loss]\nkind = \"mse\"\ntarget = \"y\"\n");
    let output = job_of_model(folder.path(), &[input, named, loss, (groups, "")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
