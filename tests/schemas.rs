//! The schemas of files: what the program writes is valid, and what is no such file is not.

use crate::cli::{digits_job, freeze_plan, path, text};
use crate::engines::fixture;
use freeze_plan::onnx::read;
use freeze_plan::plan::{PlanOptions, policies::POLICIES};
use freeze_plan::planner::{Analysis, Request, identify, plan, sizes};
use freeze_plan::runner::Job;
use freeze_plan::schemas::{FileKind, schema};
use jsonschema::Validator;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn validator(kind: FileKind) -> Validator {
    let schema = schema(kind);
    assert!(jsonschema::meta::is_valid(&schema), "{}", kind.name());
    jsonschema::draft202012::new(&schema).unwrap()
}

fn problems(validator: &Validator, value: &Value) -> Vec<String> {
    validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[track_caller]
fn accepts(validator: &Validator, value: &Value, what: &str) {
    let problems = problems(validator, value);
    assert!(problems.is_empty(), "{what}: {}", problems.join("\n"));
}

/// An edit of a valid value that makes it invalid.
struct Case {
    what: &'static str,
    edit: fn(&mut Value),
}

#[track_caller]
fn refuses(validator: &Validator, valid: &Value, cases: &[Case]) {
    accepts(validator, valid, "as it is");
    for case in cases {
        let mut value = valid.clone();
        (case.edit)(&mut value);
        assert_ne!(value, *valid, "{}", case.what);
        assert!(!validator.is_valid(&value), "{}", case.what);
    }
}

fn drop_key(value: &mut Value, key: &str) -> Value {
    value.as_object_mut().unwrap().shift_remove(key).unwrap()
}

fn plans() -> Vec<(String, Value)> {
    let mut plans = Vec::new();
    for model in ["digits/model.onnx", "digits_vit/model.onnx"] {
        let file = read(&fixture(model)).unwrap();
        let analysis = Analysis::of(&file.model);
        for entry in POLICIES {
            let mut options = PlanOptions::of(entry.name);
            if entry.name == "steps" {
                options =
                    options.with("steps", json!([{ "epoch": 2, "frozen": 1 }, { "epoch": 3, "step": 4, "frozen": 2 }]));
            }
            let sizes = sizes(&analysis.model.graph, 4, &[]).unwrap();
            let own_slots = Default::default();
            let request = Request { epochs: 6, steps_per_epoch: 10, options: &options, slots: 2, own_slots, sizes };
            let mut plan = plan(&file, &analysis, &request).unwrap();
            identify(&mut plan, &file);
            plans.push((format!("{model} {}", entry.name), serde_json::from_str(&plan.to_json()).unwrap()));
        }
    }
    plans
}

#[test]
fn every_plan_is_valid_and_may_have_more_fields() {
    let validator = validator(FileKind::Plan);
    let plans = plans();
    for (what, plan) in &plans {
        accepts(&validator, plan, what);
    }
    let mut later = plans[0].1.clone();
    for place in ["", "/model", "/epochs/0", "/epochs/0/predicted", "/summary"] {
        later.pointer_mut(place).unwrap()["later"] = json!(1);
    }
    accepts(&validator, &later, "fields of a later version");
    refuses(
        &validator,
        &plans[0].1,
        &[
            Case { what: "another format", edit: |plan| plan["format"] = "freeze-plan/2".into() },
            Case { what: "no units", edit: |plan| drop(drop_key(plan, "units")) },
            Case {
                what: "a renamed key",
                edit: |plan| {
                    let last = drop_key(plan, "final");
                    plan["last"] = last;
                },
            },
            Case { what: "an epoch as text", edit: |plan| plan["epochs"][0]["epoch"] = "1".into() },
            Case { what: "a negative count", edit: |plan| plan["epochs"][0]["frozen_units"] = (-1).into() },
            Case { what: "names as numbers", edit: |plan| plan["epochs"][5]["frozen"] = json!([1]) },
            Case { what: "a cost as text", edit: |plan| plan["epochs"][0]["predicted"]["step_cost"] = "1".into() },
        ],
    );
}

#[test]
fn every_contract_is_valid() {
    let validator = validator(FileKind::Contract);
    let folder = tempfile::tempdir().unwrap();
    let mut last = Value::Null;
    for (model, options) in [
        ("digits/model.onnx", ["--epochs", "4", "--epoch", "4"].as_slice()),
        ("digits_vit/model.onnx", ["--optimizer", "adamw"].as_slice()),
    ] {
        let model = fixture(model);
        let args = [["graph", path(&model), "--out", path(folder.path())].as_slice(), options].concat();
        let output = freeze_plan(&args);
        assert!(output.status.success(), "{}", text(&output.stderr));
        last = json_of(&folder.path().join("contract.json"));
        accepts(&validator, &last, path(&model));
    }
    refuses(
        &validator,
        &last,
        &[
            Case { what: "another format", edit: |contract| contract["format"] = "x".into() },
            Case { what: "no train graph", edit: |contract| drop(drop_key(contract, "train")) },
            Case { what: "an unknown role", edit: |contract| contract["train"]["inputs"][0]["role"] = "datum".into() },
            Case {
                what: "a port without dtype",
                edit: |contract| drop(drop_key(&mut contract["eval"]["inputs"][0], "dtype")),
            },
        ],
    );
}

fn json_of(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn toml_of(text: &str) -> Value {
    serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap()
}

fn jobs(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            jobs(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "toml")
            && std::fs::read_to_string(&path).unwrap().contains("[data]")
        {
            out.push(path);
        }
    }
}

/// A job with most sections and forms of values.
const LONG: &str = r#"
model = "model.onnx"
dropout = 0.2
[data]
train = ["a.npz", "b.npz"]
eval = { images = "x.npy", labels = "y.npy" }
inputs = { x = ["p1", "p*"] }
target = { class = "labels" }
batch = 8
sampler = "weighted"
weights = "w"
types = { x = "float32" }
normalize = { columns = ["x"] }
image = { resize = [8, 9], crop = 8, normalise = "imagenet" }
augment = { random_crop = { padding = 2 }, erasing = { probability = 0.5 }, mixup = 0.2 }
[[losses]]
kind = "cross-entropy"
target = "class"
label_smoothing = 0.1
[optimizer]
kind = "adamw"
lr = 1
betas = [0.9, 0.99]
[[optimizer.groups]]
parameters = ["*.bias"]
lr_scale = 2
[schedule]
kind = "one-cycle"
pct_start = 0.2
[eval]
metrics = ["accuracy", "top-5", "f1_macro"]
best = "accuracy"
early_stopping = { metric = "train-loss", patience = 2 }
[freeze]
policy = "similarity"
measure = "cka"
threshold = 0.9
prefix_only = false
prefix = "off"
batch_norm = { affine = "train" }
rollback = { metric = "accuracy", drop = 0.01 }
[cache]
mode = "auto"
limit = "1.5 GB"
[ema]
decay = 0.99
[checkpoint]
every = 10
[run]
epochs = 3
dir = "runs"
recompute = ["encoder.*"]
nonfinite = "skip"
"#;

#[test]
fn every_job_is_valid_as_written_and_as_resolved() {
    let validator = validator(FileKind::Job);
    let mut files = Vec::new();
    jobs(&fixture(""), &mut files);
    assert!(files.len() >= 2, "{files:?}");
    for file in &files {
        accepts(&validator, &toml_of(&std::fs::read_to_string(file).unwrap()), path(file));
        let job = Job::load(file, &[]).unwrap();
        accepts(&validator, &toml_of(&job.resolved()), &format!("{} as resolved", file.display()));
    }
    accepts(&validator, &toml_of(LONG), "a long job");
    let job = Job::parse(Path::new("job.toml"), LONG, &[]).unwrap();
    accepts(&validator, &toml_of(&job.resolved()), "a long job as resolved");
    for entry in POLICIES {
        let mut job = job.clone();
        job.freeze = PlanOptions::of(entry.name);
        if entry.name == "steps" {
            job.freeze = job.freeze.with("steps", json!([{ "epoch": 3, "frozen": 4 }]));
        }
        accepts(&validator, &toml_of(&job.resolved()), entry.name);
    }
}

#[test]
fn a_job_with_a_mistake_is_not_valid() {
    let long = toml_of(LONG);
    refuses(
        &validator(FileKind::Job),
        &long,
        &[
            Case { what: "an unknown section", edit: |job| job["frezze"] = json!({}) },
            Case { what: "an unknown key of [run]", edit: |job| job["run"]["epoch"] = 1.into() },
            Case { what: "an unknown key of [optimizer]", edit: |job| job["optimizer"]["learning_rate"] = 1.into() },
            Case { what: "an unknown key of [schedule]", edit: |job| job["schedule"]["pct"] = 1.into() },
            Case { what: "a key of another schedule", edit: |job| job["schedule"]["gamma"] = 1.into() },
            Case { what: "an unknown key of [freeze]", edit: |job| job["freeze"]["treshold"] = 1.into() },
            Case { what: "a setting of another policy", edit: |job| job["freeze"]["freeze_start"] = json!(0.5) },
            Case { what: "a setting out of its range", edit: |job| job["freeze"]["threshold"] = json!(1.5) },
            Case {
                what: "a setting of a policy that is not the default",
                edit: |job| job["freeze"] = json!({ "threshold": 0.5 }),
            },
            Case { what: "no policy", edit: |job| job["freeze"]["policy"] = "similar".into() },
            Case { what: "no metric", edit: |job| job["eval"]["best"] = "acuracy".into() },
            Case { what: "no batch", edit: |job| drop(drop_key(&mut job["data"], "batch")) },
            Case { what: "a batch as text", edit: |job| job["data"]["batch"] = "8".into() },
            Case { what: "no model", edit: |job| drop(drop_key(job, "model")) },
            Case { what: "a ratio of 1", edit: |job| job["dropout"] = 1.into() },
            Case { what: "bytes without unit as text", edit: |job| job["cache"]["limit"] = "4".into() },
            Case {
                what: "an unknown key of an inner table",
                edit: |job| job["data"]["augment"]["erasing"]["p"] = 1.into(),
            },
        ],
    );
}

#[test]
fn every_event_of_a_run_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let job = digits_job(folder.path(), |job| {
        let job = job
            .replace("[freeze]", "[cache]\nmode = \"memory\"\n[ema]\ndecay = 0.9\n[checkpoint]\nevery = 5\n[freeze]");
        job + "\n[eval]\nmetrics = [\"accuracy\", \"per-class\", \"confusion\"]\n"
    });
    let mut args = vec!["train", path(&job), "--no-plan"];
    let sets = ["run.epochs=3", "run.dir=run", "run.log_every=5", "run.ceiling_steps=2", "freeze.freeze_start=0"];
    sets.iter().for_each(|set| args.extend(["--set", set]));
    let output = freeze_plan(&args);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let validator = validator(FileKind::Events);
    let run = folder.path().join("run");
    let lines = std::fs::read_to_string(run.join("events.jsonl")).unwrap();
    let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |name: &str| events.iter().find(|event| event["event"] == name);
    for name in ["start", "phase", "ceiling", "step", "epoch", "checkpoint", "proof", "end"] {
        assert!(of(name).is_some(), "no {name} in\n{lines}");
    }
    for event in &events {
        accepts(&validator, event, &event.to_string());
    }
    accepts(&self::validator(FileKind::Plan), &json_of(&run.join("plan.json")), "the plan of the run");
    let job = std::fs::read_to_string(run.join("job.toml")).unwrap();
    accepts(&self::validator(FileKind::Job), &toml_of(&job), "the job of the run");
    let mut later = of("epoch").unwrap().clone();
    later["later"] = json!(1);
    accepts(&validator, &later, "a field of a later version");
    refuses(
        &validator,
        of("epoch").unwrap(),
        &[
            Case { what: "no time", edit: |event| drop(drop_key(event, "time")) },
            Case { what: "no kind", edit: |event| drop(drop_key(event, "event")) },
            Case { what: "another kind", edit: |event| event["event"] = "era".into() },
            Case { what: "an epoch as text", edit: |event| event["epoch"] = "1".into() },
            Case { what: "no loss", edit: |event| drop(drop_key(event, "train_loss")) },
        ],
    );
}

#[test]
fn the_command_prints_the_schemas() {
    for kind in FileKind::ALL {
        let output = freeze_plan(&["schema", kind.name()]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), schema(kind), "{}", kind.name());
    }
}
