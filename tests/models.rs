//! Whole models as both exporters write them, against PyTorch: loss and every gradient, and what freezing a
//! prefix of their units leaves of the backward pass.

use crate::engines::{fixture, golden, onnxruntime};
use freeze_plan::data::read_tensors;
use freeze_plan::graph::{Graph, Origin, Tensor};
use freeze_plan::losses::{LossKind, LossSpec};
use freeze_plan::modules::{UnitKind, units};
use freeze_plan::onnx::read;
use freeze_plan::optim::{OptimizerKind, OptimizerSpec};
use freeze_plan::planner::Analysis;
use freeze_plan::runner::{Engine, OnnxRuntime, evaluate};
use freeze_plan::training::{PhaseOptions, Prepared, Rates, TrainStep, build, prepare};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::error::Error;

/// Of the norm of a gradient; float32 sums over a whole model.
const TOLERANCE: f64 = 1e-4;
/// Of the norm of a gradient, between the full graph and one with a frozen prefix.
const SAME: f64 = 1e-5;
/// Of the largest norm of all gradients: one that is zero but for rounding, as of a bias before a normalization.
const NOISE: f64 = 5e-7;

/// Files that cannot be trained, with a part of the reason.
const REFUSED: &[(&str, &str)] = &[];

/// Parameters that are taken for constants of the exporter: tables to which it gives names of its own, read by `Add` and
/// `GatherND`.
const UNSEEN: &[(&str, &str)] = &[
    ("whisper.dynamo_default", "model.model.encoder.embed_positions.weight"),
    ("whisper.dynamo_23", "model.model.encoder.embed_positions.weight"),
    ("whisper.dynamo_default", "model.model.decoder.embed_positions.weight"),
    ("whisper.dynamo_23", "model.model.decoder.embed_positions.weight"),
];

pub struct Case {
    pub prepared: Prepared,
    pub units: Vec<Vec<String>>,
    loss: LossSpec,
    pub data: BTreeMap<String, Tensor>,
    /// Name in PyTorch and whether the file holds the transpose, by name in the file.
    renamed: BTreeMap<String, (String, bool)>,
    absent: HashSet<String>,
}

pub type Failure = Box<dyn Error>;

/// Returns `(model, way, entry of the model, entry of the file)` of every file.
pub fn files() -> Vec<(String, String, serde_json::Value, serde_json::Value)> {
    let index = golden("models/index.json");
    let models = index.as_object().unwrap().iter();
    let files = models.flat_map(|(model, entry)| {
        let ways = entry["files"].as_object().unwrap().iter();
        ways.map(move |(way, file)| (model.clone(), way.clone(), entry.clone(), file.clone()))
    });
    files.collect()
}

pub fn case(model: &str, way: &str, entry: &serde_json::Value, file: &serde_json::Value) -> Result<Case, Failure> {
    let onnx = read(&fixture(&format!("models/{model}.{way}.onnx")))?;
    let analysis = Analysis::of(&onnx.model);
    let units = units(&analysis.tree, UnitKind::Leaf).into_iter().map(|unit| unit.parameters).collect();
    let kind = LossKind::from_name(entry["loss"].as_str().unwrap()).unwrap();
    let loss = LossSpec { class_axis: entry["class_axis"].as_i64(), ..LossSpec::new(kind) };
    let renamed =
        file["renamed"].as_object().unwrap().iter().map(|(name, origin)| {
            (name.clone(), (origin[0].as_str().unwrap().to_string(), origin[1].as_bool().unwrap()))
        });
    let absent = file["absent"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_string());
    Ok(Case {
        prepared: prepare(&analysis)?,
        units,
        loss,
        data: read_tensors(&fixture(&format!("models/{model}.npz")), None)?.into_iter().collect(),
        renamed: renamed.collect(),
        absent: absent.collect(),
    })
}

pub fn step(case: &Case, frozen: HashSet<&str>) -> Result<TrainStep, Failure> {
    let optimizer = OptimizerSpec::new(OptimizerKind::Sgd);
    let options = PhaseOptions {
        frozen,
        frozen_inputs: false,
        rates: Rates::new(),
        loss: &case.loss,
        optimizer: &optimizer,
        output: None,
        seed: 0,
    };
    Ok(build(&case.prepared, &options)?)
}

/// Runs the train graph on the batch of the golden and returns its outputs by name.
fn run(case: &Case, engine: &mut OnnxRuntime, step: &TrainStep) -> Result<BTreeMap<String, Tensor>, Failure> {
    let (graph, own) = (&step.train.graph, &case.prepared.model.graph);
    let mut feeds = Vec::new();
    for id in graph.inputs() {
        let name = graph.value_name(*id);
        let held = own.find(name).and_then(|id| own.value(id).initializer.as_ref());
        let tensor = held.or_else(|| case.data.get(name)).ok_or_else(|| format!("nothing to feed \"{name}\" with"))?;
        feeds.push((name, tensor));
    }
    let outputs = evaluate(engine as &mut dyn Engine, &step.train, &feeds)?;
    Ok(graph.outputs().iter().map(|id| graph.value_name(*id).to_string()).zip(outputs).collect())
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    tensor.to_f64s().expect("gradients are floats")
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

fn difference(a: &[f64], b: &[f64]) -> f64 {
    norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<f64>>())
}

fn transposed(values: &[f64], shape: &[usize]) -> Vec<f64> {
    let (rows, columns) = (shape[0], shape[1]);
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

/// Returns the gradients under PyTorch's names. Those of a tied parameter that is several in the file add up.
fn as_in_pytorch(case: &Case, outputs: &BTreeMap<String, Tensor>) -> BTreeMap<String, Vec<f64>> {
    let mut found: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (output, tensor) in outputs {
        let Some(name) = output.strip_suffix(".grad") else { continue };
        let same = (name.to_string(), false);
        let (origin, turned) = case.renamed.get(name).unwrap_or(&same);
        let values = floats(tensor);
        let values = if *turned { transposed(&values, tensor.shape()) } else { values };
        match found.get_mut(origin) {
            Some(sum) => sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value),
            None => drop(found.insert(origin.clone(), values)),
        }
    }
    found
}

/// Returns the worst deviation of the loss and of the gradients, and what is wrong.
fn compare(case: &Case, file: &str, outputs: &BTreeMap<String, Tensor>) -> (f64, Vec<String>) {
    let mut wrong = Vec::new();
    let expected: BTreeMap<&str, Vec<f64>> =
        case.data.iter().filter_map(|(name, tensor)| Some((name.strip_prefix("grad:")?, floats(tensor)))).collect();
    let largest = expected.values().map(|values| norm(values)).fold(0f64, f64::max);
    let mut found = as_in_pytorch(case, outputs);
    let loss = (floats(&outputs["loss"])[0], floats(&case.data["loss"])[0]);
    let mut worst = (loss.0 - loss.1).abs() / loss.1.abs();
    if worst.is_nan() || worst > TOLERANCE {
        wrong.push(format!("the loss is {} instead of {}", loss.0, loss.1));
    }
    for (name, expected) in expected {
        let noise = NOISE * largest;
        let Some(found) = found.remove(name) else {
            let unseen = UNSEEN.contains(&(file, name));
            if !unseen && !case.absent.contains(name) && norm(&expected) > noise {
                wrong.push(format!("no gradient of {name}"));
            }
            continue;
        };
        if UNSEEN.contains(&(file, name)) {
            wrong.push(format!("{name} is seen now"));
        }
        if found.len() != expected.len() {
            wrong.push(format!("the gradient of {name} has {} elements instead of {}", found.len(), expected.len()));
            continue;
        }
        let off = difference(&found, &expected);
        if off.is_nan() || off > (TOLERANCE * norm(&expected)).max(noise) {
            wrong.push(format!("the gradient of {name} is off by {:.1e}", off / norm(&expected)));
        }
        worst = worst.max(off / norm(&expected).max(noise / TOLERANCE));
    }
    wrong.extend(found.keys().filter(|name| !known(case, name)).map(|name| format!("PyTorch has no parameter {name}")));
    (worst, wrong)
}

/// Returns true for a value that stands for parameters which the exporter folded into it.
fn known(case: &Case, name: &str) -> bool {
    !case.absent.is_empty() && !case.data.contains_key(&format!("grad:{name}"))
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// Names of the nodes from which no value of `trained` is reached backwards.
fn prefix<'a>(graph: &'a Graph, trained: &HashSet<&str>) -> HashSet<&'a str> {
    let mut reached: HashSet<_> = trained.iter().filter_map(|name| graph.find(name)).collect();
    let mut prefix = HashSet::new();
    for node in graph.nodes() {
        let captured: Vec<_> = node.captured().filter_map(|name| graph.find(name)).collect();
        if node.inputs.iter().flatten().chain(&captured).any(|input| reached.contains(input)) {
            reached.extend(node.outputs.iter().flatten());
        } else {
            prefix.insert(node.name.as_str());
        }
    }
    prefix
}

/// Freezes the first units, several numbers of them: no node belongs to the backward pass of a forward node that no
/// trained parameter reaches, and what trains has the gradients of the full graph.
fn check_prefix(
    case: &Case,
    engine: &mut OnnxRuntime,
    full: &TrainStep,
    expected: &BTreeMap<String, Tensor>,
    failures: &mut Vec<String>,
) -> Result<(), Failure> {
    let norms = expected.iter().filter(|(name, _)| name.ends_with(".grad")).map(|(_, tensor)| norm(&floats(tensor)));
    let noise = NOISE * norms.fold(0f64, f64::max);
    let count = case.units.len();
    let mut before = usize::MAX;
    for depth in BTreeSet::from([1, count / 2, count - 1]) {
        let frozen: HashSet<&str> = case.units[..depth].iter().flatten().map(String::as_str).collect();
        let part = step(case, frozen.clone())?;
        let trained: HashSet<&str> = full.trained.iter().map(String::as_str).filter(|n| !frozen.contains(n)).collect();
        if part.trained.iter().map(String::as_str).collect::<HashSet<_>>() != trained {
            failures.push(format!("with {depth} units frozen {:?} train", part.trained));
        }
        let prefix = prefix(&case.prepared.model.graph, &trained);
        let backward = |node: &freeze_plan::graph::Node| match &node.origin {
            Origin::Backward(of) => Some(of.clone()),
            _ => None,
        };
        let origins: Vec<String> = part.train.graph.nodes().iter().filter_map(backward).collect();
        if let Some(of) = origins.iter().find(|of| prefix.contains(of.as_str())) {
            failures.push(format!("with {depth} units frozen \"{of}\" has a backward node"));
        }
        if origins.len() > before {
            failures.push(format!("{depth} frozen units leave more backward nodes than fewer"));
        }
        before = origins.len();
        for (output, found) in &run(case, engine, &part)? {
            let Some(parameter) = output.strip_suffix(".grad") else { continue };
            let (found, expected) = (floats(found), floats(&expected[output]));
            let off = difference(&found, &expected);
            if frozen.contains(parameter) || off.is_nan() || off > (SAME * norm(&expected)).max(noise) {
                failures.push(format!("with {depth} units frozen {output} is off by {off:.1e}"));
            }
        }
    }
    Ok(())
}

/// Compares every file of the given ways of exporting with PyTorch and freezes prefixes of its units.
fn check(ways: &[&str]) {
    let mut engine = onnxruntime();
    let (mut table, mut failures) = (Vec::new(), Vec::new());
    for (model, way, entry, file) in files().into_iter().filter(|(_, way, ..)| ways.contains(&way.as_str())) {
        let name = format!("{model}.{way}");
        let reason = REFUSED.iter().find(|(file, _)| *file == name).map(|(_, reason)| *reason);
        let mut attempt = || -> Result<_, Failure> {
            let case = case(&model, &way, &entry, &file)?;
            let full = step(&case, HashSet::new())?;
            let outputs = run(&case, &mut engine, &full)?;
            let (worst, mut wrong) = compare(&case, &name, &outputs);
            check_prefix(&case, &mut engine, &full, &outputs, &mut wrong)?;
            Ok((case.prepared.model.graph.nodes().len(), full.train.graph.nodes().len(), worst, wrong))
        };
        let nodes = &file["nodes"];
        match (attempt(), reason) {
            (Ok((prepared, train, worst, wrong)), None) => {
                table.push(format!("{name:28} {nodes:>5} {prepared:>5} {train:>5} {worst:.1e}"));
                failures.extend(wrong.into_iter().map(|text| format!("{name}: {text}")));
            }
            (Ok((.., wrong)), Some(reason)) => {
                failures.push(format!("{name}: no longer refused ({reason}) {wrong:?}"));
            }
            (Err(error), Some(reason)) if chain(error.as_ref()).contains(reason) => {
                table.push(format!("{name:28} {nodes:>5} {reason}"));
            }
            (Err(error), _) => failures.push(format!("{name}: {}", chain(error.as_ref()))),
        }
    }
    println!("{:28} {:>5} {:>5} {:>5} worst\n{}", "file", "nodes", "ready", "train", table.join("\n"));
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn files_of_the_torchscript_exporter_train_as_in_pytorch() {
    check(&["torchscript", "torchscript_11", "torchscript_default"]);
}

#[test]
fn files_of_the_dynamo_exporter_train_as_in_pytorch() {
    check(&["dynamo"]);
}

#[test]
fn files_of_the_dynamo_exporter_with_its_optimizer_train_as_in_pytorch() {
    check(&["dynamo_default", "dynamo_23"]);
}
