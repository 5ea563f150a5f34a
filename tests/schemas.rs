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

#[test]
fn phases_and_differences_are_valid() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("digits/model.onnx");
    let out = folder.path().join("artifacts");
    let steps = "steps=[{\"epoch\": 2, \"step\": 3, \"frozen\": 5}, {\"epoch\": 3, \"frozen\": 0}]";
    let args = ["graph", path(&model), "--classic", path(&out), "--epochs", "4", "--policy", "steps", "--set", steps];
    let output = freeze_plan(&[args.as_slice(), &["--steps", "9"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let phases = json_of(&out.join("phases.json"));
    assert!(phases["phases"][1]["when"][0]["after"] == 3, "{phases:#}");
    accepts(&validator(FileKind::Phases), &phases, "phases");
    refuses(
        &validator(FileKind::Phases),
        &phases,
        &[
            Case { what: "another format", edit: |phases| phases["format"] = "x".into() },
            Case { what: "no phases", edit: |phases| drop(drop_key(phases, "phases")) },
            Case { what: "an epoch as text", edit: |phases| phases["phases"][0]["when"][0]["last_epoch"] = "1".into() },
        ],
    );
    let plans = plans();
    let files: Vec<PathBuf> = (0..plans.len()).map(|index| folder.path().join(format!("{index}.json"))).collect();
    for (file, (_, plan)) in files.iter().zip(&plans) {
        std::fs::write(file, plan.to_string()).unwrap();
    }
    let mut last = Value::Null;
    for file in &files {
        let output = freeze_plan(&["diff", path(&files[0]), path(file), "--format", "json"]);
        last = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(last["same"] == true, file == &files[0]);
        accepts(&validator(FileKind::Diff), &last, path(file));
    }
    refuses(
        &validator(FileKind::Diff),
        &last,
        &[
            Case { what: "another format", edit: |diff| diff["format"] = "x".into() },
            Case { what: "not whether they are the same", edit: |diff| drop(drop_key(diff, "same")) },
            Case { what: "names as text", edit: |diff| diff["freezes"][0]["names"] = "conv1".into() },
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
            Case { what: "a format that nothing reads", edit: |job| job["data"]["format"] = "zip".into() },
            Case { what: "another device", edit: |job| job["run"]["device"] = "gpu".into() },
            Case { what: "a probability above 1", edit: |job| job["data"]["augment"]["vertical_flip"] = json!(1.5) },
            Case { what: "a training information 0", edit: |job| job["stage"] = 0.into() },
            Case { what: "a ratio of 1", edit: |job| job["dropout"] = 1.into() },
            Case { what: "bytes without unit as text", edit: |job| job["cache"]["limit"] = "4".into() },
            Case {
                what: "an unknown key of an inner table",
                edit: |job| job["data"]["augment"]["erasing"]["p"] = 1.into(),
            },
        ],
    );
}

/// Places of a value at which something else may stand, as JSON pointers.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_string());
    match value {
        Value::Object(object) => object.iter().for_each(|(key, value)| places(value, &format!("{at}/{key}"), out)),
        Value::Array(list) => (0..list.len()).for_each(|index| places(&list[index], &format!("{at}/{index}"), out)),
        _ => {}
    }
}

/// What is put in the place of each value of a job, and beside it, is refused by schema and reader or by neither.
#[test]
fn schema_and_reader_of_a_job_refuse_the_same() {
    let validator = validator(FileKind::Job);
    let long = toml_of(LONG);
    let mut at = Vec::new();
    places(&long, "", &mut at);
    let others = [json!(-1), json!(1.5), json!("zzz"), json!(true), json!([]), json!([1]), json!({ "zzz": 1 })];
    let (mut refused, mut differing) = (0, Vec::new());
    let mut compare = |value: &Value, what: String| {
        let by_schema = !validator.is_valid(value);
        let parsed = Job::parse(Path::new("job.toml"), &toml::to_string(value).unwrap(), &[]);
        refused += usize::from(by_schema);
        if by_schema != parsed.is_err() {
            differing.push(format!("{what}: {}", parsed.map_or_else(|error| error.to_string(), |_| "read".into())));
        }
    };
    for place in at.iter().skip(1) {
        for other in &others {
            let mut value = long.clone();
            *value.pointer_mut(place).unwrap() = other.clone();
            compare(&value, format!("{place} = {other}"));
        }
        let mut value = long.clone();
        if let Some(object) = value.pointer_mut(place).unwrap().as_object_mut() {
            object.insert("zzz".into(), json!(1));
            compare(&value, format!("{place}/zzz"));
        }
    }
    assert!(refused > 300, "{refused}");
    assert!(differing.is_empty(), "{} of {refused}:\n{}", differing.len(), differing.join("\n"));
}

/// Where a schema has keys, as paths of keys.
fn keys(root: &Value, schema: &Value, at: &[&str], out: &mut std::collections::BTreeSet<Vec<String>>) {
    let target = schema["$ref"].as_str().and_then(|name| root.pointer(name.strip_prefix('#').unwrap()));
    if let Some(target) = target.filter(|_| at.len() < 4) {
        keys(root, target, at, out);
    }
    for kind in ["anyOf", "oneOf"].iter().flat_map(|kind| schema[kind].as_array()).flatten() {
        keys(root, kind, at, out);
    }
    for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
        let path = [at, &[key.as_str()]].concat();
        out.insert(path.iter().map(ToString::to_string).collect());
        keys(root, inner, &path, out);
    }
}

/// What the schema of a job refuses for any key, its reader refuses: no editor finds fault with a job that runs.
#[test]
fn a_job_that_is_read_is_valid() {
    let validator = validator(FileKind::Job);
    let schema = schema(FileKind::Job);
    let mut all = Default::default();
    keys(&schema, &schema, &[], &mut all);
    assert!(all.len() > 150, "{}", all.len());
    let small = toml_of(
        "model = \"m.onnx\"\n[data]\ntrain = \"t.npz\"\ninputs = { x = \"x\" }\ntarget = \"y\"\nbatch = 8\n[run]\nepochs = 3\n\
         dir = \"r\"\n[loss]\nkind = \"mse\"\n[optimizer]\nkind = \"sgd\"\n",
    );
    accepts(&validator, &small, "a small job");
    let others = [-0.5, 0.5, 1.5, 99.5].map(|number| json!(number));
    let whole = [-1, 0, 1, 2].map(|number| json!(number));
    let texts = ["", "zzz", "1", "1 GB", "auto", "none"].map(|text| json!(text));
    let rest = [json!(true), json!([]), json!([1]), json!(["a"]), json!([0.1, 0.2]), json!({}), json!({ "zzz": 1 })];
    let values: Vec<&Value> = others.iter().chain(&whole).chain(&texts).chain(&rest).collect();
    let (mut read, mut differing) = (0, Vec::new());
    for path in &all {
        for value in &values {
            let mut job = small.clone();
            let mut place = &mut job;
            for key in path {
                if !place.is_object() {
                    *place = json!({});
                }
                place = &mut place[key.as_str()];
            }
            *place = (*value).clone();
            let parsed = Job::parse(Path::new("job.toml"), &toml::to_string(&job).unwrap(), &[]);
            read += usize::from(parsed.is_ok());
            if parsed.is_ok() && !validator.is_valid(&job) {
                differing.push(format!("{} = {value}", path.join(".")));
            }
        }
    }
    assert!(read > 200, "{read}");
    assert!(differing.is_empty(), "{} of {read}:\n{}", differing.len(), differing.join("\n"));
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
    for &kind in FileKind::ALL {
        let output = freeze_plan(&["schema", kind.name()]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), schema(kind), "{}", kind.name());
    }
}
