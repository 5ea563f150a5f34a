//! `freeze-plan init`: the job that it writes trains.

use crate::cli::{fails, freeze_plan, path, text};
use crate::engines::fixture;
use freeze_plan::data::read_tensors;
use freeze_plan::graph::Tensor;
use freeze_plan::runner::Job;
use safetensors::tensor::{Dtype, TensorView};
use std::path::Path;

/// Writes columns of a fixture under names of their own.
fn columns(from: &str, names: &[(&str, &str)], to: &Path) {
    let wanted: Vec<&str> = names.iter().map(|name| name.0).collect();
    let tensors = read_tensors(&fixture(from), Some(&wanted)).unwrap();
    let view = |tensor: &Tensor| {
        let dtype = if tensor.dtype().is_float() { Dtype::F32 } else { Dtype::I64 };
        (dtype, tensor.shape().to_vec(), tensor.bytes().to_vec())
    };
    let views: Vec<(&str, _)> = names
        .iter()
        .map(|(name, column)| (*column, view(&tensors.iter().find(|tensor| tensor.0 == *name).unwrap().1)))
        .collect();
    let views = views
        .iter()
        .map(|(name, (dtype, shape, bytes))| (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, to).unwrap();
}

struct Case {
    model: &'static str,
    /// Data file of the fixtures, and what its columns are called here.
    data: (&'static str, &'static [(&'static str, &'static str)]),
    /// Kind of the loss; `None` where the files of the model say it.
    loss: Option<&'static str>,
    inputs: &'static [(&'static str, &'static str)],
    target: &'static str,
}

#[test]
fn the_job_of_a_model_and_its_data_trains() {
    let cases = [
        Case {
            model: "digits/model.onnx",
            data: ("digits/train.npz", &[("labels", "labels"), ("images", "images")]),
            loss: Some("cross-entropy"),
            inputs: &[("x", "images")],
            target: "labels",
        },
        Case {
            model: "models/gpt2.dynamo.onnx",
            data: ("models/gpt2.npz", &[("target", "next"), ("ids", "ids"), ("mask", "attention_mask")]),
            loss: Some("cross-entropy"),
            inputs: &[("ids", "ids"), ("mask", "attention_mask")],
            target: "next",
        },
        Case {
            model: "models/graph.dynamo.onnx",
            data: ("models/graph.npz", &[("target", "y"), ("adjacency", "adjacency"), ("x", "nodes")]),
            loss: Some("cross-entropy"),
            inputs: &[("adjacency", "adjacency"), ("x", "nodes")],
            target: "y",
        },
        Case {
            model: "classic/gate",
            data: (
                "classic/gate/oracle.npz",
                &[("target", "target"), ("input.left", "left"), ("input.right", "right")],
            ),
            loss: None,
            inputs: &[("left", "left"), ("right", "right")],
            target: "target",
        },
        Case {
            model: "classic/convnet",
            data: ("classic/convnet/oracle.npz", &[("target", "classes"), ("input.x", "pixels")]),
            loss: None,
            inputs: &[("x", "pixels")],
            target: "classes",
        },
        Case {
            model: "training_info/mlp_adam.onnx",
            data: ("training_info/mlp_adam.npz", &[("label", "label"), ("x", "x")]),
            loss: None,
            inputs: &[("x", "x")],
            target: "label",
        },
    ];
    for Case { model, data, loss, inputs, target } in cases {
        let folder = tempfile::tempdir().unwrap();
        let (file, job) = (folder.path().join("train.safetensors"), folder.path().join("jobs/job.toml"));
        columns(data.0, data.1, &file);
        let output = freeze_plan(&["init", path(&fixture(model)), "--data", path(&file), "--out", path(&job)]);
        let told = text(&output.stderr);
        assert!(output.status.success() && told.is_empty(), "{model}: {told}");
        let read = Job::load(&job, &[]).unwrap();
        let found: Vec<(&str, &str)> =
            read.data.inputs.iter().map(|(a, b)| (a.as_str(), b.patterns()[0].as_str())).collect();
        assert_eq!(found, inputs, "{model}");
        assert_eq!(read.loss.map(|loss| loss.kind.name()), loss, "{model}");
        assert_eq!(read.data.target.unwrap().column(None), Some(&target.into()), "{model}");
        let output =
            freeze_plan(&["train", path(&job), "--quiet", "--set", "run.epochs=2", "--set", "run.ceiling_steps=0"]);
        assert!(output.status.success(), "{model}: {}", text(&output.stderr));
        assert!(folder.path().join("jobs/runs/first/model.onnx").exists(), "{model}");
    }
}

#[test]
fn digits_of_the_job_that_was_written_are_learnt() {
    let folder = tempfile::tempdir().unwrap();
    let (job, data) = (folder.path().join("job.toml"), fixture("digits/train.npz"));
    assert!(
        freeze_plan(&["init", path(&fixture("digits/model.onnx")), "--data", path(&data), "--out", path(&job)])
            .status
            .success()
    );
    let eval = format!("data.eval=\"{}\"", path(&fixture("digits/eval.npz")));
    let output = freeze_plan(&["train", path(&job), "--quiet", "--set", &eval, "--set", "run.epochs=6"]);
    let told = text(&output.stdout);
    let accuracy = told.split("accuracy ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
    assert!(accuracy.is_some_and(|accuracy| accuracy > 90.0), "{told}{}", text(&output.stderr));
}

#[test]
fn a_file_that_exists_is_kept_and_what_does_not_fit_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (job, model) = (folder.path().join("job.toml"), fixture("digits/model.onnx"));
    std::fs::write(&job, "mine").unwrap();
    let line = fails(&["init", path(&model), "--out", path(&job)], 1);
    assert!(line.contains("exists already"), "{line}");
    assert_eq!(std::fs::read_to_string(&job).unwrap(), "mine");
    assert!(freeze_plan(&["init", path(&model), "--out", path(&job), "--force"]).status.success());
    assert!(Job::load(&job, &[]).unwrap().data.train.paths()[0].ends_with("train.npz"));
    let data = folder.path().join("other.safetensors");
    columns("models/gpt2.npz", &[("ids", "ids")], &data);
    let output = freeze_plan(&["init", path(&model), "--data", path(&data), "--out", "-"]);
    let told = text(&output.stderr);
    assert!(output.status.success() && told.contains("no column fits the input x float32[batch,1,8,8]"), "{told}");
    assert!(told.contains("no column is left that fits a target"), "{told}");
    Job::parse(Path::new("job.toml"), &text(&output.stdout), &[]).unwrap();
}

#[test]
fn a_table_of_numbers_and_a_class_by_name_is_a_vector_and_a_target() {
    let folder = tempfile::tempdir().unwrap();
    let data = freeze_plan::data::Dataset::open(&fixture("freezing/mlp.npz"), &Default::default(), None).unwrap();
    let (x, labels) = (data.values("x").unwrap(), data.values("labels").unwrap().to_ints().unwrap());
    let width = x.shape()[1];
    let names: Vec<String> = (0..width).map(|column| format!("v{column}")).collect();
    let mut table = format!("{},kind\n", names.join(","));
    for (row, label) in x.to_f64s().unwrap().chunks(width).zip(labels) {
        let row: Vec<String> = row.iter().map(|value| value.to_string()).collect();
        table += &format!("{},class {label}\n", row.join(","));
    }
    let (file, job) = (folder.path().join("train.csv"), folder.path().join("job.toml"));
    std::fs::write(&file, table).unwrap();
    let model = fixture("freezing/mlp.onnx");
    let output = freeze_plan(&["init", path(&model), "--data", path(&file), "--out", path(&job)]);
    assert!(output.status.success() && text(&output.stderr).is_empty(), "{}", text(&output.stderr));
    let read = Job::load(&job, &[]).unwrap();
    assert_eq!(read.data.inputs["x"].patterns(), names);
    assert_eq!(read.data.target.unwrap().column(None), Some(&"kind".into()));
    let output =
        freeze_plan(&["train", path(&job), "--quiet", "--set", "run.epochs=2", "--set", "run.ceiling_steps=0"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let written = std::fs::read_to_string(folder.path().join("runs/first/job.toml")).unwrap();
    assert!(written.contains("kind = [\"class 0\", \"class 1\""), "{written}");
}
