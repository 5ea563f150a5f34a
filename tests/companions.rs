//! What goes with frozen parameters: names of the prepared model, and graphs that are built with them.

use crate::engines::{engines, fixture};
use freeze_plan::graph::{Attributes, Builder, DType, Dim, Fact, Model, Node, OpId, Tensor, ValueId};
use freeze_plan::losses::{LossKind, LossSpec};
use freeze_plan::onnx::read;
use freeze_plan::optim::{OptimizerKind, OptimizerSpec};
use freeze_plan::plan::{BatchNorm, CompanionKind, Companions, FrozenDropout};
use freeze_plan::planner::{Analysis, companions};
use freeze_plan::runner::evaluate;
use freeze_plan::training::{Dropout, PhaseOptions, Prepared, Rates, TrainStep, build, prepare};
use std::collections::HashSet;

/// Returns the running statistics of the BatchNormalization nodes whose trainable scale and bias are all
/// among `frozen`, and there is one.
pub fn statistics_of_frozen<'a>(prepared: &'a Prepared, frozen: &HashSet<&str>) -> Vec<&'a str> {
    let graph = &prepared.model.graph;
    let trainable: HashSet<&str> = prepared.trainable().into_iter().collect();
    let held = |node: &&Node| {
        let affine = [1, 2].into_iter().filter_map(|index| node.input(index)).map(|id| graph.value_name(id));
        let mut affine = affine.filter(|name| trainable.contains(name)).peekable();
        affine.peek().is_some() && affine.all(|name| frozen.contains(name))
    };
    let nodes = graph.nodes().iter().filter(|node| node.op.is("BatchNormalization")).filter(held);
    nodes.flat_map(|node| [node.input(3), node.input(4)]).flatten().map(|id| graph.value_name(id)).collect()
}

fn step(prepared: &Prepared, frozen: HashSet<&str>) -> TrainStep {
    let (loss, optimizer) = (LossSpec::new(LossKind::Mse), OptimizerSpec::new(OptimizerKind::Sgd));
    let options = PhaseOptions {
        frozen,
        frozen_inputs: false,
        rates: Rates::new(),
        loss: &loss,
        optimizer: &optimizer,
        output: None,
        seed: 0,
    };
    build(prepared, &options).unwrap_or_else(|error| panic!("{error}"))
}

/// Returns the statistics that go with each prefix of the parameters.
fn statistics<'a>(found: &'a Companions, frozen: &HashSet<&str>) -> HashSet<&'a str> {
    let held = found.held(frozen, &HashSet::new(), BatchNorm::Frozen, FrozenDropout::Train);
    held.statistics.into_iter().collect()
}

#[test]
fn statistics_of_whole_models_go_with_scale_and_bias() {
    const FILES: [&str; 12] = [
        "graphs/convnorm_dynamo.onnx",
        "graphs/convnorm_eval.onnx",
        "graphs/convnorm_train.onnx",
        "graphs/still.onnx",
        "parity/resnet8.onnx",
        "digits/model.onnx",
        "trees/resnet.dynamo.onnx",
        "trees/resnet.torchscript.onnx",
        "trees/resnet.torchscript_shared.onnx",
        "trees/keras_cnn.onnx",
        "models/mobilenet_v2.dynamo.onnx",
        "models/densenet.dynamo.onnx",
    ];
    let mut compared = 0;
    for file in FILES {
        let analysis = Analysis::of(&read(&fixture(file)).unwrap().model);
        let prepared = prepare(&analysis).unwrap();
        let found = companions(&analysis, false);
        let trainable = prepared.trainable();
        for count in (0..=trainable.len()).step_by(trainable.len().div_ceil(12)).chain([trainable.len()]) {
            let frozen: HashSet<&str> = trainable[..count].iter().copied().collect();
            let expected: HashSet<&str> = statistics_of_frozen(&prepared, &frozen).into_iter().collect();
            assert_eq!(statistics(&found, &frozen), expected, "{file}, {count} frozen");
            compared += expected.len();
        }
    }
    assert!(compared > 500, "{compared} statistics compared");
}

/// Gemm -> BatchNormalization -> Dropout -> Gemm, as opset `opset` writes them.
fn net(opset: i64) -> Model {
    let mut b = Builder::new("net");
    let x = b.input("x", Fact::new(DType::F32, vec![Dim::Symbol("batch".into()), Dim::Known(4)]));
    let mut tensor = |name: &str, shape: &[usize], from: f32| {
        let elements = (0..shape.iter().product::<usize>()).map(|index| from + index as f32 / 16.0).collect();
        b.initializer(name, Tensor::from_vec::<f32>(shape, elements))
    };
    let [first, second] = ["first.weight", "second.weight"].map(|name| tensor(name, &[4, 4], -0.4));
    let norm: Vec<ValueId> = [("weight", 0.8), ("bias", 0.1), ("running_mean", -0.2), ("running_var", 0.9)]
        .map(|(part, from)| tensor(&format!("bn.{part}"), &[4], from))
        .into();
    let y = b.op("MatMul", &[x, first], Attributes::none());
    let attributes = if opset < 9 { Attributes::none().with("spatial", 1) } else { Attributes::none() };
    let y = b.op("BatchNormalization", &[&[y], norm.as_slice()].concat(), attributes);
    let y = if opset < 12 {
        b.op("Dropout", &[y], Attributes::none().with("ratio", 0.5f32))
    } else {
        let ratio = b.constant("ratio", Tensor::scalar(0.5f32));
        b.op("Dropout", &[y, ratio], Attributes::none())
    };
    b.rename(y, "dropped");
    let y = b.op("MatMul", &[y, second], Attributes::none());
    b.output(y, "y");
    Model { graph: b.finish(), opsets: [(String::new(), opset)].into(), ir_version: 8, ..Model::default() }
}

#[test]
fn names_hold_whatever_opset_the_file_has() {
    for opset in [7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 18, 21] {
        let analysis = Analysis::of(&net(opset));
        let prepared = prepare(&analysis).unwrap().with_dropout(Dropout::On).unwrap();
        let found = companions(&analysis, true);
        let kinds: Vec<CompanionKind> = found.iter().map(|companion| companion.kind).collect();
        assert_eq!(kinds, [CompanionKind::Statistics, CompanionKind::Dropout], "opset {opset}");
        for name in found.iter().flat_map(|companion| &companion.names) {
            assert!(prepared.model.graph.find(name).is_some(), "opset {opset}: {name}");
        }
        let plain = step(&prepared, HashSet::new());
        assert!(plain.is_random() && plain.moving.len() == 2, "opset {opset}");
        let frozen = HashSet::from(["first.weight"]);
        let held = found.held(&frozen, &HashSet::new(), BatchNorm::Frozen, FrozenDropout::Off);
        assert_eq!(held.names().count(), 0, "both stand before a part that trains");
        let frozen = HashSet::from(["first.weight", "bn.weight", "bn.bias"]);
        let held = found.held(&frozen, &HashSet::new(), BatchNorm::AffineTrains, FrozenDropout::Off);
        assert_eq!(
            (held.dropout_off.as_slice(), held.trains.as_slice()),
            (&["dropped"][..], &["bn.weight", "bn.bias"][..])
        );
        let all = &frozen - &held.trains.iter().copied().collect();
        let still = step(&prepared, all.into_iter().chain(held.names()).collect());
        assert!(!still.is_random() && still.moving.is_empty(), "opset {opset}");
        assert_eq!(still.trained, ["second.weight", "bn.weight", "bn.bias"], "opset {opset}");
    }
}

/// Gemm -> Dropout, whose output and mask are both outputs of the model.
fn masked() -> Model {
    let mut b = Builder::new("masked");
    let x = b.input("x", Fact::new(DType::F32, vec![Dim::Symbol("batch".into()), Dim::Known(2)]));
    let w = b.initializer("fc.weight", Tensor::from_vec(&[2, 2], vec![0.5f32, -1.0, 2.0, 0.25]));
    let h = b.op("MatMul", &[x, w], Attributes::none());
    let (ratio, flag) = (b.constant("ratio", Tensor::scalar(0.9f32)), b.constant("flag", Tensor::scalar(true)));
    let made = b.ops(&OpId::standard("Dropout"), &[Some(h), Some(ratio), Some(flag)], Attributes::none(), 2);
    b.rename(made[0], "y");
    b.rename(made[1], "mask");
    let kept = b.op("Cast", &[made[1]], Attributes::none().with("to", 1));
    let masked = b.mul(made[0], kept);
    b.mark_output(made[0]);
    b.mark_output(made[1]);
    b.output(masked, "masked");
    Model { graph: b.finish(), opsets: [(String::new(), 18)].into(), ir_version: 8, ..Model::default() }
}

#[test]
fn a_dropout_that_is_off_gives_its_input_and_a_mask_that_keeps_all() {
    let analysis = Analysis::of(&masked());
    let prepared = prepare(&analysis).unwrap();
    let names: Vec<String> = companions(&analysis, false).iter().flat_map(|found| found.names.clone()).collect();
    assert_eq!(names, ["y"]);
    let step = step(&prepared, names.iter().map(String::as_str).collect());
    assert!(!step.is_random());
    let x = Tensor::from_vec(&[2, 2], vec![1.0f32, 2.0, -3.0, 0.5]);
    let w = Tensor::from_vec(&[2, 2], vec![0.5f32, -1.0, 2.0, 0.25]);
    let target = Tensor::zeros(DType::F32, &[2, 2]);
    let product = [4.5, -0.5, -0.5, 3.125];
    for mut engine in engines() {
        let feeds = [("x", &x), ("fc.weight", &w), ("target", &target)];
        let outputs = evaluate(engine.as_mut(), &step.train, &feeds).unwrap();
        let graph = &step.train.graph;
        for (name, expected) in [("y", product), ("masked", product), ("mask", [1.0; 4])] {
            let place = graph.outputs().iter().position(|id| graph.value_name(*id) == name).unwrap();
            assert_eq!(outputs[place].to_f64s().unwrap(), expected, "{name}");
        }
    }
}
