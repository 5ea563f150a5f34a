//! `freeze-plan compare` as a person meets it.

use crate::cli::{fails, freeze_plan, path, text};
use crate::engines::fixture;
use serde_json::Value;

fn shown(args: &[&str]) -> String {
    let output = freeze_plan(args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Returns the columns of a table by name.
fn columns(csv: &str, names: [&str; 2]) -> Vec<[String; 2]> {
    let head: Vec<&str> = csv.lines().next().unwrap().split(',').collect();
    let places = names.map(|name| head.iter().position(|column| *column == name).unwrap());
    let row = |line: &str| places.map(|place| line.split(',').nth(place).unwrap().to_string());
    csv.lines().skip(1).map(row).collect()
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let model = fixture("digits/model.onnx");
    let compare = |args: &[&str]| fails(&[&["compare", path(&model)], args].concat(), 2);
    let one = compare(&["--policy", "linear"]);
    assert_eq!(one, "error: only \"linear\" is given: a comparison takes two plans or more");
    let unknown = compare(&["--policy", "liner", "--policy", "none"]);
    assert!(unknown.contains("no policy \"liner\" (nearest: \"linear\")"), "{unknown}");
    let setting = compare(&["--policy", "linear:freeze_strat=0.1", "--policy", "none"]);
    assert!(setting.contains("policy linear: policy \"linear\" has no setting \"freeze_strat\""), "{setting}");
    let form = compare(&["--policy", "linear:0.1", "--policy", "none"]);
    assert_eq!(form, "error: --policy \"linear:0.1\": \"0.1\" is not KEY=VALUE");
    let pattern = compare(&["--freeze", "nothing*"]);
    assert!(pattern.starts_with("error: freeze pattern \"nothing*\" matches no unit"), "{pattern}");
    let epochs = compare(&["--epochs", "0"]);
    assert_eq!(epochs, "error: epochs is 0, expected 1 to 1000000");
}

#[test]
fn without_policies_all_that_can_be_told_ahead_are_compared() {
    let csv = shown(&["compare", path(&fixture("digits/model.onnx")), "--format", "csv"]);
    let mut known: Vec<[String; 2]> = columns(&csv, ["policy", "known"]);
    known.dedup();
    let names: Vec<&str> = known.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(names, ["linear", "freezeout", "svcca-linear", "geometric", "thaw", "cyclic", "none"]);
    assert!(known.iter().all(|row| row[1] == "ahead"), "{known:?}");
}

#[test]
fn each_plan_is_what_the_preview_shows() {
    let model = fixture("digits/model.onnx");
    let common = ["--epochs", "6", "--keep", "fc", "--batch-norm", "frozen", "--batch", "8"];
    let compared = [&["compare", path(&model), "--format", "json"], &common[..]].concat();
    let policies = ["--policy", "linear:freeze_start=0.2", "--policy", "linear", "--policy", "steps:steps=3:4,6:0"];
    let value: Value = serde_json::from_str(&shown(&[&compared[..], &policies].concat())).unwrap();
    assert_eq!(value["format"], "freeze-plan-compare/1");
    let cases: [&[&str]; 3] = [&["--freeze-start", "0.2"], &[], &["--policy", "steps", "--set", "steps=3:4,6:0"]];
    assert_eq!(value["plans"].as_array().unwrap().len(), cases.len());
    for (plan, args) in value["plans"].as_array().unwrap().iter().zip(cases) {
        let preview = shown(&[&[path(&model), "--format", "json"], &common[..], args].concat());
        assert_eq!(*plan, serde_json::from_str::<Value>(&preview).unwrap(), "{args:?}");
    }
}

#[test]
fn a_plan_file_must_be_of_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("digits/model.onnx");
    let file = folder.path().join("plan.json");
    let write = |edit: &dyn Fn(&mut Value)| {
        let args = [path(&model), "--format", "json", "--epochs", "7", "--freeze-start", "0", "--batch", "16"];
        let mut plan = serde_json::from_str(&shown(&args)).unwrap();
        edit(&mut plan);
        std::fs::write(&file, plan.to_string()).unwrap();
    };
    let args = ["compare", path(&model), "--policy", "none", "--plan", path(&file)];
    write(&|_| ());
    let table = shown(&args).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(table.contains("2 plans compared over 7 epochs"), "its length is that of the file: {table}");
    assert!(table.contains("of a step at batch 16"), "its batch too: {table}");
    assert!(table.contains("2: a plan of the same file, by its SHA-256"), "{table}");
    write(&|plan| plan["model"]["sha256"] = "0".repeat(64).into());
    let table = shown(&args).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(table.contains("of another file with the same parameters, by their names"), "{table}");
    write(&|plan| {
        plan["model"]["sha256"] = "0".repeat(64).into();
        plan["model"]["parameters"] = 7.into();
    });
    let line = fails(&args, 1);
    assert!(line.contains("is a plan for model.onnx (sha256 000000000000), not for "), "{line}");
    let line = fails(&["compare", path(&fixture("digits_vit/model.onnx")), "--plan", path(&file)], 1);
    assert!(line.contains("and their parameters differ"), "{line}");
}

#[test]
fn what_a_run_decides_is_not_told_ahead() {
    let model = fixture("digits/model.onnx");
    let table = shown(&["compare", path(&model), "--policy", "gradient", "--policy", "none"]);
    let row = table.lines().find(|line| line.starts_with("1  gradient  ")).unwrap();
    assert!(row.split_whitespace().skip(2).all(|cell| cell == "?"), "{table}");
    assert!(table.contains("decides by what the run measures: what it freezes is not known ahead"), "{table}");
}

#[test]
fn shares_within_epochs_are_means_over_their_steps() {
    let model = fixture("digits/model.onnx");
    let policy = r#"--policy=steps:steps=[{"epoch": 2, "step": 5, "frozen": 13}]"#;
    let args = ["compare", path(&model), "--steps", "20", "--epochs", "3", policy, "--policy", "none"];
    let csv = shown(&[&args[..], &["--format", "csv"]].concat());
    let csv: String =
        csv.lines().map(|line| line.rsplit_once("\",").map_or(line, |line| line.1).to_string() + "\n").collect();
    let shares: Vec<&str> = csv.lines().skip(1).take(3).map(|line| line.split(',').nth(5).unwrap()).collect();
    assert_eq!(shares, ["0", "0.75", "1"], "{csv}");
    let table = shown(&args);
    assert!(table.contains("2+5") && table.contains(".▆█"), "{table}");
}

#[test]
fn every_format_fits_its_place() {
    let model = fixture("models/densenet.torchscript.onnx");
    let args = [
        "compare",
        path(&model),
        "--epochs",
        "300",
        "--steps",
        "7",
        "--policy=linear:freeze_start=0.25,freeze_level=0.75,arithmetic=exact",
        "--policy=cyclic",
        "--policy=budget",
    ];
    let table = shown(&args);
    assert!(table.lines().all(|line| line.chars().count() <= 80), "wider than 80 columns:\n{table}");
    let html = shown(&[&args[..], &["--format", "html"]].concat());
    assert!(html.starts_with("<!doctype html>") && html.ends_with("</html>\n"));
    assert!(!html.contains("http") && !html.contains("src=") && !html.contains("<script"), "self-contained");
}
