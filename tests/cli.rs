//! The program as a person meets it: commands, exit codes, one clear line for each mistake.

use crate::engines::fixture;
use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub fn freeze_plan(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_freeze-plan")).args(args).output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command that must fail and returns its first line of stderr.
pub fn fails(args: &[&str], code: i32) -> String {
    let output = freeze_plan(args);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    let line = stderr.lines().find(|line| line.starts_with("error: "));
    line.unwrap_or_else(|| panic!("{args:?} gave no error line:\n{stderr}")).to_string()
}

pub fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Copies the digits fixture into a folder and returns the job file, edited.
pub fn digits_job(folder: &Path, edit: impl Fn(String) -> String) -> PathBuf {
    for name in ["model.onnx", "train.npz", "eval.npz"] {
        std::fs::copy(fixture("digits").join(name), folder.join(name)).unwrap();
    }
    let text = std::fs::read_to_string(fixture("digits/job.toml")).unwrap();
    let file = folder.join("job.toml");
    std::fs::write(&file, edit(text)).unwrap();
    file
}

/// Writes a file as numpy's `savez` does: images float32 of a shape, labels int64.
fn npz(path: &Path, shape: &[usize], images: &[f32], labels: &[i64]) {
    let mut archive = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut array = |name: &str, dtype: &str, shape: &[usize], bytes: Vec<u8>| {
        let dims: String = shape.iter().map(|dim| format!("{dim},")).collect();
        let mut header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({dims}), }}");
        while (header.len() + 11) % 64 != 0 {
            header.push(' ');
        }
        header.push('\n');
        archive.start_file(format!("{name}.npy"), options).unwrap();
        archive.write_all(b"\x93NUMPY\x01\x00").unwrap();
        archive.write_all(&u16::try_from(header.len()).unwrap().to_le_bytes()).unwrap();
        archive.write_all(header.as_bytes()).unwrap();
        archive.write_all(&bytes).unwrap();
    };
    array("images", "<f4", shape, images.iter().flat_map(|value| value.to_le_bytes()).collect());
    array("labels", "<i8", &[labels.len()], labels.iter().flat_map(|value| value.to_le_bytes()).collect());
    archive.finish().unwrap();
}

#[test]
fn help_and_version() {
    let output = freeze_plan(&["--help"]);
    assert!(output.status.success());
    let help = text(&output.stdout);
    for word in ["train", "tree", "graph", "report", "doctor", "--freeze-start", "--format"] {
        assert!(help.contains(word), "{word} is not in\n{help}");
    }
    assert!(text(&freeze_plan(&["--version"]).stdout).starts_with("freeze-plan 0."));
}

/// Compares with a committed text; `UPDATE_SNAPSHOTS=1` writes it anew.
fn snapshot(name: &str, found: &str) {
    let file = fixture("cli").join(name);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&file, found).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(found == expected, "{name} is not as committed; it is now:\n{found}");
}

#[test]
fn help_and_preview_are_as_committed() {
    let model = fixture("digits/model.onnx");
    let all: [(&str, &[&str]); 17] = [
        ("help.txt", &["--help"]),
        ("help-attach.txt", &["attach", "--help"]),
        ("help-compare.txt", &["compare", "--help"]),
        ("help-diff.txt", &["diff", "--help"]),
        ("help-graph.txt", &["graph", "--help"]),
        ("help-init.txt", &["init", "--help"]),
        ("help-policies.txt", &["policies", "--help"]),
        ("help-schema.txt", &["schema", "--help"]),
        ("help-train.txt", &["train", "--help"]),
        (
            "compare.txt",
            &[
                "compare",
                path(&model),
                "--steps=20",
                "--policy=linear:freeze_start=0.2",
                "--policy=freezeout:t_0=0.5,how=linear",
                "--policy=steps:steps=3:4,6:0",
                "--policy=gradient",
            ],
        ),
        ("preview.txt", &[path(&model)]),
        ("preview.csv", &[path(&model), "--format", "csv"]),
        ("preview.json", &[path(&model), "--format", "json", "--epochs", "3", "--freeze-start", "0.2"]),
        ("preview.html", &[path(&model), "--format", "html"]),
        ("preview-cached.txt", &[path(&model), "--batch-norm", "frozen", "--freeze-start", "0.2", "--batch", "64"]),
        ("preview-late.txt", &[path(&model), "--freeze-start", "0.88"]),
        ("tree.txt", &["tree", path(&model)]),
    ];
    for (name, args) in all {
        let output = freeze_plan(args);
        assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {}", text(&output.stderr));
        snapshot(name, &text(&output.stdout));
    }
}

#[test]
fn policies_are_listed_and_shown() {
    let shown = |args: &[&str]| {
        let output = freeze_plan(args);
        assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let words = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words(shown(&["policies"])).contains(" freezeout Anneals the learning rate"));
    let card = shown(&["policies", "freezeout"]);
    assert!(card.starts_with("Anneals the learning rate") && card.contains("*Known negative results.*"), "{card}");
    assert!(!card.contains("//!") && !card.contains("use super"), "{card}");
    let line = fails(&["policies", "freezout"], 2);
    assert!(line.starts_with("error: there is no policy \"freezout\" (nearest: \"freezeout\")"), "{line}");
}

#[test]
fn a_policy_and_its_settings_are_taken_from_the_command_line() {
    let model = fixture("digits/model.onnx");
    let plan = |args: &[&str]| {
        let all: Vec<&str> = [path(&model), "--format", "csv"].iter().chain(args).copied().collect();
        let output = freeze_plan(&all);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let frozen = |args: &[&str]| -> Vec<usize> {
        let csv = plan(args);
        let column = csv.lines().next().unwrap().split(',').position(|name| name == "frozen_units").unwrap();
        csv.lines().skip(1).map(|line| line.split(',').nth(column).unwrap().parse().unwrap()).collect()
    };
    let steps = ["--policy", "steps", "--epochs", "8", "--set"];
    assert_eq!(frozen(&[&steps[..], &["steps=3:4,6:0"]].concat()), [0, 0, 4, 4, 4, 0, 0, 0]);
    let patterns = "steps=[{\"epoch\": 2, \"frozen\": [\"conv1\", \"re:^block1\"]}, {\"epoch\": 7, \"frozen\": 1}]";
    assert_eq!(frozen(&[&steps[..], &[patterns]].concat()), [0, 5, 5, 5, 5, 5, 1, 1]);
    assert_eq!(frozen(&["--policy", "geometric", "--unit", "leaf", "--epochs", "4"]), [0, 7, 10, 12]);
    let unknown = fails(&[path(&model), "--policy", "steps", "--set", "steps=3:4,2:0"], 2);
    assert_eq!(unknown, "error: steps, entry 2: epoch 2 does not come after epoch 3");
    let near =
        fails(&[path(&model), "--policy", "steps", "--set", "steps=[{\"epoch\": 1, \"frozen\": [\"blok1.*\"]}]"], 2);
    assert!(near.starts_with("error: steps, entry 1: pattern \"blok1.*\" matches no unit (near: "), "{near}");
}

#[test]
fn preview_in_every_format() {
    let model = fixture("digits/model.onnx");
    let table = text(&freeze_plan(&[path(&model)]).stdout);
    assert!(table.lines().all(|line| line.chars().count() <= 80), "wider than 80 columns:\n{table}");
    assert!(table.contains("28,410") || table.contains("28410"), "{table}");
    let json: serde_json::Value =
        serde_json::from_slice(&freeze_plan(&[path(&model), "--format", "json"]).stdout).unwrap();
    assert_eq!(json["format"], "freeze-plan/1");
    assert_eq!(json["units"].as_array().unwrap().len(), 13);
    assert_eq!(json["epochs"].as_array().unwrap().len(), 10);
    assert_eq!(json["epochs"][9]["frozen_units"], 9);
    assert_eq!(json["model"]["parameters"], 28410);
    let csv = text(&freeze_plan(&[path(&model), "--format", "csv", "--epochs", "3"]).stdout);
    assert_eq!(csv.lines().count(), 4, "{csv}");
    let html = text(&freeze_plan(&[path(&model), "--format", "html"]).stdout);
    assert!(
        html.starts_with("<!doctype html>") && !html.contains("http://") && !html.contains("src="),
        "self-contained"
    );
}

#[test]
fn the_class_token_and_the_positions_keep_the_backward_pass_alive() {
    let model = fixture("digits_vit/model.onnx");
    let output = freeze_plan(&[path(&model), "--unit", "composer"]);
    let preview = text(&output.stdout);
    let joined = preview.split_whitespace().collect::<Vec<&str>>().join(" ");
    for name in ["cls_token", "pos_embed"] {
        let told = format!("parameter \"{name}\" keeps the backward pass alive");
        assert!(joined.contains(&told), "{told} is not in\n{preview}");
    }
    let leaf = freeze_plan(&[path(&model)]);
    assert!(!text(&leaf.stdout).contains("alive"), "as a unit of their own they freeze");
}

#[test]
fn tree_names_the_modules() {
    let tree = text(&freeze_plan(&["tree", path(&fixture("digits/model.onnx"))]).stdout);
    for module in ["conv1", "block1", "bn2", "fc"] {
        assert!(tree.contains(module), "{module} is not in\n{tree}");
    }
}

/// ONNX Runtime divides by zero in a probing run of this one, which ends its process on x86-64.
#[test]
fn a_model_that_ends_onnx_runtime_does_not_end_the_preview() {
    crate::engines::onnxruntime();
    let output = freeze_plan(&[path(&fixture("hostile/odd_size_divide.onnx"))]);
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{stdout}\n{}", text(&output.stderr));
    if cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        assert!(stdout.contains("no probing run: ONNX Runtime ended the process"), "{stdout}");
    }
}

#[test]
fn graphs_of_a_phase() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("digits/model.onnx");
    let out = folder.path().join("graphs");
    let output = freeze_plan(&["graph", path(&model), "--out", path(&out), "--epoch", "9"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let contract: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out.join("contract.json")).unwrap()).unwrap();
    let names = |graph: &str, side: &str| -> Vec<String> {
        let ports = contract[graph][side].as_array().unwrap().iter();
        ports.map(|port| port["name"].as_str().unwrap().to_string()).collect()
    };
    let frozen: Vec<&str> = contract["frozen"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
    assert!(frozen.contains(&"conv1.weight"));
    assert!(!names("train", "inputs").contains(&"conv1.weight".to_string()));
    assert!(names("train", "outputs").contains(&"fc.weight.grad".to_string()));
    assert!(names("train", "outputs").contains(&"bn1.running_mean.next".to_string()));
    assert!(names("optimizer", "inputs").contains(&"fc.weight.momentum".to_string()));
    assert!(!names("optimizer", "inputs").iter().any(|name| name.starts_with("conv1.")));
    for file in ["train.onnx", "optimizer.onnx", "eval.onnx"] {
        let model = freeze_plan::onnx::read(&out.join(file)).unwrap().model;
        assert!((18..=21).contains(&model.opset()), "{file} has opset {}", model.opset());
        assert!(model.graph.nodes().iter().all(|node| node.op.domain.is_empty()), "{file} has only standard operators");
    }
}

/// What a frozen BatchNorm and Dropout do, by option or as the plan file says.
#[test]
fn graphs_of_still_units() {
    struct Case {
        options: &'static [&'static str],
        /// Inputs of the train graph that are not in all of them.
        inputs: &'static [&'static str],
    }
    const FROZEN: &[&str] = &["--batch-norm", "frozen", "--frozen-dropout", "off"];
    const PARTS: &[&str] = &["--batch-norm", "affine=train,statistics=frozen", "--frozen-dropout", "off"];
    const STATISTICS: [&str; 2] = ["block.1.running_mean", "block.1.running_var"];
    let cases = [
        Case { options: &[], inputs: &STATISTICS },
        Case { options: FROZEN, inputs: &[] },
        Case { options: PARTS, inputs: &["block.1.weight", "block.1.bias"] },
        Case {
            options: &["--batch-norm", "affine=train"],
            inputs: &["block.1.weight", "block.1.bias", STATISTICS[0], STATISTICS[1]],
        },
    ];
    let folder = tempfile::tempdir().unwrap();
    let (model, plan, out) = (fixture("graphs/still.onnx"), folder.path().join("plan.json"), folder.path().join("out"));
    let schedule = ["--freeze-start", "0"];
    for Case { options, inputs } in cases {
        let written = [&[path(&model), "--format", "json", "--output", path(&plan)], &schedule[..], options].concat();
        assert!(freeze_plan(&written).status.success());
        let to = ["graph", path(&model), "--out", path(&out), "--epoch", "10"];
        let by_option = [&to[..], &schedule, options].concat();
        let by_plan = [&to[..], &["--plan", path(&plan)]].concat();
        for args in [by_option, by_plan] {
            let output = freeze_plan(&args);
            assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
            let train = freeze_plan::onnx::read(&out.join("train.onnx")).unwrap().model.graph;
            let mut found: Vec<&str> = train.inputs().iter().map(|id| train.value_name(*id)).collect();
            found.retain(|name| name.starts_with("block."));
            assert_eq!(found.iter().collect::<HashSet<_>>(), inputs.iter().collect(), "{args:?}");
        }
    }
    let line = fails(&["graph", path(&model), "--out", path(&out), "--batch-norm", "eval"], 2);
    assert!(line.ends_with("found \"eval\""), "{line}");
}

#[test]
fn digits_reach_their_accuracy_and_the_trained_model_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let job = digits_job(folder.path(), |text| text);
    let output = freeze_plan(&["train", path(&job)]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let run = folder.path().join("runs/first");
    let events = std::fs::read_to_string(run.join("events.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
    assert_eq!((&last["event"], &last["status"]), (&"end".into(), &"done".into()));
    let reported = last["metrics"]["accuracy"].as_f64().unwrap();
    assert!(reported >= 0.98, "accuracy {reported}");
    assert!(events.lines().filter(|line| line.contains("\"phase\"")).count() > 2, "several phases");
    let accuracy = plain_accuracy(&run.join("model.onnx"));
    assert!((accuracy - reported).abs() < 1e-9, "plain inference gives {accuracy}, reported was {reported}");
    let (before, after) = (
        freeze_plan::onnx::read(&fixture("digits/model.onnx")).unwrap().model,
        freeze_plan::onnx::read(&run.join("model.onnx")).unwrap().model,
    );
    assert_eq!(freeze_plan::graph::dump(&before.graph), freeze_plan::graph::dump(&after.graph));
    assert_eq!((before.opsets, before.metadata, before.producer), (after.opsets, after.metadata, after.producer));
    assert!(freeze_plan(&["report", path(&run)]).status.success());
    let page = std::fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains("<b>Training loss</b>") && page.contains("<b>Time of an epoch</b>"));
    let again = fails(&["train", path(&job)], 1);
    assert!(again.contains("holds an earlier run"), "{again}");
}

#[test]
fn a_dash_is_stdout() {
    let model = fixture("digits/model.onnx");
    let printed = freeze_plan(&[path(&model), "--format", "csv"]);
    let dashed = freeze_plan(&[path(&model), "--format", "csv", "--output", "-"]);
    assert!(dashed.status.success() && !Path::new("-").exists(), "{}", text(&dashed.stderr));
    assert_eq!(text(&dashed.stdout), text(&printed.stdout));
}

#[test]
fn onnx_runtime_reports_nothing_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let job = digits_job(folder.path(), |text| text);
    let found = freeze_plan::runner::locate(&Default::default(), &mut |_| {}).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_freeze-plan"))
        .args(["train", path(&job), "--set", "run.epochs=1", "--runtime", path(&found.path)])
        .env("HOME", folder.path().join("home"))
        .env_remove("XDG_CACHE_HOME")
        .env_remove("ORT_DISABLE_TELEMETRY")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(!folder.path().join("home/.cache/Microsoft").exists());
}

/// Runs a model file as it is and returns its accuracy on the eval digits.
fn plain_accuracy(model: &Path) -> f64 {
    let data = freeze_plan::data::Dataset::open(&fixture("digits/eval.npz"), &Default::default(), None).unwrap();
    let model = freeze_plan::onnx::read(model).unwrap().model;
    let mut engine = crate::engines::onnxruntime();
    let feeds = [("x", &data.values("images").unwrap())];
    let logits = freeze_plan::runner::evaluate(&mut engine, &model, &feeds).unwrap().remove(0).to_f64s().unwrap();
    let labels = data.values("labels").unwrap().to_ints().unwrap();
    let right = labels.iter().zip(logits.chunks(10)).filter(|(label, scores)| {
        let best = (0..10).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap();
        best as i64 == **label
    });
    right.count() as f64 / labels.len() as f64
}

#[test]
fn the_embedded_executor_trains_too() {
    let folder = tempfile::tempdir().unwrap();
    let job = digits_job(folder.path(), |text| {
        text.replace("epochs = 20", "epochs = 1").replace("batch = 64", "batch = 480")
    });
    let output = freeze_plan(&["train", path(&job), "--runtime", "embedded", "--no-plan"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("tract"), "it says what it runs on");
    assert!(folder.path().join("runs/first/model.onnx").exists());
}

#[test]
fn wrong_models() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    assert!(fails(&[path(&at("none.onnx"))], 1).contains("cannot read"));
    std::fs::write(at("text.onnx"), "this is a text, not a model").unwrap();
    assert!(fails(&[path(&at("text.onnx"))], 1).contains("is no ONNX model"));
    std::fs::write(at("empty.onnx"), "").unwrap();
    assert!(fails(&[path(&at("empty.onnx"))], 1).contains("the file is empty"));
    let whole = std::fs::read(fixture("digits/model.onnx")).unwrap();
    std::fs::write(at("short.onnx"), &whole[..whole.len() / 2]).unwrap();
    assert!(fails(&[path(&at("short.onnx"))], 1).contains("cut short"));
}

#[test]
fn wrong_options() {
    let model = fixture("digits/model.onnx");
    assert!(fails(&["trian", "job.toml"], 2).contains("\"train\""));
    let level = fails(&[path(&model), "--freeze-level", "1.5"], 2);
    assert!(level.contains("freeze_level") && level.contains("[0, 1]"), "{level}");
    let epochs = fails(&[path(&model), "--epochs", "0"], 2);
    assert!(epochs.contains("epochs"), "{epochs}");
    let policy = fails(&[path(&model), "--policy", "liner"], 2);
    assert!(policy.contains("linear"), "{policy}");
    let pattern = fails(&[path(&model), "--freeze", "blok1.*"], 2);
    assert!(pattern.contains("blok1"), "{pattern}");
}

#[test]
fn wrong_jobs() {
    type Edit = fn(String) -> String;
    let cases: [(&str, Edit, i32, &[&str]); 9] = [
        ("unknown key", |t| t.replace("freeze_start", "freze_start"), 2, &["freze_start", "line", "freeze_start"]),
        ("wrong type", |t| t.replace("batch = 64", "batch = \"many\""), 2, &["batch", "line", "many"]),
        ("missing file", |t| t.replace("train.npz", "absent.npz"), 1, &["absent.npz"]),
        ("missing column", |t| t.replace("\"labels\"", "\"lables\""), 1, &["lables", "labels"]),
        ("unknown input", |t| t.replace("{ x =", "{ y ="), 1, &["\"y\"", "x"]),
        ("wrong column", |t| t.replace("x = \"images\"", "x = \"labels\""), 1, &["labels", "float32"]),
        ("unknown loss", |t| t.replace("cross-entropy", "cross-entropie"), 2, &["cross-entropie"]),
        ("device", |t| t.replace("device = \"cpu\"", "device = \"gpu\""), 2, &["gpu", "cuda:N"]),
        ("level", |t| t.replace("freeze_level = 1.0", "freeze_level = 3.0"), 2, &["freeze_level", "[0, 1]"]),
    ];
    for (name, edit, code, words) in cases {
        let folder = tempfile::tempdir().unwrap();
        let job = digits_job(folder.path(), edit);
        let line = fails(&["train", path(&job)], code);
        for word in words {
            assert!(line.contains(word), "{name}: \"{word}\" is not in: {line}");
        }
        assert!(!folder.path().join("runs/first/model.onnx").exists(), "{name}: nothing is written");
    }
}

#[test]
fn a_refused_run_leaves_the_earlier_one_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let job = digits_job(folder.path(), |text| text);
    let run = folder.path().join("runs/first");
    std::fs::create_dir_all(&run).unwrap();
    for name in ["events.jsonl", "model.onnx"] {
        std::fs::write(run.join(name), "of an earlier run").unwrap();
    }
    fails(&["train", path(&job), "--overwrite", "--set", "optimizer.lr=-1"], 2);
    fails(&["train", path(&job), "--overwrite", "--runtime", "/no/such/library.so"], 1);
    let same = fails(&["train", path(&job), "--set", "run.dir=."], 1);
    assert!(same.contains("job.toml") || same.contains("model.onnx"), "{same}");
    let nothing = fails(&["train", path(&job), "--overwrite", "--set", "freeze.freeze=[\"*\"]"], 1);
    assert!(nothing.contains("nothing trains"), "{nothing}");
    let mut left: Vec<_> = std::fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["events.jsonl", "model.onnx"]);
    assert_eq!(std::fs::read_to_string(run.join("model.onnx")).unwrap(), "of an earlier run");
}

#[test]
fn freezing_that_does_not_fit_the_job_is_refused_before_the_folder_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let job = digits_job(folder.path(), |text| {
        text.lines().filter(|line| !line.starts_with("eval =")).fold(String::new(), |all, line| all + line + "\n")
    });
    let earlier = folder.path().join("runs/first/events.jsonl");
    std::fs::create_dir_all(earlier.parent().unwrap()).unwrap();
    std::fs::write(&earlier, "earlier\n").unwrap();
    let cases = [
        ("freeze.policy=freezeout", "anneals the rate of each unit: leave out [schedule]"),
        (
            "freeze.rollback={metric=\"accuracy\",drop=0.1}",
            "\"accuracy\", which the eval data do not give: the job has no eval data",
        ),
    ];
    for (setting, expected) in cases {
        let line = fails(&["train", path(&job), "--overwrite", "--no-plan", "--set", setting], 2);
        assert!(line.contains(expected), "{line}");
        assert_eq!(std::fs::read_to_string(&earlier).unwrap(), "earlier\n", "{setting}");
    }
}

#[test]
fn models_that_do_not_fit_training_are_refused_before_it() {
    use freeze_plan::graph::{Attributes, Builder, DType, Fact, Model, Tensor};
    let folder = tempfile::tempdir().unwrap();
    let model = |output: &str| {
        let mut b = Builder::new("fixed");
        let x = b.input("x", Fact::fixed(DType::F32, &[3, 1, 8, 8]));
        let w = b.initializer("fc.weight", Tensor::from_vec(&[64, 10], vec![0.01f32; 640]));
        let shape = b.ints("shape", &[0, -1]);
        let flat = b.op("Reshape", &[x, shape], Attributes::none());
        let y = b.op("MatMul", &[flat, w], Attributes::none());
        b.rename(y, output);
        b.mark_output(y);
        let opsets = [(String::new(), 18)].into_iter().collect();
        freeze_plan::onnx::to_bytes(&Model { graph: b.finish(), opsets, ir_version: 8, ..Model::default() })
    };
    let job = digits_job(folder.path(), |text| text);
    std::fs::write(folder.path().join("model.onnx"), model("y")).unwrap();
    let line = fails(&["train", path(&job)], 1);
    assert!(line.contains("exactly 3") && line.contains("64"), "{line}");
    std::fs::write(folder.path().join("model.onnx"), model("target")).unwrap();
    let line = fails(&["train", path(&job), "--set", "data.batch=3"], 3);
    assert!(line.contains("\"target\""), "{line}");
}

#[test]
fn wrong_data() {
    let folder = tempfile::tempdir().unwrap();
    let job = digits_job(folder.path(), |text| text.replace("eval = \"eval.npz\"\n", ""));
    let train = folder.path().join("train.npz");
    let images = |count: usize| vec![0.5f32; count * 64];
    let mut labels: Vec<i64> = (0..70).map(|row| row % 10).collect();
    labels[12] = 10;
    npz(&train, &[70, 1, 8, 8], &images(70), &labels);
    let line = fails(&["train", path(&job)], 1);
    assert!(line.contains("12") && line.contains("10") && line.contains('9'), "{line}");
    labels[12] = 1;
    npz(&train, &[70, 8, 8, 1], &images(70), &labels);
    let line = fails(&["train", path(&job)], 1);
    assert!(line.contains("[batch,1,8,8]") && line.contains("8, 8, 1") || line.contains("8,8,1"), "{line}");
    npz(&train, &[70, 1, 8, 8], &vec![f32::NAN; 70 * 64], &labels);
    let line = fails(&["train", path(&job)], 4);
    assert!(line.contains("NaN") && line.contains("epoch 1"), "{line}");
    assert!(!folder.path().join("runs/first/model.onnx").exists());
}

#[test]
fn an_operator_without_a_rule_is_named_with_its_module() {
    use freeze_plan::graph::{Attributes, Builder, DType, Dim, Fact, Model, OpId, Tensor};
    let folder = tempfile::tempdir().unwrap();
    let mut b = Builder::new("inverse");
    let x = b.input("x", Fact::new(DType::F32, vec![Dim::Symbol("batch".into()), Dim::Known(4)]));
    let w = b.initializer("head.weight", Tensor::from_vec(&[4, 4], vec![0.1f32; 16]));
    let y = b.op("MatMul", &[x, w], Attributes::none());
    let shape = b.ints("shape", &[-1, 2, 2]);
    let square = b.op("Reshape", &[y, shape], Attributes::none());
    let op = OpId { domain: "com.microsoft".into(), name: "Inverse".into() };
    let inverse = b.ops(&op, &[Some(square)], Attributes::none(), 1)[0];
    b.rename(inverse, "y");
    b.mark_output(inverse);
    let opsets = [(String::new(), 18), ("com.microsoft".into(), 1)].into_iter().collect();
    let model = Model { graph: b.finish(), opsets, ir_version: 8, ..Model::default() };
    let file = folder.path().join("inverse.onnx");
    std::fs::write(&file, freeze_plan::onnx::to_bytes(&model)).unwrap();
    assert!(freeze_plan(&[path(&file)]).status.success(), "it can be planned");
    let line = fails(&["graph", path(&file), "--out", path(&folder.path().join("out")), "--loss", "mse"], 3);
    assert!(
        line.contains("com.microsoft.Inverse")
            && line.contains("18")
            && !line.contains("Reshape")
            && line.contains("head.weight"),
        "{line}"
    );
    assert!(!folder.path().join("out").exists(), "nothing is written");
}

#[test]
fn a_missing_external_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("external.onnx");
    std::fs::write(&file, external_model()).unwrap();
    let line = fails(&[path(&file)], 1);
    assert!(line.contains("weights.bin") && line.contains("\"w\""), "{line}");
}

#[test]
fn external_data_are_read_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("external.onnx");
    std::fs::write(&file, external_model()).unwrap();
    let weights = folder.path().join("weights.bin");
    std::fs::write(&weights, [1f32, -2.0].map(f32::to_le_bytes).concat()).unwrap();
    let model = freeze_plan::onnx::read(&file).unwrap();
    let (_, _, tensor) = model.model.graph.initializers().next().unwrap();
    assert_eq!(tensor.to_vec::<f32>().unwrap(), [1.0, -2.0]);
    let edits = freeze_plan::onnx::Edits { embed_external: true, ..Default::default() };
    let alone = folder.path().join("alone.onnx");
    std::fs::write(&alone, model.rewrite(&edits).unwrap()).unwrap();
    std::fs::write(&weights, [0u8; 4]).unwrap();
    assert!(freeze_plan::onnx::read(&alone).is_ok(), "it needs the external file no more");
    let line = fails(&[path(&file)], 1);
    assert!(line.contains("8 bytes") && line.contains('4'), "{line}");
}

/// A model whose one initializer lies in `weights.bin`, written byte by byte.
fn external_model() -> Vec<u8> {
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, content.len() as u8], content].concat()
    }
    let entry = |key: &str, value: &str| [field(1, key.as_bytes()), field(2, value.as_bytes())].concat();
    let mut tensor = vec![0x08, 2, 0x10, 1];
    tensor.extend(field(8, b"w"));
    tensor.extend(field(13, &entry("location", "weights.bin")));
    tensor.extend([0x70, 1]);
    let node = [field(1, b"w"), field(2, b"y"), field(4, b"Relu")].concat();
    let graph = [field(1, &node), field(2, b"g"), field(5, &tensor), field(12, &field(1, b"y"))].concat();
    let mut model = vec![0x08, 8];
    model.extend(field(7, &graph));
    model.extend(field(8, &[0x10, 18]));
    model
}

#[test]
fn a_wrong_runtime_is_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let job = digits_job(folder.path(), |text| text);
    let text = folder.path().join("libonnxruntime.so");
    std::fs::write(&text, "not a library").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_freeze-plan"))
        .args(["train", path(&job), "--no-plan"])
        .env("ORT_DYLIB_PATH", &text)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("libonnxruntime.so") && stderr.contains("ORT_DYLIB_PATH"), "{stderr}");
}

#[cfg(unix)]
#[test]
fn an_unwritable_folder_is_named_before_training() {
    let folder = tempfile::tempdir().unwrap();
    let job = digits_job(folder.path(), |text| text.replace("runs/first", "blocked/run"));
    std::fs::write(folder.path().join("blocked"), "a file, not a folder").unwrap();
    let line = fails(&["train", path(&job)], 1);
    assert!(line.contains("blocked"), "{line}");
}
