//! The cost model against things it did not make: PyTorch's flop counter, tract's costs, and the train
//! graphs that `training` builds.

use crate::engines::{fixture, golden};
use freeze_plan::cost::{CostModel, Flops};
use freeze_plan::facts;
use freeze_plan::graph::{Graph, Model, Node, Origin, ValueId};
use freeze_plan::losses::{LossKind, LossSpec};
use freeze_plan::modules::recover;
use freeze_plan::onnx::read;
use freeze_plan::optim::{OptimizerKind, OptimizerSpec};
use freeze_plan::plan::{BatchNorm, FrozenDropout};
use freeze_plan::planner::{Analysis, companions, wholes};
use freeze_plan::training::{PhaseOptions, Prepared, Rates, build, prepare};
use std::collections::{HashMap, HashSet};

const PRODUCTS: [&str; 8] = ["Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN"];

/// Reads a fixture of which the weights are not kept: a file of their size takes their place.
pub(crate) fn without_weights(name: &str, bytes: u64) -> Model {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::copy(fixture(&format!("flops/{name}.pb")), &path).unwrap();
    std::fs::File::create(folder.path().join("weights.bin")).unwrap().set_len(bytes).unwrap();
    read(&path).unwrap().model
}

/// Returns the sum over operators that are products, without what their biases cost.
fn products(model: &Model, costs: &[Flops], trains: &HashSet<String>) -> Flops {
    let graph = &model.graph;
    let elements = |value: ValueId| graph.fact(value).sizes().unwrap().iter().product::<usize>() as u64;
    let mut sum = Flops::default();
    for (node, flops) in graph.nodes().iter().zip(costs).filter(|(node, _)| PRODUCTS.contains(&node.op.name.as_str())) {
        sum = sum.plus(*flops);
        let recurrent = ["LSTM", "GRU", "RNN"].contains(&node.op.name.as_str());
        let (place, count) = if recurrent {
            let gates = graph.fact(node.input(3).unwrap()).sizes().unwrap()[1] as u64 / 2;
            let steps = graph.fact(node.input(0).unwrap()).sizes().unwrap()[..2].iter().product::<usize>() as u64;
            (3, steps * gates)
        } else {
            (2, elements(node.output(0).unwrap()))
        };
        if let Some(bias) = node.input(place) {
            sum.forward -= count;
            let parameter = freeze_plan::modules::parameters(model)
                .into_iter()
                .any(|p| trains.contains(&p.name) && reads(graph, bias, p.value));
            sum.weight_grad -= if parameter { count } else { 0 };
        }
    }
    sum
}

/// Returns true when a value is made from another one.
fn reads(graph: &Graph, value: ValueId, from: ValueId) -> bool {
    let inputs = |id| graph.node(id).inputs.iter().flatten().any(|input| reads(graph, *input, from));
    value == from || graph.producer(value).is_some_and(inputs)
}

#[test]
fn products_are_those_of_pytorchs_flop_counter() {
    let expected = golden("flops/flops.json");
    let mut failures = Vec::new();
    for (name, golden) in expected.as_object().unwrap() {
        let model = without_weights(name, golden["weights_bytes"].as_u64().unwrap());
        let model = facts::complete(&model).model;
        let costs = CostModel::new(&model, &recover(&model), 0);
        assert_eq!(costs.uncounted(), 0, "{name}: {:?}", costs.notes());
        let all: HashSet<String> = costs.trainable().iter().cloned().collect();
        for case in golden["cases"].as_array().unwrap() {
            let frozen: Vec<&str> =
                case["frozen"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
            let trains: HashSet<String> = all.iter().filter(|name| !frozen.contains(&name.as_str())).cloned().collect();
            let missing: Vec<&&str> = frozen.iter().filter(|name| !all.contains(**name)).collect();
            if !missing.is_empty() {
                failures.push(format!("{name}: {missing:?} are no parameters, of {all:?}"));
            }
            let found = products(&model, &costs.node_costs(&trains), &trains);
            let golden = (case["forward"].as_u64().unwrap(), case["backward"].as_u64().unwrap());
            if (found.forward, found.backward()) != golden {
                let found = (found.forward, found.backward());
                failures.push(format!("{name}, {} frozen: {found:?}, PyTorch has {golden:?}", frozen.len()));
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// A model whose train graph is compared with the predicted bytes.
struct Case {
    file: &'static str,
    loss: LossKind,
}

const CASES: [Case; 18] = [
    Case { file: "graphs/activations.onnx", loss: LossKind::Mse },
    Case { file: "graphs/activations_dynamo.onnx", loss: LossKind::Mse },
    Case { file: "graphs/arithmetic.onnx", loss: LossKind::Mse },
    Case { file: "graphs/attention.onnx", loss: LossKind::Mse },
    Case { file: "graphs/attention_dynamo.onnx", loss: LossKind::Mse },
    Case { file: "graphs/convnorm_dynamo.onnx", loss: LossKind::Mse },
    Case { file: "graphs/convnorm_eval.onnx", loss: LossKind::Mse },
    Case { file: "graphs/convnorm_train.onnx", loss: LossKind::Mse },
    Case { file: "graphs/convs.onnx", loss: LossKind::Mse },
    Case { file: "graphs/dense.onnx", loss: LossKind::Mse },
    Case { file: "graphs/pools.onnx", loss: LossKind::Mse },
    Case { file: "graphs/shapes.onnx", loss: LossKind::Mse },
    Case { file: "graphs/shapes_dynamo.onnx", loss: LossKind::Mse },
    Case { file: "graphs/still.onnx", loss: LossKind::CrossEntropy },
    Case { file: "parity/resnet8.onnx", loss: LossKind::CrossEntropy },
    Case { file: "digits/model.onnx", loss: LossKind::CrossEntropy },
    Case { file: "digits_vit/model.onnx", loss: LossKind::CrossEntropy },
    Case { file: "trees/transformer.torchscript.onnx", loss: LossKind::Mse },
];

const BATCH: usize = 4;

fn sizes(graph: &Graph) -> HashMap<String, usize> {
    let dims = graph.inputs().iter().filter_map(|id| graph.fact(*id).dim(0));
    dims.filter(|dim| dim.known().is_none()).map(|dim| (dim.to_string(), BATCH)).collect()
}

fn with_sizes(model: &Model) -> Model {
    let graph = model.graph.with_sizes(&sizes(&model.graph));
    facts::complete(&Model { graph, ..model.clone() }).model
}

/// Follows a value to the tensor that it is another shape of.
fn tensor(graph: &Graph, value: ValueId) -> ValueId {
    let mut current = value;
    while let Some(producer) = graph.producer(current) {
        let node = graph.node(producer);
        if !["Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"].contains(&node.op.name.as_str()) {
            break;
        }
        current = node.input(0).unwrap();
    }
    current
}

/// Returns the bytes of the values that forward nodes of a train graph make from its data and that
/// nodes of the backward pass read, by name. What only its shape is read of (`Shape`) is not kept, and
/// neither is what is made of parameters and constants.
fn read_backwards(graph: &Graph, parameters: &HashSet<&str>) -> HashMap<String, u64> {
    let mut of_data: HashSet<ValueId> =
        graph.inputs().iter().copied().filter(|id| !parameters.contains(graph.value_name(*id))).collect();
    let mut forward: HashSet<ValueId> = HashSet::new();
    let mut loss: HashSet<&str> = HashSet::new();
    for node in graph.nodes() {
        let from_data = node.inputs.iter().flatten().any(|input| of_data.contains(input));
        match &node.origin {
            Origin::Loss => drop(loss.insert(node.name.as_str())),
            Origin::Forward => forward.extend(node.outputs.iter().flatten().filter(|_| from_data)),
            _ => {}
        }
        of_data.extend(node.outputs.iter().flatten().filter(|_| from_data));
    }
    let backward = |node: &&Node| match &node.origin {
        Origin::Backward(of) => !loss.contains(of.as_str()) && !["Shape", "Size"].contains(&node.op.name.as_str()),
        _ => false,
    };
    let read = graph.nodes().iter().filter(backward).flat_map(|node| node.inputs.iter().flatten());
    let kept = read.map(|value| tensor(graph, *value)).filter(|value| forward.contains(value));
    let bytes = |value: ValueId| {
        let fact = graph.fact(value);
        let sizes = fact.sizes().unwrap_or_else(|| panic!("{} is {fact}", graph.value_name(value)));
        (sizes.iter().product::<usize>() * fact.dtype.unwrap().size()) as u64
    };
    kept.map(|value| (graph.value_name(value).to_string(), bytes(value))).collect()
}

fn train_graph(prepared: &Prepared, loss: LossKind, frozen: HashSet<&str>) -> Option<Graph> {
    let (loss, optimizer) = (LossSpec::new(loss), OptimizerSpec::new(OptimizerKind::Sgd));
    let options = PhaseOptions {
        frozen,
        frozen_inputs: false,
        rates: Rates::new(),
        loss: &loss,
        optimizer: &optimizer,
        output: None,
        seed: 0,
    };
    let graph = build(prepared, &options).ok()?.train.graph;
    let known = Model { graph: graph.with_sizes(&sizes(&graph)), ..prepared.model.clone() };
    Some(facts::complete(&known).model.graph)
}

/// The predicted bytes are exactly those of the values that the real backward pass reads.
#[test]
fn activation_bytes_are_those_that_the_train_graph_reads() {
    let mut failures = Vec::new();
    for Case { file, loss } in CASES {
        let analysis = Analysis::of(&read(&fixture(file)).unwrap().model);
        let prepared = prepare(&analysis).unwrap();
        let sized = with_sizes(&prepared.model);
        let companions = companions(&analysis, false);
        let wholes = wholes(&sized, &prepared.parameters);
        let costs = CostModel::with_wholes(&sized, &recover(&sized), 0, &wholes);
        let order = costs.trainable().to_vec();
        let parameters: HashSet<&str> = order.iter().map(String::as_str).collect();
        for policy in [
            (BatchNorm::Train, FrozenDropout::Train),
            (BatchNorm::Train, FrozenDropout::Off),
            (BatchNorm::Frozen, FrozenDropout::Train),
            (BatchNorm::AffineTrains, FrozenDropout::Off),
        ] {
            for count in [0, order.len() / 2, order.len() - 1] {
                let chosen: HashSet<&str> = order[..count].iter().map(String::as_str).collect();
                let held = companions.held(&chosen, &HashSet::new(), policy.0, policy.1);
                let mut frozen: HashSet<&str> = &chosen - &held.trains.iter().copied().collect();
                frozen.extend(held.names());
                let Some(graph) = train_graph(&prepared, loss, frozen.clone()) else {
                    failures.push(format!("{file}: no train graph with {count} frozen"));
                    continue;
                };
                let read = read_backwards(&graph, &parameters);
                let expected: u64 = read.values().sum();
                let found = costs.step_while(|name| frozen.contains(name)).activation_bytes;
                if found != expected {
                    let mut names: Vec<_> = read.into_iter().collect();
                    names.sort();
                    failures.push(format!(
                        "{file} {policy:?}, {count} frozen: {found}, the graph reads {expected} {names:?}"
                    ));
                }
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// Returns the fixtures below these folders.
fn fixtures(folders: &[&str]) -> Vec<String> {
    let mut files = Vec::new();
    for folder in folders {
        let entries = std::fs::read_dir(fixture(folder)).unwrap().map(|entry| entry.unwrap().file_name());
        let names = entries.map(|name| name.into_string().unwrap()).filter(|name| name.ends_with(".onnx"));
        files.extend(names.map(|name| format!("{folder}/{name}")));
    }
    files.sort();
    files
}

/// The items that the trained parameters need sum up to what the cost model says, for every set.
#[test]
fn what_parameters_need_sums_up_to_the_cost_of_the_step() {
    let flops = ["encoder", "lstm", "mobilenet_v2", "resnet18", "resnet50", "unet", "vit"];
    let golden = golden("flops/flops.json");
    let external = flops.iter().map(|name| {
        let model = without_weights(name, golden[*name]["weights_bytes"].as_u64().unwrap());
        (name.to_string(), facts::complete(&model).model)
    });
    let files = fixtures(&["models", "graphs", "parity", "digits", "trees"]).into_iter();
    let models = files.map(|file| (file.clone(), with_sizes(&read(&fixture(&file)).unwrap().model)));
    let (mut failures, mut compared) = (Vec::new(), 0);
    for (name, model) in models.chain(external) {
        let wholes = wholes(&model, &freeze_plan::modules::parameters(&model));
        let costs = CostModel::with_wholes(&model, &recover(&model), 2, &wholes);
        for frozen_batch_norm in [false, true] {
            let stays = if frozen_batch_norm { crate::budget::stays(&model) } else { HashMap::new() };
            let reach = costs.clone().with_stays(stays.clone()).reach();
            let count = reach.parameters().len();
            let mut seed = 1u64;
            for share in [0, 1, 3, 10, 30, 60, 90, 99, 100] {
                let mut random = |percent: u64| {
                    seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    (seed >> 33) % 100 < percent
                };
                let trains: HashSet<String> = reach.parameters().iter().filter(|_| random(share)).cloned().collect();
                let found = reach.cost(&reach.set(|name| trains.contains(name)));
                let expected = crate::budget::step(&costs, &stays, &trains);
                compared += 1;
                if found != expected {
                    failures.push(format!(
                        "{name}, {} of {count} train, frozen batch norm {frozen_batch_norm}: {found:?}, {expected:?}",
                        trains.len()
                    ));
                }
            }
        }
    }
    assert!(compared > 1000, "{compared} sets");
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// Multiply-adds of the products in tract's typed model; `None` where tract cannot read the file.
#[cfg(feature = "tract")]
fn tract_products(path: &std::path::Path) -> Option<u64> {
    use tract_onnx::prelude::*;
    let typed = tract_onnx::onnx().model_for_path(path).ok()?.into_typed().ok()?;
    let batch = typed.symbols.all_symbols().into_iter().map(|symbol| (symbol, TDim::Val(BATCH as i64))).collect();
    let typed = typed.set_symbols(&batch).ok()?;
    let mut total = 0;
    for node in typed.nodes() {
        let op = node.op.name();
        if !["Conv", "EinSum", "MatMul"].iter().any(|name| op.contains(name)) {
            continue;
        }
        let facts: Vec<&TypedFact> = node.inputs.iter().map(|input| typed.outlet_fact(*input).unwrap()).collect();
        for (cost, count) in node.op.cost(&facts).unwrap() {
            if matches!(cost, tract_onnx::tract_core::internal::Cost::FMA(_)) {
                total += u64::try_from(count.to_i64().unwrap()).unwrap();
            }
        }
    }
    Some(total)
}

#[cfg(feature = "tract")]
#[test]
fn multiply_adds_are_those_of_tract() {
    const FILES: [&str; 12] = [
        "graphs/activations.onnx",
        "graphs/attention.onnx",
        "graphs/convnorm_eval.onnx",
        "graphs/convs.onnx",
        "graphs/dense.onnx",
        "graphs/pools.onnx",
        "parity/resnet8.onnx",
        "digits/model.onnx",
        "trees/mlp.torchscript.onnx",
        "trees/resnet.torchscript.onnx",
        "trees/resnet.torchscript_default.onnx",
        "trees/transformer.torchscript_default.onnx",
    ];
    let mut failures = Vec::new();
    let mut compared = 0;
    for file in FILES {
        let Some(expected) = tract_products(&fixture(file)) else { continue };
        let model = with_sizes(&read(&fixture(file)).unwrap().model);
        let costs = CostModel::new(&model, &recover(&model), 0);
        let tracts = |op: &str| ["Conv", "Gemm", "MatMul", "Einsum"].contains(&op);
        let nodes = model.graph.nodes().iter().zip(costs.node_costs(&HashSet::new()));
        let found: u64 = nodes
            .filter(|(node, _)| tracts(&node.op.name))
            .map(|(node, flops)| {
                let elements =
                    model.graph.fact(node.output(0).unwrap()).sizes().unwrap().iter().product::<usize>() as u64;
                flops.forward - if node.input(2).is_some() { elements } else { 0 }
            })
            .sum();
        compared += 1;
        if found != 2 * expected {
            failures.push(format!("{file}: {found} flops, tract has {expected} multiply-adds"));
        }
    }
    assert!(compared > 6, "tract reads {compared} files");
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}
