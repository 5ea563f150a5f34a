//! Files that nobody should trust: each is read and planned, or refused with one line.

use bytes::Bytes;
use freeze_plan::modules::UnitKind;
use freeze_plan::plan::PlanOptions;
use freeze_plan::planner::{Analysis, Request, plan, sizes};
use freeze_plan::{onnx, report};
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/hostile")
}

/// Makes the folder that external locations of the fixtures speak of, and returns where the model lies.
fn surroundings(folder: &Path) -> PathBuf {
    let model = folder.join("model");
    fs::create_dir_all(model.join("folder")).unwrap();
    fs::write(model.join("weights"), [1; 4096]).unwrap();
    fs::write(model.join("folder/weights"), [2; 64]).unwrap();
    fs::write(folder.join("secret"), [3; 64]).unwrap();
    for (link, target) in [("in", "weights"), ("out", "../secret"), ("zero", "/dev/zero"), ("up", "..")] {
        std::os::unix::fs::symlink(target, model.join(link)).unwrap();
    }
    assert!(Command::new("mkfifo").arg(model.join("pipe")).status().unwrap().success());
    model.join("model.onnx")
}

/// What the program says of a file: its error with all sources, or what it found.
fn said(path: &Path, bytes: Vec<u8>) -> String {
    let told = |error: &dyn Error| {
        let sources = std::iter::successors(error.source(), |error: &&dyn Error| (*error).source());
        sources.fold(format!("refused: {error}"), |text, source| format!("{text}: {source}"))
    };
    let file = match onnx::read_bytes(path, Bytes::from(bytes)) {
        Ok(file) => file,
        Err(error) => return told(&error),
    };
    let analysis = Analysis::of(&file.model);
    analysis.tree.text(&analysis.model);
    let sizes = match sizes(&analysis.model.graph, 2, &[]) {
        Ok(sizes) => sizes,
        Err(error) => return told(&error),
    };
    let mut text = String::new();
    for unit in [UnitKind::Leaf, UnitKind::Composer, UnitKind::Block, UnitKind::Parameter] {
        let options = PlanOptions { unit, ..PlanOptions::default() };
        let request = Request { epochs: 4, options: &options, slots: 1, sizes: sizes.clone() };
        let plan = match plan(&file, &analysis, &request) {
            Ok(plan) => plan,
            Err(error) => return told(&error),
        };
        plan.to_json();
        report::plan_csv(&plan);
        report::plan_html(&plan);
        if unit == UnitKind::Leaf {
            let nodes = analysis.model.graph.nodes().len();
            let _ = write!(text, "read: {nodes} nodes, {} units", plan.units.len());
        }
    }
    text
}

/// Longest time that an answer may take in a build without optimization.
const LIMIT: Duration = Duration::from_secs(20);

/// Runs on a thread of its own; `None` when it panics or takes too long.
fn within<T: Send + 'static>(limit: Duration, run: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(run()));
    receiver.recv_timeout(limit).ok()
}

/// Control characters and most of a very long text left out, for a line of `expected.txt`.
fn shown(text: &str) -> String {
    let escaped: String = text.chars().flat_map(|c| c.escape_debug()).collect::<String>().replace("\\\"", "\"");
    let count = escaped.chars().count();
    if count <= 300 {
        return escaped;
    }
    let (head, tail): (String, String) = (escaped.chars().take(200).collect(), escaped.chars().skip(count - 60).collect());
    format!("{head} .. {tail}")
}

#[test]
fn every_seed_is_read_or_refused_as_committed() {
    let folder = tempfile::tempdir().unwrap();
    let path = surroundings(folder.path());
    let entries = fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "onnx")).collect();
    files.sort();
    let (mut text, mut wrong) = (String::new(), Vec::new());
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap().to_string();
        let (path, bytes) = (path.clone(), fs::read(&file).unwrap());
        let answer = move || said(&path, bytes);
        let Some(said) = within(LIMIT, answer) else {
            wrong.push(format!("{name}: a panic, or no answer within {LIMIT:?}"));
            continue;
        };
        let said = said.replace(&folder.path().display().to_string(), "..");
        let refused = said.starts_with("refused");
        if name.starts_with("good_") && refused || name.starts_with("bad_") && !refused {
            wrong.push(format!("{name}: {}", shown(&said)));
        }
        text += &format!("{name}: {}\n", shown(&said));
    }
    let expected = fixtures().join("expected.txt");
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(&expected, &text).unwrap();
    }
    let expected = fs::read_to_string(&expected).unwrap();
    let differ = text.lines().zip(expected.lines()).filter(|(found, expected)| found != expected);
    wrong.extend(differ.map(|(found, expected)| format!("expected {expected}\n   found {found}")));
    assert!(wrong.is_empty() && text == expected, "{}", wrong.join("\n"));
}
