use super::*;
use crate::graph::{Builder, Attributes, DType, Dim, Fact, Tensor};
use crate::onnx::read;
use std::collections::HashMap;
use std::path::Path;

fn fixtures() -> Vec<std::path::PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let mut found = Vec::new();
    for folder in ["digits", "parity", "trees", "graphs"] {
        let entries = std::fs::read_dir(root.join(folder)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        found.extend(paths.filter(|path| path.extension().is_some_and(|extension| extension == "onnx")));
    }
    found.sort();
    assert!(!found.is_empty());
    found
}

fn model_of(b: Builder) -> Model {
    Model { graph: b.finish(), opsets: [(String::new(), 17)].into(), ir_version: 8, ..Model::default() }
}

fn without_info(model: &Model) -> Model {
    let mut model = model.clone();
    for node in model.graph.nodes.clone() {
        for output in node.outputs.iter().flatten() {
            model.graph.values[output.0].fact = Fact::default();
        }
    }
    model
}

fn batch(model: &Model, size: usize) -> Model {
    let symbols = model.graph.inputs().iter().flat_map(|id| model.graph.fact(*id).shape.iter().flatten());
    let sizes: HashMap<String, usize> =
        symbols.filter_map(|dim| if let Dim::Symbol(name) = dim { Some((name.clone(), size)) } else { None }).collect();
    Model { graph: model.graph.with_sizes(&sizes), ..model.clone() }
}

#[test]
fn every_fixture_is_known_once_the_batch_is_fixed() {
    let mut failures = Vec::new();
    for path in fixtures() {
        let model = batch(&without_info(&read(&path).unwrap().model), 5);
        let completed = complete(&model);
        let graph = &completed.model.graph;
        let open: Vec<String> = graph
            .nodes()
            .iter()
            .flat_map(|node| node.outputs.iter().flatten().map(move |id| (node, *id)))
            .filter(|(_, id)| graph.fact(*id).sizes().is_none() || graph.fact(*id).dtype.is_none())
            .map(|(node, id)| format!("{} of {}: {}", graph.value_name(id), node.op, graph.fact(id)))
            .collect();
        if !open.is_empty() {
            failures.push(format!("{}: {:?} {:?}", path.display(), &open[..open.len().min(3)], completed.notes));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_files_own_facts_agree_with_ours() {
    let mut failures = Vec::new();
    for path in fixtures() {
        let file = read(&path).unwrap().model;
        let completed = complete(&without_info(&file)).model;
        for (id, value) in file.graph.values() {
            let (said, found) = (&value.fact, completed.graph.fact(id));
            let differs = |(a, b): (&Dim, &Dim)| matches!((a, b), (Dim::Known(a), Dim::Known(b)) if a != b);
            let pairs = said.shape.iter().flatten().zip(found.shape.iter().flatten());
            let rank = said.rank().zip(found.rank()).is_some_and(|(a, b)| a != b);
            let dtype = said.dtype.zip(found.dtype).is_some_and(|(a, b)| a != b);
            if rank || dtype || pairs.into_iter().any(differs) {
                failures.push(format!("{} {}: {said} in the file, {found} found", path.display(), value.name));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_named_batch_survives_shape_arithmetic() {
    let mut b = Builder::new("reshape");
    let x = b.input("x", Fact::new(DType::F32, vec![Dim::Symbol("batch".into()), Dim::Known(4), Dim::Known(6)]));
    let shape = b.unary("Shape", x);
    let first = b.ints("first", &[0]);
    let rows = b.op("Gather", &[shape, first], Attributes::none());
    let rest = b.ints("rest", &[24]);
    let target = b.op("Concat", &[rows, rest], Attributes::none().with("axis", 0));
    let y = b.op("Reshape", &[x, target], Attributes::none());
    let normalized = b.op("LayerNormalization", &[y, y], Attributes::none());
    b.mark_output(normalized);
    let model = model_of(b);
    let completed = complete(&model);
    assert_eq!(completed.model.graph.fact(y).to_string(), "float32[batch,24]", "{:?}", completed.notes);
}

#[test]
fn a_fixed_shape_needs_no_tract() {
    let mut b = Builder::new("reshape");
    let x = b.input("x", Fact::fixed(DType::F32, &[2, 4, 6]));
    let shape = b.unary("Shape", x);
    let zero = b.constant("zero", Tensor::scalar(0i64));
    let rows = b.op("Gather", &[shape, zero], Attributes::none());
    let twice = b.constant("two", Tensor::scalar(2i64));
    let rows = b.op("Mul", &[rows, twice], Attributes::none());
    let rows = b.unsqueeze(rows, &[0]);
    let rest = b.ints("rest", &[-1]);
    let target = b.op("Concat", &[rows, rest], Attributes::none().with("axis", 0));
    let y = b.op("Reshape", &[x, target], Attributes::none());
    b.mark_output(y);
    let known = Known::of(&model_of(b), &[], &[]);
    assert_eq!(known.facts[y.0].to_string(), "float32[4,12]");
}

#[test]
fn what_stays_unknown_is_said() {
    let mut b = Builder::new("unknown");
    let x = b.input("x", Fact::fixed(DType::F32, &[2, 4]));
    let op = crate::graph::OpId { domain: "org.example".into(), name: "Mystery".into() };
    let y = b.ops(&op, &[Some(x)], Attributes::none(), 1)[0];
    b.mark_output(y);
    let model = model_of(b);
    let notes = complete(&model).notes;
    assert!(notes.iter().any(|note| note.contains("\"Mystery:0\"")), "{notes:?}");
}
