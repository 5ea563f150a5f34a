//! Models that leave sizes open: what is fixed where a gradient needs it, and what is said.

use freeze_plan::graph::{Attributes, Builder, DType, Dim, Fact, Model, Tensor};
use freeze_plan::onnx::to_bytes;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

fn freeze_plan(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_freeze-plan")).current_dir(folder).args(args).output().unwrap()
}

fn wave(shape: &[usize]) -> Tensor {
    let count = shape.iter().product();
    Tensor::from_vec::<f32>(shape, (0..count).map(|index| (index * 37 % 97) as f32 / 97.0 - 0.5).collect())
}

/// Two convolutions of which the second needs the sizes of its input: along rows where `rows`, otherwise
/// along an axis of its own. Its spatial axes or its batch are open.
fn model(rows: bool) -> Model {
    let mut b = Builder::new("open");
    let symbol = |name: &str| Dim::Symbol(name.into());
    let dims = match rows {
        true => vec![symbol("N"), Dim::Known(3)],
        false => vec![symbol("N"), Dim::Known(3), symbol("T")],
    };
    let mut x = b.input("x", Fact::new(DType::F32, dims));
    if rows {
        let axes = b.ints("axes", &[0]);
        let turned = b.op("Transpose", &[x], Attributes::none().with("perm", vec![1i64, 0]));
        x = b.op("Unsqueeze", &[turned, axes], Attributes::none());
    }
    for name in ["first", "second"] {
        let weight = b.initializer(&format!("{name}.weight"), wave(&[3, 3, 3]));
        x = b.op("Conv", &[x, weight], Attributes::none().with("pads", vec![1i64, 1]));
    }
    if rows {
        let axes = b.ints("axes", &[0]);
        let turned = b.op("Squeeze", &[x, axes], Attributes::none());
        x = b.op("Transpose", &[turned], Attributes::none().with("perm", vec![1i64, 0]));
    }
    b.output(x, "y");
    Model { graph: b.finish(), opsets: BTreeMap::from([(String::new(), 18)]), ir_version: 8, ..Model::default() }
}

/// Writes columns as `.safetensors`.
fn data(path: &Path, columns: &[(&str, Tensor)]) {
    let mut entries = Vec::new();
    let mut at = 0;
    for (name, tensor) in columns {
        let end = at + tensor.bytes().len();
        entries.push(format!(
            "\"{name}\":{{\"dtype\":\"F32\",\"shape\":{:?},\"data_offsets\":[{at},{end}]}}",
            tensor.shape()
        ));
        at = end;
    }
    let header = format!("{{{}}}", entries.join(","));
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    columns.iter().for_each(|(_, tensor)| file.write_all(tensor.bytes()).unwrap());
}

const JOB: &str = r#"model = "model.onnx"
[data]
train = "rows.safetensors"
inputs = { x = "x" }
target = "y"
batch = 4
[loss]
kind = "mse"
[optimizer]
kind = "sgd"
lr = 0.1
[freeze]
policy = "none"
[run]
epochs = 2
dir = "run"
"#;

fn train(folder: &Path, sets: &[&str]) -> (Option<i32>, String) {
    std::fs::write(folder.join("job.toml"), JOB).unwrap();
    let mut args = vec!["train", "job.toml", "--overwrite", "--no-plan"];
    sets.iter().for_each(|set| args.extend(["--set", set]));
    let output = freeze_plan(folder, &args);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_job_fixes_sizes_to_those_of_its_data_where_a_gradient_needs_them() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.onnx"), to_bytes(&model(false))).unwrap();
    data(&folder.path().join("rows.safetensors"), &[("x", wave(&[10, 3, 6])), ("y", wave(&[10, 3, 6]))]);
    let (code, text) = train(folder.path(), &[]);
    assert_eq!(code, Some(0), "{text}");
    let notes: Vec<&str> = text.lines().filter(|line| line.starts_with("note: ")).collect();
    assert_eq!(notes.len(), 1, "{text}");
    assert!(notes[0].contains("Conv") && notes[0].ends_with("the sizes of the data: x float32[N,3,6]"), "{text}");
    let plan = std::fs::read_to_string(folder.path().join("run/plan.json")).unwrap();
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    assert_eq!(plan["assumed"]["inputs"]["x"], serde_json::json!([4, 3, 6]));
    // 2 * 4 rows * 6 places * 3 channels * 9 weights for each of two convolutions.
    assert_eq!(plan["epochs"][0]["predicted"]["forward_flops"], 2 * 2 * 4 * 6 * 3 * 9);
    data(&folder.path().join("other.safetensors"), &[("x", wave(&[10, 3, 5])), ("y", wave(&[10, 3, 5]))]);
    let (code, text) = train(folder.path(), &["data.eval=other.safetensors"]);
    assert!(code == Some(1) && text.contains("expected float32[N,3,6], found float32[10,3,5]"), "{text}");
}

#[test]
fn a_job_fixes_the_batch_where_a_gradient_needs_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.onnx"), to_bytes(&model(true))).unwrap();
    data(&folder.path().join("rows.safetensors"), &[("x", wave(&[10, 3])), ("y", wave(&[10, 3]))]);
    let (code, text) = train(folder.path(), &[]);
    assert!(code == Some(1) && text.contains("Conv") && text.contains("batches of exactly 4"), "{text}");
    assert!(text.contains("hint: ") && text.contains("last_batch"), "{text}");
    let (code, text) = train(folder.path(), &["data.last_batch=drop"]);
    assert!(code == Some(0) && text.contains("the sizes of the data: x float32[4,3]"), "{text}");
}

#[test]
fn the_graphs_of_a_phase_are_for_the_sizes_given_where_a_gradient_needs_them() {
    let folder = tempfile::tempdir().unwrap();
    let graph = |args: &[&str]| {
        let base = ["graph", "model.onnx", "--out", "out", "--loss", "mse"];
        let output = freeze_plan(folder.path(), &[&base, args].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    std::fs::write(folder.path().join("model.onnx"), to_bytes(&model(false))).unwrap();
    for args in [&[][..], &["--batch", "4"]] {
        let (code, text) = graph(args);
        assert!(code == Some(3) && text.contains("error: module \"second\": node"), "{text}");
        assert!(text.contains("hint: fix the sizes with --shape x=D,D,.. (float32["), "{text}");
        assert!(!folder.path().join("out").exists());
    }
    let input = || {
        let contract = std::fs::read_to_string(folder.path().join("out/contract.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&contract).unwrap()["train"]["inputs"][0]["shape"].clone()
    };
    let (code, text) = graph(&["--shape", "x=4,3,6"]);
    assert!(code == Some(0) && text.contains("the sizes given: x float32[N,3,6]"), "{text}");
    assert_eq!(input(), serde_json::json!(["N", 3, 6]), "the batch stays open");
    std::fs::write(folder.path().join("model.onnx"), to_bytes(&model(true))).unwrap();
    let (code, text) = graph(&[]);
    assert!(code == Some(3) && text.contains("hint: fix the batch size with --batch N"), "{text}");
    for args in [["--batch", "4"], ["--shape", "x=4,3"]] {
        let (code, text) = graph(&args);
        assert_eq!(code, Some(0), "{text}");
        assert_eq!(input(), serde_json::json!([4, 3]));
    }
}
