//! Which folder of `src/` may use which, and which crates stay behind which file.

use std::fs;
use std::path::{Path, PathBuf};

const LAYERS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("graph", &["error"]),
    ("onnx", &["graph", "error"]),
    ("facts", &["graph", "onnx", "error"]),
    ("autodiff", &["graph", "error"]),
    ("losses", &["graph", "error"]),
    ("metrics", &["graph", "losses", "error"]),
    ("optim", &["graph", "error"]),
    ("artifacts", &["graph", "onnx", "losses", "optim", "error"]),
    ("modules", &["graph", "error"]),
    ("cost", &["graph", "modules", "error"]),
    ("signals", &["graph", "error"]),
    ("plan", &["modules", "cost", "signals", "onnx", "error"]),
    ("analysis", &["graph", "facts", "modules", "plan"]),
    (
        "training",
        &["analysis", "graph", "modules", "cost", "plan", "autodiff", "losses", "optim", "onnx", "facts", "error"],
    ),
    (
        "planner",
        &[
            "analysis",
            "graph",
            "onnx",
            "artifacts",
            "facts",
            "modules",
            "cost",
            "plan",
            "autodiff",
            "training",
            "optim",
            "error",
        ],
    ),
    ("classic", &["artifacts", "graph", "onnx", "losses", "optim", "plan", "training", "error"]),
    ("data", &["graph", "error"]),
    ("checkpoint", &["graph", "data", "error"]),
    ("initial", &["graph", "onnx", "modules", "plan", "training", "data", "checkpoint", "error"]),
    (
        "runner",
        &[
            "autodiff",
            "graph",
            "onnx",
            "facts",
            "modules",
            "signals",
            "training",
            "data",
            "checkpoint",
            "plan",
            "losses",
            "metrics",
            "optim",
            "error",
        ],
    ),
    ("report", &["plan", "cost", "modules", "metrics", "runner", "error"]),
    ("schemas", &["plan", "training", "classic", "report", "data", "metrics", "runner", "error"]),
    ("sinks", &["runner", "error"]),
    (
        "trainer",
        &[
            "artifacts",
            "autodiff",
            "checkpoint",
            "classic",
            "data",
            "facts",
            "graph",
            "initial",
            "losses",
            "metrics",
            "modules",
            "onnx",
            "optim",
            "plan",
            "planner",
            "runner",
            "sinks",
            "training",
            "error",
        ],
    ),
    (
        "cli",
        &[
            "trainer",
            "artifacts",
            "autodiff",
            "classic",
            "graph",
            "onnx",
            "facts",
            "modules",
            "cost",
            "plan",
            "planner",
            "training",
            "losses",
            "metrics",
            "optim",
            "data",
            "checkpoint",
            "initial",
            "runner",
            "report",
            "schemas",
            "sinks",
            "error",
        ],
    ),
];

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push(path);
        }
    }
}

/// The part of a file that is not its tests.
fn production(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]").next().unwrap().split("#[cfg(all(test").next().unwrap().to_string()
}

fn all() -> Vec<(String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let test_only = ["harness.rs", "testing.rs", "tests.rs", "main.rs", "lib.rs"];
    files.retain(|path| !path.starts_with(root.join("autodiff/harness")));
    files.retain(|path| !test_only.contains(&path.file_name().unwrap().to_str().unwrap()));
    let folder = |path: &PathBuf| {
        let relative = path.strip_prefix(&root).unwrap();
        relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_string()
    };
    files.into_iter().map(|path| (folder(&path), path)).collect()
}

#[test]
fn folders_use_only_what_they_may() {
    let mut wrong = Vec::new();
    for (folder, path) in all() {
        let Some((_, allowed)) = LAYERS.iter().find(|layer| layer.0 == folder) else {
            wrong.push(format!("{folder} is in no layer"));
            continue;
        };
        let text = production(&path);
        for (start, _) in text.match_indices("crate::") {
            let used: String =
                text[start + 7..].chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect();
            let own = used == folder || used.starts_with(&format!("{folder}::"));
            let fine = allowed.iter().any(|name| used == *name || used.starts_with(&format!("{name}::")));
            if !own && !fine {
                wrong.push(format!("{}: crate::{used}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn crates_stay_behind_their_file() {
    let walls = [
        ("ort::", "runner/onnxruntime/"),
        ("cudarc::", "runner/cuda/"),
        ("object::", "runner/cuda/"),
        ("tract_onnx::", "runner/tract.rs facts/"),
        ("proto::", "onnx/ sinks/"),
        ("flatbuffers::", "artifacts/"),
        ("nalgebra::", "signals/"),
    ];
    let mut wrong = Vec::new();
    for (_, path) in all() {
        let text = production(&path);
        for (needle, home) in walls {
            let inside = home.split(' ').any(|home| path.to_str().unwrap().contains(home));
            let preceded = |start: usize| {
                text[..start].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            };
            if !inside && text.match_indices(needle).any(|(start, _)| !preceded(start)) {
                wrong.push(format!("{} uses {needle}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_test_file_is_a_module_of_the_one_binary() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let list = fs::read_to_string(folder.join("runner.rs")).unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(module) = name.strip_suffix(".rs").filter(|module| *module != "runner") {
            assert!(list.contains(&format!("mod {module};")), "tests/{name} is in no binary");
        }
    }
}
