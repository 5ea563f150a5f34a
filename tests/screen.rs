//! What `freeze-plan train` shows where there is no terminal, and where the events of a run go.

use crate::cli::{freeze_plan, path, text};
use crate::engines::fixture;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Trains the digits for a few epochs in a folder.
fn train(folder: &Path, more: &[&str]) -> Output {
    let run = format!("run.dir=\"{}\"", path(&folder.join("run")));
    let job = fixture("digits/job.toml");
    let args = [
        "train",
        path(&job),
        "--overwrite",
        "--set",
        &run,
        "--set",
        "run.epochs=4",
        "--set",
        "freeze.freeze_start=0.25",
    ];
    freeze_plan(&[&args[..], more].concat())
}

fn lines(bytes: &[u8]) -> Vec<serde_json::Value> {
    text(bytes)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[test]
fn plain_lines_tell_the_plan_each_freeze_and_each_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let output = train(folder.path(), &[]);
    let (shown, result) = (text(&output.stderr), text(&output.stdout));
    assert!(output.status.success(), "{shown}");
    assert!(!shown.contains(['\u{1b}', '\r']), "{shown:?}");
    let line = |start: &str| {
        shown.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no \"{start}\" in\n{shown}"))
    };
    assert!(line("plan: linear over 4 epochs, 13 units").ends_with("28,410 parameters"));
    assert!(line("  epoch 3: ").contains("/13 frozen, up to "));
    assert!(line("epoch   2/4  loss ").contains("  eval loss ") && line("epoch   2/4  loss ").contains("  accuracy "));
    let freeze = line("epoch 3: ");
    assert!(freeze.contains("conv1, bn1") && freeze.contains("/13 frozen), predicted step cost "), "{freeze}");
    assert!(line("epochs 1-2, nothing frozen: ").contains(" ms a step, predicted "));
    let measured = line("epoch 3, ");
    assert!(measured.contains(" ms a step, saves ") || measured.contains(" ms a step, costs "), "{measured}");
    let at = |start: &str| shown.find(start).unwrap();
    assert!(at("epochs 1-2, nothing frozen") < at("\nepoch 3: "), "what a phase took is told before the next one");
    assert!(line("predicted to save ").contains("; the steps saved "));
    assert!(result.lines().count() == 2 && result.contains("trained model: "), "{result}");
    let table = train(folder.path(), &["--show-plan"]);
    assert!(text(&table.stderr).contains("freezes up to  step cost"), "{}", text(&table.stderr));
    assert!(!text(&train(folder.path(), &["--no-plan"]).stderr).contains("plan:"));
}

#[test]
fn quiet_shows_the_result_and_warnings() {
    let folder = tempfile::tempdir().unwrap();
    let output = train(folder.path(), &["--quiet", "--set", "run.ceiling_steps=0"]);
    assert!(output.status.success());
    assert_eq!((text(&output.stderr), text(&output.stdout).lines().count()), (String::new(), 2));
    let run = format!("run.dir=\"{}\"", path(&folder.path().join("run")));
    let all = "freeze={policy=\"steps\",steps=[{epoch=2,frozen=13}]}";
    let job = fixture("digits/job.toml");
    let args = ["train", path(&job), "--overwrite", "--quiet", "--set", &run, "--set", "run.ceiling_steps=0"];
    let output = freeze_plan(&[&args[..], &["--set", "run.epochs=2", "--set", all]].concat());
    let told = text(&output.stderr);
    assert!(told.lines().count() == 1 && told.starts_with("warning: nothing trains from epoch 2 on"), "{told}");
}

#[test]
fn json_puts_the_events_on_stdout_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let output = train(folder.path(), &["--json", "--quiet"]);
    assert!(output.status.success());
    let events = lines(&output.stdout);
    assert_eq!(events, lines(&std::fs::read(folder.path().join("run/events.jsonl")).unwrap()));
    assert_eq!((&events[0]["event"], &events.last().unwrap()["event"]), (&"start".into(), &"end".into()));
    assert!(text(&output.stderr).contains("trained model: "));
}

/// A full disk, as far as stdout goes.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_one_warning_and_the_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let run = format!("run.dir=\"{}\"", path(&folder.path().join("run")));
    let output = Command::new(env!("CARGO_BIN_EXE_freeze-plan"))
        .args(["train", path(&fixture("digits/job.toml")), "--json", "--quiet", "--set", &run, "--set", "run.epochs=2"])
        .stdout(Stdio::from(full))
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let told = text(&output.stderr);
    assert!(output.status.success(), "{told}");
    let warnings: Vec<&str> = told.lines().filter(|line| line.starts_with("warning: cannot write")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("stdout"), "{told}");
    let events = std::fs::read_to_string(folder.path().join("run/events.jsonl")).unwrap();
    assert!(events.contains("cannot write stdout") && events.lines().last().unwrap().contains("\"done\""), "{events}");
}

#[test]
fn event_files_are_written_where_the_job_asks_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let files = || -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(folder.path().join("run/tensorboard")) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    assert!(train(folder.path(), &["--quiet"]).status.success());
    assert!(files().is_empty());
    for _ in 0..2 {
        assert!(train(folder.path(), &["--quiet", "--set", "run.tensorboard=true"]).status.success());
        let files = files();
        assert_eq!(files.len(), 1, "{files:?}");
        let bytes = std::fs::read(&files[0]).unwrap();
        let has = |tag: &str| bytes.windows(tag.len()).any(|window| window == tag.as_bytes());
        for tag in ["brain.Event:2", "train/loss", "train/lr", "eval/accuracy", "freeze/units", "epoch/peak_bytes"] {
            assert!(has(tag), "{tag}");
        }
    }
    assert!(train(folder.path(), &["--quiet"]).status.success());
    assert!(files().is_empty(), "what an earlier run left is gone");
}
