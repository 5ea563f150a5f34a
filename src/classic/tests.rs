//! The form of the files, and what a phase change makes of a checkpoint.

use super::*;
use crate::artifacts::{Checkpoint, OptimizerGroup, Property};
use crate::graph::{Attributes, Builder, DType, Dim, Fact, Graph, Model, Tensor};
use crate::losses::{LossKind, LossSpec};
use crate::optim::{Group, OptimizerKind, OptimizerSpec};
use crate::plan::OnReturn;
use crate::planner::Analysis;
use crate::training::{PhaseOptions, Prepared, Rates, build, prepare};
use std::collections::BTreeMap;
use std::path::Path;

fn fixture(name: &str) -> Prepared {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
    prepare(&Analysis::of(&crate::onnx::read(&path).unwrap().model)).unwrap()
}

fn phase(prepared: &Prepared, frozen: &[&str]) -> Result<Phase, ClassicError> {
    let options = PhaseOptions {
        frozen: frozen.iter().copied().collect(),
        frozen_inputs: true,
        rates: Rates::new(),
        loss: &LossSpec::new(LossKind::CrossEntropy),
        optimizer: &OptimizerSpec::new(OptimizerKind::AdamW),
        output: None,
        seed: 0,
    };
    Phase::of(prepared, &build(prepared, &options).unwrap())
}

fn listed(graph: &Graph, ids: &[crate::graph::ValueId]) -> Vec<String> {
    ids.iter().map(|id| graph.value_name(*id).to_string()).collect()
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn inputs_outputs_and_accumulators_are_those_of_the_format() {
    let made = phase(&fixture("digits/model.onnx"), &["conv1.weight", "bn1.bias"]).unwrap();
    let graph = &made.training.graph;
    assert!((13..=21).contains(&made.training.opset()) && made.training.ir_version <= 10);
    assert_eq!(made.training.opsets.get("com.microsoft"), Some(&1));
    let inputs = listed(graph, graph.inputs());
    let state: Vec<String> =
        made.eval.graph.inputs().iter().skip(2).map(|id| made.eval.graph.value_name(*id).into()).collect();
    let buffers = made.trains.iter().map(|name| format!("{name}_grad.accumulation.buffer"));
    let expected: Vec<String> =
        owned(&["x", "target"]).into_iter().chain(state.clone()).chain(buffers).chain([names::RESET.into()]).collect();
    assert_eq!(inputs, expected);
    assert_eq!((state[0].as_str(), state[3].as_str(), state.len()), ("conv1.weight", "bn1.running_mean", 32));
    assert_eq!(graph.fact(graph.find(names::RESET).unwrap()), &Fact::fixed(DType::Bool, &[1]));
    let outputs = listed(graph, graph.outputs());
    let written: Vec<&String> = made.trains.iter().chain(&made.moves).collect();
    assert_eq!((outputs[0].as_str(), outputs.len()), ("loss", 1 + written.len()));
    for (output, name) in outputs[1..].iter().zip(&written) {
        assert_eq!(output, &format!("{name}_grad.accumulation.out"));
        let node = graph.node(graph.producer(graph.find(output).unwrap()).unwrap());
        assert_eq!(node.op.to_string(), "com.microsoft.InPlaceAccumulatorV2");
        let read = listed(graph, &node.inputs.iter().flatten().copied().collect::<Vec<_>>());
        let flag = graph.constant(node.input(2).unwrap());
        match made.trains.contains(name) {
            true => {
                assert_eq!(read, owned(&[&names::buffer(name), &names::gradient(name), names::RESET]));
                let facts = [0, 1].map(|input| graph.fact(node.input(input).unwrap()).sizes());
                assert_eq!(facts[0], facts[1], "{name}");
            }
            false => assert_eq!((read[0].as_str(), flag), (name.as_str(), Some(Tensor::from_vec(&[1], vec![true])))),
        }
    }
    assert!(!made.trains.contains(&"conv1.weight".to_string()) && made.trains.len() == 18);
    assert_eq!(made.moves.len(), 12, "running statistics move");
    let foreign = graph.nodes().iter().filter(|node| !node.op.domain.is_empty()).count();
    assert_eq!(foreign, written.len(), "all else is of the standard");
    assert!(graph.initializers().all(|(_, value, _)| !state.contains(&value.name)), "no weight is in the models");
    let eval = &made.eval.graph;
    assert_eq!(listed(eval, eval.outputs()), ["loss", "logits"]);
    let norms: Vec<_> = eval.nodes().iter().filter(|node| node.op.is("BatchNormalization")).collect();
    assert!(
        !norms.is_empty()
            && norms.iter().all(|node| node.outputs.len() == 1 && node.attributes.get("training_mode").is_none())
    );
}

#[test]
fn what_is_random_follows_from_a_count_in_the_checkpoint() {
    let made = phase(&fixture("digits_vit/model.onnx"), &[]).unwrap();
    assert_eq!(
        (made.moves.as_slice(), made.frozen.as_slice()),
        (&owned(&[names::COUNT])[..], &owned(&[names::COUNT])[..])
    );
    for graph in [&made.training.graph, &made.eval.graph] {
        assert_eq!(graph.inputs().iter().filter(|id| graph.value_name(**id) == names::COUNT).count(), 1);
        assert!(graph.nodes().iter().all(|node| !node.op.is("Dropout")));
    }
    let inputs = listed(&made.training.graph, made.training.graph.inputs());
    assert!(!inputs.contains(&"step".to_string()), "no user feeds the number of the step");
    assert_eq!(made.initial().frozen, [(names::COUNT.to_string(), Tensor::from_vec(&[1], vec![0_f32]))]);
}

/// `logits = x w^T + b`, with these names.
fn dense(input: &str, hidden: &str, output: &str, dtype: DType) -> Prepared {
    let mut b = Builder::new("dense");
    let x = b.input(input, Fact::new(dtype, vec![Dim::Symbol("batch".into()), Dim::Known(3)]));
    let w = b.initializer("fc.weight", Tensor::float_full(dtype, &[2, 3], 0.5));
    let bias = b.initializer("fc.bias", Tensor::float_full(dtype, &[2], 0.1));
    let product = b.op("Gemm", &[x, w], Attributes::none().with("transB", 1));
    b.rename(product, hidden);
    let y = b.add(product, bias);
    b.rename(y, output);
    b.mark_output(y);
    let model = Model { graph: b.finish(), opsets: [(String::new(), 17)].into(), ir_version: 8, ..Model::default() };
    prepare(&Analysis::of(&model)).unwrap()
}

#[test]
fn names_and_dtypes_that_mean_something_else_are_refused() {
    let taken = "is a value of the model and the name of";
    let cases = [
        (("x_grad", "h", "y", DType::F32), "the input \"x_grad\" ends in \"_grad\"".to_string()),
        (("x", "h", "y_grad", DType::F32), "the output \"y_grad\" ends in \"_grad\"".into()),
        (("x", "fc.weight_grad", "y", DType::F32), format!("\"fc.weight_grad\" {taken} the gradient of \"fc.weight\"")),
        (("lazy_reset_grad", "h", "y", DType::F32), format!("\"lazy_reset_grad\" {taken} the flag that resets")),
        (
            ("x", "fc.bias_grad.accumulation.out", "y", DType::F32),
            format!("\"fc.bias_grad.accumulation.out\" {taken} the sign that the gradient of \"fc.bias\""),
        ),
        (("x", "h", "y", DType::F64), "parameter \"fc.weight\" is float64".into()),
    ];
    for ((input, hidden, output, dtype), expected) in cases {
        let error = phase(&dense(input, hidden, output, dtype), &[]).unwrap_err().to_string();
        assert!(error.starts_with(&expected), "{expected}: {error}");
    }
    let frozen = phase(&dense("x", "inner_grad", "y", DType::F64), &["fc.weight"]);
    assert!(frozen.unwrap_err().to_string().contains("\"fc.bias\" is float64"), "a frozen parameter may be float64");
    assert!(
        phase(&dense("x", "inner_grad", "y", DType::F32), &[]).is_ok(),
        "what is neither input nor output may end so"
    );
}

#[test]
fn optimizers_are_one_node_over_sequences() {
    let like = fixture("digits/model.onnx").model;
    let read = |spec: &OptimizerSpec| {
        let bytes = optimizer(spec, &like).unwrap();
        crate::onnx::read_bytes(Path::new("optimizer_model.onnx"), bytes.into()).unwrap().model.graph
    };
    let adam = OptimizerSpec { weight_decay: Some(0.25), ..OptimizerSpec::new(OptimizerKind::AdamW) };
    let graph = read(&adam);
    let moments = ["first_order_moments", "second_order_moments"];
    assert_eq!(
        listed(&graph, graph.inputs()),
        [&["learning_rate", "step", "params", "gradients"][..], &moments].concat()
    );
    let [node] = graph.nodes() else { panic!("one node") };
    assert_eq!(node.op.to_string(), "com.microsoft.AdamWOptimizer");
    let number = |name| node.attributes.float(name, f32::NAN).unwrap();
    let numbers = ["alpha", "beta", "epsilon", "weight_decay"].map(number);
    assert_eq!(numbers, [0.9, 0.999, 1e-8, 0.25]);
    assert_eq!((node.attributes.int("adam_mode", 7), node.attributes.int("correct_bias", 7)), (Ok(0), Ok(1)));
    let clipped = OptimizerSpec { clip_norm: Some(0.5), ..OptimizerSpec::new(OptimizerKind::Sgd) };
    let graph = read(&clipped);
    assert_eq!(graph.inputs().len(), 5, "the runtime feeds a moment that SGD does not read");
    let [clip, node] = graph.nodes() else { panic!("two nodes") };
    assert_eq!((clip.op.name.as_str(), clip.attributes.float("max_norm", 0.0)), ("InplaceClipGradNorm", Ok(0.5)));
    assert_eq!((node.op.name.as_str(), node.input(2)), ("SGDOptimizerV2", clip.output(0)));
    assert_eq!(listed(&graph, graph.outputs()), ["update_flag"]);
}

#[test]
fn optimizers_that_the_format_cannot_hold_are_refused() {
    let sgd = || OptimizerSpec::new(OptimizerKind::Sgd);
    let adamw = || OptimizerSpec::new(OptimizerKind::AdamW);
    let adam = || OptimizerSpec::new(OptimizerKind::Adam);
    let cases = [
        (OptimizerSpec { momentum: Some(0.9), ..sgd() }, "sgd with momentum"),
        (OptimizerSpec { weight_decay: Some(0.1), ..sgd() }, "sgd with weight decay"),
        (OptimizerSpec { weight_decay: Some(0.1), ..adam() }, "adam with weight decay in the gradient"),
        (OptimizerSpec { amsgrad: Some(true), ..adamw() }, "amsgrad"),
        (OptimizerSpec { clip_value: Some(1.0), ..adamw() }, "clipping by value"),
        (OptimizerSpec { decay_1d: Some(false), ..adamw() }, "weight decay of some parameters only"),
        (OptimizerSpec { groups: vec![Group::default()], ..adamw() }, "groups of parameters"),
        (OptimizerSpec::new(OptimizerKind::Lion), "the optimizer lion"),
    ];
    for (spec, expected) in cases {
        let error = check_optimizer(&spec).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{expected} cannot be held")), "{error}");
    }
    assert_eq!(check_optimizer(&adam()), Ok(()), "adam without decay is AdamW without decay");
}

/// Returns the checkpoint of a phase as a device leaves it after some steps, with moments of one value each.
fn trained(phase: &Phase, steps: i64, moments: &[f32]) -> Checkpoint {
    let mut checkpoint = phase.initial();
    for (index, (_, tensor)) in checkpoint.trains.iter_mut().enumerate() {
        *tensor = Tensor::float_full(DType::F32, tensor.shape(), index as f64);
    }
    let of = |tensor: &Tensor| {
        let moment = |(index, value): (usize, &f32)| {
            (format!("momentum{index}"), Tensor::float_full(DType::F32, tensor.shape(), f64::from(*value)))
        };
        moments.iter().enumerate().map(moment).collect()
    };
    let moments = checkpoint.trains.iter().map(|(name, tensor)| (name.clone(), of(tensor))).collect();
    checkpoint.optimizer = vec![OptimizerGroup { name: "group0".into(), step: steps, initial_lr: 0.25, moments }];
    checkpoint.properties = vec![("epoch".into(), Property::Int(3))];
    checkpoint
}

/// Returns the value of all elements of a parameter's moments.
fn moments(checkpoint: &Checkpoint, name: &str) -> Vec<f64> {
    let of = |(_, tensor): &(String, Tensor)| tensor.to_f64s().unwrap()[0];
    checkpoint.optimizer[0].moments[name].iter().map(of).collect()
}

#[test]
fn state_goes_through_a_freeze_as_it_is_and_comes_back_corrected() {
    let model = dense("x", "h", "y", DType::F32);
    let (all, some) = (phase(&model, &[]).unwrap(), phase(&model, &["fc.weight"]).unwrap());
    let spec = OptimizerSpec::new(OptimizerKind::AdamW);
    let corrected = |value: f64, beta: f64, from: i32, to: i32| value * (1.0 - beta.powi(to)) / (1.0 - beta.powi(from));
    let near = |found: Vec<f64>, expected: [f64; 2]| {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs()), "{found:?}, {expected:?}");
    };
    for keep in [false, true] {
        let on_return = if keep { OnReturn::Keep } else { OnReturn::Reset };
        let before = trained(&all, 50, &[0.5, 0.25]);
        let frozen = some.carried(&spec, &before, on_return).unwrap();
        assert_eq!(frozen.parameter("fc.weight"), before.parameter("fc.weight"));
        assert_eq!((frozen.trains.len(), frozen.properties.clone()), (1, before.properties.clone()));
        let group = &frozen.optimizer[0];
        assert_eq!((group.step, group.initial_lr, group.moments.len()), (50, 0.25, 1));
        assert_eq!(moments(&frozen, "fc.bias"), [0.5, 0.25]);
        let waiting: Vec<&str> = frozen.frozen.iter().map(|(name, _)| name.as_str()).collect();
        let parked = ["freeze_plan.parked/fc.weight/momentum0", "freeze_plan.parked/fc.weight/momentum1"];
        assert_eq!(waiting, [&["fc.weight"][..], if keep { &parked } else { &[] }].concat());
        let mut later = frozen.clone();
        later.optimizer[0].step = 90;
        // A phase with the same frozen set: they go on waiting.
        let later = some.carried(&spec, &later, on_return).unwrap();
        assert_eq!((later.frozen.clone(), later.optimizer[0].step), (frozen.frozen.clone(), 90));
        let back = all.carried(&spec, &later, on_return).unwrap();
        assert_eq!((back.optimizer[0].step, back.frozen.len()), (10, 0));
        near(moments(&back, "fc.bias"), [corrected(0.5, 0.9, 90, 10), corrected(0.25, 0.999, 90, 10)]);
        let own = if keep { [corrected(0.5, 0.9, 50, 10), corrected(0.25, 0.999, 50, 10)] } else { [0.0, 0.0] };
        near(moments(&back, "fc.weight"), own);
    }
    // While there were fewer steps than the averages reach back, nothing is written anew.
    let frozen = some.carried(&spec, &trained(&some, 7, &[0.5, 0.25]), OnReturn::Reset).unwrap();
    let back = all.carried(&spec, &frozen, OnReturn::Reset).unwrap();
    assert_eq!((back.optimizer[0].step, moments(&back, "fc.bias")), (7, vec![0.5, 0.25]));
}

#[test]
fn sgd_has_no_averages_that_a_change_could_spoil() {
    let model = dense("x", "h", "y", DType::F32);
    let (all, some) = (phase(&model, &[]).unwrap(), phase(&model, &["fc.weight"]).unwrap());
    let spec = OptimizerSpec::new(OptimizerKind::Sgd);
    let frozen = some.carried(&spec, &trained(&all, 50, &[0.0]), OnReturn::Keep).unwrap();
    assert_eq!(frozen.frozen.len(), 1, "nothing waits");
    let back = all.carried(&spec, &frozen, OnReturn::Keep).unwrap();
    assert_eq!((back.optimizer[0].step, moments(&back, "fc.weight")), (50, vec![0.0]));
}

#[test]
fn a_run_that_has_not_begun_has_no_optimizer_state() {
    let made = phase(&dense("x", "h", "y", DType::F32), &[]).unwrap();
    let spec = OptimizerSpec::new(OptimizerKind::AdamW);
    assert!(made.initial().optimizer.is_empty());
    let carried = made.carried(&spec, &trained(&made, 0, &[0.0, 0.0]), OnReturn::Reset).unwrap();
    assert!(carried.optimizer.is_empty());
}

#[test]
fn checkpoints_of_something_else_are_refused() {
    let made = phase(&dense("x", "h", "y", DType::F32), &[]).unwrap();
    let spec = OptimizerSpec::new(OptimizerKind::AdamW);
    let good = trained(&made, 5, &[0.5, 0.25]);
    let error = |change: &dyn Fn(&mut Checkpoint)| {
        let mut other = good.clone();
        change(&mut other);
        made.carried(&spec, &other, OnReturn::Reset).map(|_| String::new()).unwrap_or_else(|error| error.to_string())
    };
    assert_eq!(error(&|_| {}), "");
    type Change<'a> = &'a dyn Fn(&mut Checkpoint);
    let cases: [(Change<'_>, &str); 5] = [
        (&|c| drop(c.trains.pop()), "the checkpoint holds no \"fc.bias\""),
        (&|c| c.frozen.push(("other".into(), Tensor::scalar(1_f32))), "holds \"other\", which is no parameter"),
        (
            &|c| c.trains[0].1 = Tensor::scalar(1_f32),
            "\"fc.weight\" is float32[] in the checkpoint, expected float32[2,3]",
        ),
        (
            &|c| drop(c.optimizer[0].moments.get_mut("fc.bias").unwrap().pop()),
            "\"fc.bias\" has 1 moments in the checkpoint, adamw keeps 2",
        ),
        (
            &|c| c.optimizer[0].moments.get_mut("fc.bias").unwrap()[1].1 = Tensor::scalar(1_f32),
            "\"momentum1 of fc.bias\" is float32[]",
        ),
    ];
    for (change, expected) in cases {
        let found = error(change);
        assert!(found.contains(expected), "{expected}: {found}");
    }
}

#[test]
fn weights_come_back_under_their_names() {
    let made = phase(&dense("x", "h", "y", DType::F32), &["fc.bias"]).unwrap();
    let own: BTreeMap<String, Tensor> = made.values.clone().into_iter().collect();
    let mut checkpoint = trained(&made, 5, &[0.5, 0.25]);
    checkpoint.frozen.push((names::parked("fc.bias", "momentum0"), Tensor::scalar(1_f32)));
    let values = restored(&own, &checkpoint).unwrap();
    assert_eq!(values.keys().map(String::as_str).collect::<Vec<_>>(), ["fc.bias", "fc.weight"]);
    assert_eq!(values["fc.weight"], Tensor::float_full(DType::F32, &[2, 3], 0.0));
    let less: BTreeMap<String, Tensor> = own.clone().into_iter().filter(|(name, _)| name != "fc.bias").collect();
    assert_eq!(restored(&less, &checkpoint), Err(ClassicError::Stranger { name: "fc.bias".into() }));
    checkpoint.trains.clear();
    assert_eq!(restored(&own, &checkpoint), Err(ClassicError::Missing { name: "fc.weight".into() }));
}

#[cfg(feature = "runner")]
#[test]
fn the_count_is_the_number_of_the_batch_from_one() {
    let made = phase(&fixture("digits_vit/model.onnx"), &[]).unwrap();
    let mut graph = made.training.graph.clone();
    let written = graph.find(&names::done(names::COUNT)).and_then(|done| graph.producer(done)).unwrap();
    let next = graph.node(written).input(1).unwrap();
    graph.outputs = vec![graph.find("step").unwrap(), next];
    let count = graph.find(names::COUNT).unwrap();
    graph.inputs.retain(|input| *input == count);
    let model = Model { graph: crate::graph::prune(&graph), ..made.training.clone() };
    let before = Tensor::from_vec(&[1], vec![4_f32]);
    let mut engine = crate::runner::testing::onnxruntime();
    let found = crate::runner::evaluate(&mut engine, &model, &[(names::COUNT, &before)]).unwrap();
    assert_eq!(found, [Tensor::scalar(5_i64), Tensor::from_vec(&[1], vec![5_f32])]);
}
