//! Modules that compute their activations a second time.

use crate::engines::{deviation, fixture, onnxruntime};
use freeze_plan::graph::{Node, Origin, Tensor};
use freeze_plan::losses::{LossKind, LossSpec};
use freeze_plan::onnx::read;
use freeze_plan::optim::{OptimizerKind, OptimizerSpec};
use freeze_plan::planner::Analysis;
use freeze_plan::runner::evaluate;
use freeze_plan::training::{Dropout, PhaseOptions, Prepared, Rates, Recompute, TrainStep, build, prepare};
use std::collections::HashSet;

fn prepared(name: &str) -> Prepared {
    let file = read(&fixture(&format!("trees/zoo/{name}.onnx"))).unwrap();
    prepare(&Analysis::of(&file.model)).unwrap()
}

fn step(prepared: &Prepared) -> TrainStep {
    let options = PhaseOptions {
        frozen: HashSet::new(),
        frozen_inputs: false,
        rates: Rates::new(),
        loss: &LossSpec::new(LossKind::Mse),
        optimizer: &OptimizerSpec::new(OptimizerKind::Sgd),
        output: None,
        seed: 3,
    };
    build(prepared, &options).unwrap()
}

/// Short decimals, or small indices, for every input of the train graph.
fn feeds(prepared: &Prepared, step: &TrainStep) -> Vec<(String, Tensor)> {
    let graph = &step.train.graph;
    let made = |(index, id): (usize, &freeze_plan::graph::ValueId)| {
        let name = graph.value_name(*id);
        let own = prepared.model.graph.find(name);
        let initializer = own.and_then(|id| prepared.model.graph.value(id).initializer.clone());
        let fact = graph.fact(*id);
        let shape: Vec<usize> = fact.shape.iter().flatten().map(|dim| dim.known().unwrap_or(2)).collect();
        let numbers = (0..shape.iter().product()).map(|at: usize| ((at * 37 + index * 11) % 19) as f32 / 19.0 - 0.4);
        let tensor = initializer.unwrap_or_else(|| match fact.is_float() {
            true => Tensor::from_vec(&shape, numbers.collect::<Vec<f32>>()),
            false => Tensor::from_vec(&shape, numbers.map(|number| i64::from(number > 0.0)).collect::<Vec<i64>>()),
        });
        (name.to_string(), tensor)
    };
    graph.inputs().iter().enumerate().map(made).collect()
}

fn again(node: &&Node) -> bool {
    node.name.contains("/again")
}

#[test]
fn the_result_is_the_same() {
    struct Case {
        model: &'static str,
        wanted: Recompute,
        dropout: Dropout,
        modules: usize,
    }
    let patterns = |list: &[&str]| Recompute::Modules(list.iter().map(|text| (*text).to_string()).collect());
    let cases = [
        Case { model: "gpt.torchscript", wanted: Recompute::Auto, dropout: Dropout::AsExported, modules: 1 },
        Case { model: "bert.dynamo", wanted: Recompute::Auto, dropout: Dropout::AsExported, modules: 1 },
        Case { model: "bert.torchscript", wanted: patterns(&["*layer.*"]), dropout: Dropout::AsExported, modules: 2 },
        Case { model: "inverted.torchscript", wanted: Recompute::Auto, dropout: Dropout::AsExported, modules: 1 },
    ];
    for Case { model, wanted, dropout, modules } in cases {
        let prepared = match prepared(model).with_dropout(dropout) {
            Ok(prepared) => prepared,
            Err(error) => panic!("{model}: {error}"),
        };
        let plain = step(&prepared);
        let mut twice = step(&prepared);
        let done = twice.recompute(&prepared, &wanted).unwrap();
        assert!(done.len() >= modules, "{model}: {done:?}");
        let copies: Vec<&Node> = twice.train.graph.nodes().iter().filter(again).collect();
        assert!(copies.len() > 5 * done.len(), "{model}: {} copies", copies.len());
        assert!(copies.iter().all(|node| matches!(node.origin, Origin::Backward(_))));
        let feeds = feeds(&prepared, &plain);
        let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let [one, two] = [&plain, &twice].map(|step| {
            evaluate(&mut onnxruntime(), &step.train, &feeds).unwrap_or_else(|error| panic!("{model}: {error}"))
        });
        for ((a, b), id) in one.iter().zip(&two).zip(plain.train.graph.outputs()) {
            let off = deviation(b, a);
            let noise = a.to_f64s().unwrap().iter().all(|value| value.abs() < 1e-6);
            assert!(off < 1e-5 || noise, "{model}: {} is off by {off}", plain.train.graph.value_name(*id));
        }
    }
}

#[test]
fn a_pattern_that_matches_no_module_is_an_error_with_the_nearest() {
    let prepared = prepared("gpt.torchscript");
    let mut step = step(&prepared);
    let wanted = Recompute::Modules(vec!["transformer.h.O".into()]);
    let error = step.recompute(&prepared, &wanted).unwrap_err().to_string();
    assert!(error.contains("matches no module, did you mean"), "{error}");
}
