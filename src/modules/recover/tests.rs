//! One model of each family, exported four ways, against what PyTorch says of it.

use crate::graph::Model;
use crate::modules::*;
use crate::onnx::read;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

const WAYS: [&str; 4] = ["torchscript", "torchscript_default", "dynamo", "dynamo_default"];

fn zoo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/trees/zoo")
}

/// The families with what PyTorch says of them.
fn families() -> Vec<(String, Value)> {
    let files = std::fs::read_dir(zoo()).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<(String, Value)> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let json = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            (path.file_stem().unwrap().to_str().unwrap().to_string(), json)
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(found.len() >= 18);
    found
}

fn model(family: &str, way: &str) -> Option<Model> {
    let path = zoo().join(format!("{family}.{way}.onnx"));
    path.exists().then(|| read(&path).unwrap().model)
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_string()).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_string()
}

/// The name that a tensor has in the file; tied names stand for one tensor.
fn in_file(json: &Value, way: &str, name: &str) -> String {
    let first = json["tied"].get(name).and_then(Value::as_str).unwrap_or(name);
    let file = &json["files"][way];
    file[first].as_str().or(file[name].as_str()).unwrap_or(first).to_string()
}

type Listed = Vec<(String, String, Vec<String>)>;

fn composer(json: &Value, way: &str) -> Listed {
    let leaf = |leaf: &Value| {
        let mut held: Vec<String> = strings(&leaf["parameters"]).iter().map(|name| in_file(json, way, name)).collect();
        held.sort();
        (text(&leaf["path"]), text(&leaf["class"]), held)
    };
    json["leaves"].as_array().unwrap().iter().map(leaf).collect()
}

fn listed(tree: &ModuleTree, kind: UnitKind) -> Listed {
    let unit = |unit: Unit| {
        let mut held = [unit.shared, unit.parameters].concat();
        held.sort();
        (unit.path, unit.class, held)
    };
    units(tree, kind).into_iter().map(unit).collect()
}

#[test]
fn units_without_folding_are_composers_list() {
    let mut failures = Vec::new();
    for (family, json) in families() {
        for way in ["torchscript", "dynamo"] {
            let Some(model) = model(&family, way) else { continue };
            let tree = recover(&untie(&model).model);
            let (mut found, mut expected) = (listed(&tree, UnitKind::Composer), composer(&json, way));
            if way == "torchscript" {
                // The file holds no classes.
                found.iter_mut().chain(&mut expected).for_each(|unit| unit.1.clear());
            } else {
                // PyTorch reads the weight of this class without calling it, so no file names it.
                let seen = |unit: &mut (String, String, Vec<String>)| {
                    if matches!(unit.1.as_str(), "NonDynamicallyQuantizableLinear" | "Gemm" | "MatMul") {
                        unit.1 = "Linear".into();
                    }
                };
                found.iter_mut().chain(&mut expected).for_each(seen);
            }
            if found != expected {
                let diff = found.iter().zip(&expected).find(|(a, b)| a != b);
                failures.push(format!(
                    "{family}.{way}: {} units, {} expected, first {diff:?}",
                    found.len(),
                    expected.len()
                ));
            }
            let leaves: HashSet<String> = listed(&tree, UnitKind::Leaf).into_iter().map(|unit| unit.0).collect();
            // A tied parameter has one owner, which the exporter's name says.
            let here = |module: &&Value| {
                let names = strings(&module["parameters"]);
                names.iter().any(|name| in_file(&json, way, name) == *name)
            };
            let direct = json["direct"].as_array().unwrap().iter().filter(here).map(|module| text(&module["path"]));
            failures.extend(
                direct.filter(|path| !leaves.contains(path)).map(|path| format!("{family}.{way}: no unit {path:?}")),
            );
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What folding takes from the file for good, by family and way: units that are missing, and whether
/// the order of registration is lost with the names that said it.
const LOST: [(&str, &str, &[&str], bool); 7] = [
    // The scale and bias of a module in containers that are never called, unnamed: called `layer_norm`.
    ("audio", "torchscript_default", &["feature_extractor.0.layer_norm"], false),
    // Rows of a table, gathered at constant positions, became a constant.
    ("bert", "dynamo_default", &["bert.embeddings.position_embeddings"], false),
    ("gpt", "dynamo_default", &["transformer.wpe"], false),
    // The weight of `qkv` is read by its parent and has no name: it counts as its parent's.
    ("vit", "torchscript_default", &["blocks.0.attn.qkv", "blocks.1.attn.qkv"], false),
    ("vit", "dynamo_default", &["blocks.0.attn.qkv", "blocks.1.attn.qkv"], false),
    // Modules that run in another order than they are registered, without the names of their weights.
    ("inception", "torchscript_default", &[], true),
    ("unet", "torchscript_default", &[], true),
];

#[test]
fn units_survive_folding() {
    let mut failures = Vec::new();
    for (family, json) in families() {
        let leaves = json["leaves"].as_array().unwrap();
        let norms: HashSet<String> = leaves
            .iter()
            .filter(|leaf| text(&leaf["class"]).starts_with("BatchNorm"))
            .map(|leaf| text(&leaf["path"]))
            .collect();
        for way in ["torchscript_default", "dynamo_default"] {
            let Some(model) = model(&family, way) else { continue };
            let tree = recover(&untie(&model).model);
            let found: Vec<String> = listed(&tree, UnitKind::Composer).into_iter().map(|unit| unit.0).collect();
            let all: Vec<String> = composer(&json, way).into_iter().map(|unit| unit.0).collect();
            // A BatchNorm becomes part of the convolution before it.
            let missing = all.iter().filter(|path| !found.contains(path) && !norms.contains(*path));
            let missing: Vec<&str> = missing.map(String::as_str).collect();
            let strangers: Vec<&String> = found.iter().filter(|path| !all.contains(path)).collect();
            let in_order =
                all.iter().filter(|path| found.contains(path)).eq(found.iter().filter(|path| all.contains(path)));
            let lost = LOST.iter().find(|lost| (lost.0, lost.1) == (family.as_str(), way));
            let (expected, reordered) = lost.map_or((&[] as &[&str], false), |lost| (lost.2, lost.3));
            if missing != expected || in_order == reordered || strangers.len() > expected.len() {
                failures.push(format!("{family}.{way}: missing {missing:?}, new {strangers:?}, in order {in_order}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Roles that differ from PyTorch's: a fixed bias is read as a trained one is.
const MISTAKEN: [&str; 2] = ["blocks.0.attn.k_bias", "blocks.1.attn.k_bias"];

#[test]
fn roles_are_pytorchs() {
    let (mut failures, mut right) = (Vec::new(), BTreeMap::new());
    for (family, json) in families() {
        let parameters: HashSet<String> = strings(&json["parameters"]).into_iter().collect();
        let buffers: HashSet<String> = strings(&json["buffers"]).into_iter().collect();
        for (way, signed) in WAYS.into_iter().flat_map(|way| [(way, true), (way, false)]) {
            let Some(mut model) = model(&family, way) else { continue };
            if signed && model.graph_metadata.is_empty() {
                continue;
            }
            model.graph_metadata.retain(|_| signed);
            let files = json["files"][way].as_object().unwrap().iter();
            let origin: HashMap<&str, &String> =
                files.filter_map(|(name, file)| Some((file.as_str()?, name))).collect();
            for param in crate::modules::parameters(&untie(&model).model) {
                let name = origin.get(param.name.as_str()).copied().unwrap_or(&param.name);
                let expected =
                    match (parameters.contains(name) || json["tied"].get(name).is_some(), buffers.contains(name)) {
                        (true, _) => true,
                        (_, true) => false,
                        _ => continue,
                    };
                if (param.role == Role::Trainable) == expected {
                    *right.entry(expected).or_insert(0) += 1;
                } else if signed || !MISTAKEN.contains(&name.as_str()) {
                    failures.push(format!("{family}.{way}: {name} is {:?} ({})", param.role, param.reason));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(right[&true] > 2500 && right[&false] > 400, "{right:?}");
}
