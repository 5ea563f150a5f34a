//! `freeze-plan report` as a person meets it: folders that are runs, folders that are none, runs that are damaged.

use crate::cli::{freeze_plan, path, text};
use crate::engines::fixture;
use std::fs;
use std::path::Path;

const EVENTS: [&str; 4] = [
    r#"{"event":"start","version":"0.1.0","engine":"onnxruntime","engine_version":"1.32.0","device":"cpu","threads":2,"parameters":28410,"epochs":3,"steps":69,"samples":1437,"time":0.1}"#,
    r#"{"event":"phase","epoch":1,"frozen":0,"frozen_units":0,"seconds":0.05,"predicted_step_cost":1.0,"nodes":391,"time":0.2}"#,
    r#"{"event":"step","epoch":1,"step":10,"loss":1.5,"lr":0.1,"seconds":0.01,"time":0.4}"#,
    r#"{"event":"epoch","epoch":1,"train_loss":1.25,"metrics":{"accuracy":0.85,"loss":0.75},"seconds":0.3,"samples_per_second":4790,"peak_bytes":94060544,"time":0.5}"#,
];

/// Makes the folder of a run of the digits.
fn run(folder: &Path, job: &str) {
    fs::create_dir_all(folder).unwrap();
    let model = fixture("digits/model.onnx");
    let plan = folder.join("plan.json");
    let made = freeze_plan(&[path(&model), "--epochs", "3", "--format", "json", "--output", path(&plan)]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    fs::write(folder.join("job.toml"), job).unwrap();
    fs::write(folder.join("events.jsonl"), EVENTS.map(|line| format!("{line}\n")).concat()).unwrap();
}

/// Returns stdout and stderr of a report that must succeed.
fn report(args: &[&str]) -> [String; 2] {
    let output = freeze_plan(&[&["report"], args].concat());
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    [text(&output.stdout), text(&output.stderr)]
}

/// Returns error and hint of a report that must be refused, with the folder's own path as `..`.
fn refused(folder: &Path, run: &Path) -> String {
    let output = freeze_plan(&["report", path(run)]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    text(&output.stderr).replace(path(folder), "..")
}

#[test]
fn a_folder_that_is_no_run_is_told_what_was_expected_and_found() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let expected = "expected the folder of a run, with events.jsonl, plan.json and job.toml";
    let hint = "hint: a run's folder is run.dir of its job, relative to the job file\n";
    fs::create_dir(folder.join("empty")).unwrap();
    fs::create_dir(folder.join("data")).unwrap();
    for name in ["train.npz", "eval.npz", "plan.json"] {
        fs::write(folder.join("data").join(name), "{}").unwrap();
    }
    for number in 0..12 {
        fs::create_dir_all(folder.join(format!("many/{number:02}"))).unwrap();
    }
    run(&folder.join("runs/first"), "");
    fs::write(folder.join("runs/notes.txt"), "").unwrap();
    let cases = [
        ("missing", format!("error: ../missing is no run: {expected}, but there is nothing of this name\n{hint}")),
        ("empty", format!("error: ../empty is no run: {expected}, it is empty\n{hint}")),
        ("data", format!("error: ../data is no run: {expected}, found eval.npz, plan.json, train.npz\n{hint}")),
        (
            "many",
            format!("error: ../many is no run: {expected}, found 00, 01, 02, 03, 04, 05, 06, 07 and 4 more\n{hint}"),
        ),
        (
            "runs",
            format!(
                "error: ../runs is no run: {expected}, found first, notes.txt\nhint: it holds 1 run, such as ../runs/first\n"
            ),
        ),
        (
            "runs/first/events.jsonl",
            format!(
                "error: ../runs/first/events.jsonl is no run: {expected}, but it is a file\nhint: give the folder: \
                 ../runs/first\n"
            ),
        ),
    ];
    for (name, told) in cases {
        assert_eq!(refused(folder, &folder.join(name)), told, "{name}");
    }
    fs::write(folder.join("runs/first/events.jsonl"), "epoch,loss\n1,0.5\n").unwrap();
    let told = "error: ../runs/first/events.jsonl: no line is an event of a run; 2 lines of events.jsonl are no events and \
                left out, the first is line 1\n";
    assert_eq!(refused(folder, &folder.join("runs/first")), told);
    let both = freeze_plan(&["report", path(&folder.join("runs/first")), path(&folder.join("missing"))]);
    assert_eq!(both.status.code(), Some(1));
    assert_eq!(freeze_plan(&["report"]).status.code(), Some(2));
}

#[test]
fn a_run_that_lacks_a_part_has_a_page_and_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let run_folder = folder.path().join("first");
    run(&run_folder, "[run]\nepochs = 3\n");
    let written = run_folder.join("report.html");
    let [out, warnings] = report(&[path(&run_folder)]);
    assert_eq!((out.trim_end(), warnings.as_str()), (path(&written), ""));
    let page = fs::read_to_string(&written).unwrap();
    assert!(page.contains("No end is recorded") && page.contains("<dt>model sha256</dt>"));
    assert!(page.contains("<div class=\"followed open\" style=\"--done:33.33%\">"));

    let cut = format!("{}\n{}\n{}", EVENTS[0], EVENTS[2], &EVENTS[3][..60]);
    fs::write(run_folder.join("events.jsonl"), cut).unwrap();
    fs::remove_file(run_folder.join("plan.json")).unwrap();
    fs::write(run_folder.join("job.toml"), "[run").unwrap();
    let [page, warnings] = report(&[path(&run_folder), "--output", "-"]);
    let told = [
        "the last line of events.jsonl is cut short and left out",
        "what was frozen is not shown: cannot read ../first/plan.json: No such file or directory (os error 2)",
        "settings are not shown: job.toml is no TOML",
    ];
    let lines: Vec<String> = told.iter().map(|text| format!("warning: ../first: {text}\n")).collect();
    assert_eq!(warnings.replace(path(folder.path()), ".."), lines.concat());
    assert!(told.iter().all(|text| page.replace(path(folder.path()), "..").contains(text)));
    assert!(!page.contains("Modules and epochs") && page.contains("<b>Training loss</b>"));

    fs::write(run_folder.join("events.jsonl"), "").unwrap();
    let [page, warnings] = report(&[path(&run_folder), "--output", "-"]);
    assert!(warnings.contains("events.jsonl is empty: nothing happened yet"), "{warnings}");
    assert!(page.contains("before its first logged step"));
}

#[test]
fn several_folders_make_one_page_with_their_short_names() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = ["low", "high"].map(|name| folder.path().join("runs").join(name));
    run(&first, "[optimizer]\nlr = 0.01\n[run]\nepochs = 3\n");
    run(&second, "[optimizer]\nlr = 0.5\n[run]\nepochs = 3\n");
    let file = folder.path().join("both.html");
    let [out, warnings] = report(&[path(&first), path(&second), "--output", path(&file)]);
    assert_eq!((out.trim_end(), warnings.as_str()), (path(&file), ""));
    let page = fs::read_to_string(&file).unwrap();
    assert!(page.contains("<h1>2 runs compared</h1>") && page.contains("data-n=\"high\""));
    assert!(page.contains("optimizer.<wbr>lr</th><td>0.<wbr>01</td><td>0.<wbr>5</td>"));
    assert!(!page.contains("run.<wbr>epochs</th>"), "the same in both");
}
