//! Every form that a file can have, against what other programs compute from the same file.

use crate::engines::{deviation, fixture, onnxruntime};
use freeze_plan::data::read_tensors;
use freeze_plan::graph::{FUNCTION_PATH, Model, Tensor, dump, upgrade};
use freeze_plan::losses::{LossKind, LossSpec};
use freeze_plan::modules::{UnitKind, units};
use freeze_plan::onnx::{Edits, LARGEST, encode, read, to_bytes};
use freeze_plan::optim::{OptimizerKind, OptimizerSpec};
use freeze_plan::planner::Analysis;
use freeze_plan::runner::{Engine, evaluate};
use freeze_plan::training::{PhaseOptions, Rates, TrainStep, build, prepare, trained_edits};
use std::collections::{BTreeMap, HashMap};
use std::error::Error;

const MODELS: [&str; 11] = [
    "custom",
    "external",
    "functions",
    "functions_old_body",
    "ir3",
    "packed",
    "qdq",
    "sparse",
    "subgraphs_13",
    "subgraphs_9",
    "unsorted",
];

type Columns = Vec<(String, Tensor)>;

fn model(name: &str) -> Model {
    read(&fixture(&format!("loader/{name}.onnx"))).unwrap().model
}

fn run(engine: &mut dyn Engine, model: &Model, data: &Columns) -> Result<Columns, String> {
    let graph = &model.graph;
    let column = |name: &str| &data.iter().find(|(column, _)| column == name).unwrap().1;
    let inputs: Vec<(&str, &Tensor)> =
        graph.inputs().iter().map(|id| (graph.value_name(*id), column(graph.value_name(*id)))).collect();
    let found = evaluate(engine, model, &inputs).map_err(|error| error.to_string())?;
    Ok(graph.outputs().iter().map(|id| graph.value_name(*id).to_string()).zip(found).collect())
}

#[test]
fn every_form_computes_what_it_should() {
    let mut engine = onnxruntime();
    let mut failures = Vec::new();
    for name in MODELS {
        let data = read_tensors(&fixture(&format!("loader/{name}.npz")), None).unwrap();
        let as_read = model(name);
        let cases = [("as read", as_read.clone()), ("upgraded", upgrade(&as_read).unwrap())];
        for (form, model) in cases {
            let found = match run(&mut engine, &model, &data) {
                Ok(found) => found,
                Err(error) => {
                    failures.push(format!("{name} {form}: {error}"));
                    continue;
                }
            };
            for (output, found) in found {
                let expected = data.iter().find(|(column, _)| *column == format!("expected.{output}"));
                let worst = deviation(&found, &expected.unwrap().1);
                if worst > 1e-6 {
                    failures.push(format!("{name} {form}: {output} deviates by {worst:e}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_file_without_edits_stays_as_it_is_and_a_new_one_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for name in MODELS {
        let file = read(&fixture(&format!("loader/{name}.onnx"))).unwrap();
        assert!(file.rewrite(&Edits::default()).unwrap() == file.bytes, "{name}");
        let copy = folder.path().join("copy.onnx");
        std::fs::write(&copy, to_bytes(&file.model)).unwrap();
        let again = read(&copy).unwrap().model;
        assert_eq!(dump(&again.graph), dump(&file.model.graph), "{name}");
    }
}

#[test]
fn nodes_of_functions_say_where_they_come_from() {
    let model = model("functions");
    assert!(model.functions.is_empty());
    let origins: Vec<(String, String)> = model
        .graph
        .nodes()
        .iter()
        .map(|node| {
            let path = node.metadata.iter().find(|(key, _)| key == FUNCTION_PATH).map(|(_, path)| path.clone());
            (node.name.clone(), path.unwrap())
        })
        .collect();
    let expected = [
        ("blocks.0/fc/MatMul_of_product", "blocks.0:Block/blocks.0/fc:Linear"),
        ("blocks.0/fc/Add_of_y", "blocks.0:Block/blocks.0/fc:Linear"),
        ("blocks.0/act/leaky", "blocks.0:Block/blocks.0/act:Activation"),
    ];
    for (place, (name, path)) in expected.into_iter().enumerate() {
        assert_eq!(origins[place], (name.to_string(), path.to_string()));
    }
}

#[test]
fn trained_weights_find_their_place() {
    let folder = tempfile::tempdir().unwrap();
    for (name, weight) in
        [("sparse", "fc1.weight"), ("external", "fc.weight"), ("unsorted", "bias"), ("functions", "blocks.1.fc.bias")]
    {
        let file = read(&fixture(&format!("loader/{name}.onnx"))).unwrap();
        let graph = &file.model.graph;
        let old = graph.value(graph.find(weight).unwrap()).initializer.clone().unwrap();
        let new = Tensor::float_full(old.dtype(), old.shape(), 0.75);
        let edits = Edits {
            initializers: HashMap::from([(weight.to_string(), new.clone())]),
            embed_external: true,
            ..Edits::default()
        };
        let path = folder.path().join("trained.onnx");
        std::fs::write(&path, file.rewrite(&edits).unwrap()).unwrap();
        let trained = read(&path).unwrap().model.graph;
        assert_eq!(dump(&trained), dump(graph), "{name}");
        for (_, value, tensor) in trained.initializers() {
            let old = graph.value(graph.find(&value.name).unwrap()).initializer.as_ref().unwrap();
            assert!(tensor == if value.name == weight { &new } else { old }, "{name}: {}", value.name);
        }
    }
}

fn train_graph(name: &str, frozen: &[&str]) -> Result<TrainStep, String> {
    let analysis = Analysis::of(&model(name));
    let prepared = prepare(&analysis).map_err(|error| error.to_string())?;
    let options = PhaseOptions {
        frozen: frozen.iter().copied().collect(),
        frozen_inputs: false,
        rates: Rates::new(),
        loss: &LossSpec::new(LossKind::Mse),
        optimizer: &OptimizerSpec::new(OptimizerKind::Sgd),
        output: None,
        seed: 0,
    };
    build(&prepared, &options)
        .map_err(|error| format!("{error}: {}", error.source().map_or(String::new(), ToString::to_string)))
}

#[test]
fn what_no_gradient_passes_may_be_of_any_domain() {
    let fused = |step: &TrainStep| step.train.graph.nodes().iter().filter(|node| node.op.name == "FastGelu").count();
    let step = train_graph("custom", &[]).unwrap();
    assert_eq!(fused(&step), 0, "a gradient passes: the operator is taken apart");
    let step = train_graph("custom", &["stem.weight"]).unwrap();
    assert_eq!(fused(&step), 1, "no gradient passes");
    assert_eq!(step.trained, ["head.weight", "head.bias"]);
    let data = read_tensors(&fixture("loader/custom.npz"), None).unwrap();
    let column = |name: &str| data.iter().find(|(column, _)| column == name).unwrap().1.clone();
    let model = model("custom").graph;
    let target = column("expected.scaled");
    let mut inputs = vec![("x", column("x")), ("target", target)];
    for name in ["head.weight", "head.bias"] {
        inputs.push((name, model.value(model.find(name).unwrap()).initializer.clone().unwrap()));
    }
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let outputs = evaluate(&mut onnxruntime(), &step.train, &inputs).unwrap();
    let loss = outputs[0].to_f64s().unwrap()[0];
    assert!(loss.abs() < 1e-9, "the target is what the model gives, the loss is {loss}");
}

/// The branches of the If give their results the name that the node has for them.
#[test]
fn a_name_may_be_that_of_a_branch_and_of_its_node() {
    let step = train_graph("functions", &[]).unwrap();
    let data = read_tensors(&fixture("loader/functions.npz"), None).unwrap();
    let model = Analysis::of(&model("functions")).model.graph;
    let column = |name: &str| data.iter().find(|(column, _)| column == name).map(|(_, tensor)| tensor.clone());
    let value = |name: &str| column(if name == "target" { "expected.share" } else { name });
    let own = |name: &str| model.value(model.find(name).unwrap()).initializer.clone().unwrap();
    let names = step.contract.train.inputs.iter().map(|port| port.name.as_str());
    let inputs: Vec<(&str, Tensor)> = names.map(|name| (name, value(name).unwrap_or_else(|| own(name)))).collect();
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let outputs = evaluate(&mut onnxruntime(), &step.train, &inputs).unwrap();
    let loss = outputs[0].to_f64s().unwrap()[0];
    assert!(loss.abs() < 1e-9, "the target is what the model gives, the loss is {loss}");
}

#[test]
fn quantised_weights_are_frozen_parts() {
    let step = train_graph("qdq", &[]).unwrap();
    assert_eq!(step.trained, ["norm.weight", "norm.bias", "fc.bias"]);
}

/// Of the parameters, the file has those of `blocks.0.before` and `head` and the transposed weights.
#[test]
fn parameters_of_equal_value_that_an_exporter_merged_train_apart() {
    let file = read(&fixture("merged/fresh.onnx")).unwrap();
    let data = read_tensors(&fixture("merged/fresh.npz"), None).unwrap();
    let column = |name: &str| data.iter().find(|(column, _)| column == name).map(|(_, tensor)| tensor);
    let analysis = Analysis::of(&file.model);
    let mut values = BTreeMap::new();
    let weights = ["blocks.0.fc1", "blocks.0.fc2", "blocks.1.fc1", "blocks.1.fc2", "head"];
    let mut weights = weights.iter().map(|module| column(&format!("{module}.weight")).unwrap());
    for name in analysis.trainable() {
        let value = match column(name) {
            Some(value) => value.clone(),
            None => transposed(weights.next().unwrap_or_else(|| panic!("{name} is no parameter"))),
        };
        values.insert(name.to_string(), value);
    }
    assert_eq!((values.len(), weights.next()), (20, None));
    let edits = trained_edits(&file.model.graph, &values);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trained.onnx");
    std::fs::write(&path, file.rewrite(&edits).unwrap()).unwrap();
    let found = run(&mut onnxruntime(), &read(&path).unwrap().model, &data).unwrap();
    let worst = deviation(&found[0].1, column("y").unwrap());
    assert!(worst < 1e-5, "{worst:e}");
}

/// BatchNorm is folded into each convolution, in a fresh model: all biases are one initializer.
#[test]
fn folded_parameters_of_equal_value_are_those_of_their_layers_in_order() {
    let analysis = Analysis::of(&read(&fixture("merged/folded.onnx")).unwrap().model);
    let units = units(&analysis.tree, UnitKind::Leaf);
    let paths: Vec<&str> = units.iter().map(|unit| unit.path.as_str()).collect();
    let layer = |index: usize| ["conv1", "conv2", "down.0"].map(|conv| format!("layers.{index}.{conv}"));
    let expected = [vec!["stem.0".to_string()], layer(0).into(), layer(1).into(), vec!["head".to_string()]].concat();
    assert_eq!(paths, expected);
    for unit in &units {
        assert_eq!((unit.parameters.len(), unit.shared.len()), (2, 0), "{}", unit.path);
    }
}

fn transposed(matrix: &Tensor) -> Tensor {
    let (rows, columns) = (matrix.shape()[0], matrix.shape()[1]);
    let old = matrix.to_vec::<f32>().unwrap();
    let new = (0..rows * columns).map(|place| old[place % rows * columns + place / rows]).collect();
    Tensor::from_vec(&[columns, rows], new)
}

#[test]
fn large_models_become_two_files() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["external", "sparse", "qdq"] {
        let file = read(&fixture(&format!("loader/{name}.onnx"))).unwrap();
        let path = folder.path().join("split.onnx");
        let data = folder.path().join("split.onnx.data");
        let edits = Edits { embed_external: true, ..Edits::default() };
        let ways = [
            encode(&file.model, "split.onnx.data", 64),
            file.rewrite_encoded(&edits, "split.onnx.data", 64).unwrap(),
            file.rewrite_encoded(&edits, "split.onnx.data", LARGEST).unwrap(),
        ];
        for (way, encoded) in ways.into_iter().enumerate() {
            std::fs::write(&path, &encoded.bytes).unwrap();
            encoded.write_data(&mut std::fs::File::create(&data).unwrap()).unwrap();
            let again = read(&path).unwrap().model.graph;
            for (_, value, tensor) in file.model.graph.initializers() {
                let found = again.value(again.find(&value.name).unwrap()).initializer.as_ref();
                assert!(found == Some(tensor), "{name}, way {way}: {}", value.name);
            }
            assert_eq!(dump(&again), dump(&file.model.graph), "{name}, way {way}");
            assert_eq!(encoded.pieces.is_empty(), way == 2 || name != "external", "{name}, way {way}");
        }
    }
}
