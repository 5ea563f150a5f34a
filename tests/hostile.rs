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
        let options = PlanOptions { unit: Some(unit), ..PlanOptions::default() };
        let request = Request {
            epochs: 4,
            steps_per_epoch: 0,
            options: &options,
            slots: 1,
            own_slots: Default::default(),
            sizes: sizes.clone(),
        };
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

/// Longest time that an answer may take in a build without optimization, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

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
    let (head, tail): (String, String) =
        (escaped.chars().take(200).collect(), escaped.chars().skip(count - 60).collect());
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

/// A protobuf field that holds bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(content);
    out
}

/// A model of IR version 10 and opset 17 around the fields of a graph.
fn model(graph: &[u8]) -> Vec<u8> {
    [vec![0x08, 10], field(7, graph), field(8, &[0x10, 17])].concat()
}

fn node(op: &str, inputs: &[&str], outputs: &[&str], more: &[u8]) -> Vec<u8> {
    let list = |number: u8, names: &[&str]| names.iter().flat_map(|name| field(number, name.as_bytes())).collect();
    let parts: [Vec<u8>; 4] = [list(1, inputs), list(2, outputs), field(4, op.as_bytes()), more.to_vec()];
    field(1, &parts.concat())
}

fn named(number: u8, name: &str) -> Vec<u8> {
    field(number, &field(1, name.as_bytes()))
}

/// A chain of nodes from `x` to `y`.
fn chain(op: &str, count: usize, more: &dyn Fn(usize) -> Vec<u8>) -> Vec<u8> {
    let name = |index: usize| match index {
        0 => "x".to_string(),
        index if index == count => "y".to_string(),
        index => format!("v{index}"),
    };
    let one = |index| node(op, &[&name(index)], &[&name(index + 1)], &more(index));
    let nodes: Vec<u8> = (0..count).flat_map(one).collect();
    [named(11, "x"), nodes, named(12, "y")].concat()
}

fn scalar(name: &str) -> Vec<u8> {
    field(5, &[vec![0x10, 1, 0x4a, 4, 0, 0, 0, 63], field(8, name.as_bytes())].concat())
}

#[test]
fn work_grows_with_the_file_and_not_faster() {
    struct Case {
        name: &'static str,
        graph: fn(usize) -> Vec<u8>,
        count: usize,
        expected: &'static str,
    }
    let cases = [
        Case {
            name: "nodes without anything",
            graph: |count| [0x0a, 0x00].repeat(count),
            count: 100_000,
            expected: "it has no operator",
        },
        Case {
            name: "messages",
            graph: |count| [0x0a, 0x00].repeat(count),
            count: 2_500_000,
            expected: "bytes of memory",
        },
        Case {
            name: "a chain",
            graph: |count| chain("Identity", count, &|_| Vec::new()),
            count: 15_000,
            expected: "read",
        },
        Case {
            name: "a chain of one name",
            graph: |count| chain("Relu", count, &|_| field(3, b"same")),
            count: 10_000,
            expected: "read",
        },
        Case {
            name: "a chain in reverse",
            graph: |count| {
                let nodes = (0..count).rev().flat_map(|index| {
                    let (from, to) = (format!("v{index}"), format!("v{}", index + 1));
                    node(
                        "Relu",
                        &[if index == 0 { "x" } else { &from }],
                        &[if index + 1 == count { "y" } else { &to }],
                        &[],
                    )
                });
                [named(11, "x"), nodes.collect(), named(12, "y")].concat()
            },
            count: 10_000,
            expected: "read",
        },
        Case {
            name: "attributes of a node",
            graph: |count| {
                let all: Vec<u8> =
                    (0..count).flat_map(|index| field(5, &field(1, format!("a{index}").as_bytes()))).collect();
                [named(11, "x"), node("Relu", &["x"], &["y"], &all), named(12, "y")].concat()
            },
            count: 20_000,
            expected: "read",
        },
        Case {
            name: "inputs of a node",
            graph: |count| [named(11, "x"), node("Sum", &vec!["x"; count], &["y"], &[]), named(12, "y")].concat(),
            count: 20_000,
            expected: "read",
        },
        Case {
            name: "outputs of a node",
            graph: |count| {
                let names: Vec<String> = (0..count).map(|index| format!("o{index}")).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                [named(11, "x"), node("Split", &["x"], &names, &[]), named(12, "o0")].concat()
            },
            count: 15_000,
            expected: "read",
        },
        Case {
            name: "initializers that one node reads",
            graph: |count| {
                let names: Vec<String> = (0..count).map(|index| format!("w{index}.weight")).collect();
                let list: Vec<&str> = names.iter().map(String::as_str).collect();
                let tensors: Vec<u8> = names.iter().flat_map(|name| scalar(name)).collect();
                [named(11, "x"), tensors, node("Sum", &list, &["y"], &[]), named(12, "y")].concat()
            },
            count: 5_000,
            expected: "read",
        },
        Case {
            name: "captures of a subgraph",
            graph: |count| {
                let names: Vec<String> = (0..count).map(|index| format!("w{index}")).collect();
                let list: Vec<&str> = names.iter().map(String::as_str).collect();
                let tensors: Vec<u8> = names.iter().flat_map(|name| scalar(name)).collect();
                let inner = [node("Sum", &list, &["q"], &[]), named(12, "q")].concat();
                let attribute = field(5, &[field(1, b"then_branch"), field(6, &inner), vec![0xa0, 0x01, 5]].concat());
                [named(11, "x"), tensors, node("If", &["x"], &["y"], &attribute), named(12, "y")].concat()
            },
            count: 10_000,
            expected: "read",
        },
        Case {
            name: "levels of a scope",
            graph: |count| chain("Relu", 3, &|_| field(3, format!("/{}", "a/".repeat(count)).as_bytes())),
            count: 2_000,
            expected: "read",
        },
        Case {
            name: "levels of a parameter",
            graph: |count| {
                let name = format!("{}weight", "a.".repeat(count));
                [named(11, "x"), scalar(&name), node("Mul", &["x", &name], &["y"], &[]), named(12, "y")].concat()
            },
            count: 2_000,
            expected: "read",
        },
        Case {
            name: "a name",
            graph: |count| {
                [named(11, "x"), node("Relu", &["x"], &["y"], &field(3, &vec![b'a'; count])), named(12, "y")].concat()
            },
            count: 5_000_000,
            expected: "read",
        },
        Case {
            name: "a name that nothing makes",
            graph: |count| [node("Relu", &["x".repeat(count).as_str()], &["y"], &[]), named(12, "y")].concat(),
            count: 5_000_000,
            expected: "before anything produces it",
        },
    ];
    let mut wrong = Vec::new();
    for Case { name, graph, count, expected } in cases {
        let bytes = model(&graph(count));
        match within(LIMIT, move || said(Path::new("model.onnx"), bytes)) {
            None => wrong.push(format!("{count} {name}: a panic, or no answer within {LIMIT:?}")),
            Some(said) if !said.contains(expected) => wrong.push(format!("{count} {name}: {}", shown(&said))),
            Some(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
