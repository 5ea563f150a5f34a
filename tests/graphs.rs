//! Whole graphs against PyTorch: loss, gradients of every parameter, moved statistics.

use crate::companions::statistics_of_frozen;
use crate::engines::{deviation, engines, fixture, golden};
use freeze_plan::data::read_tensors;
use freeze_plan::graph::Tensor;
use freeze_plan::losses::{LossKind, LossSpec};
use freeze_plan::onnx::read;
use freeze_plan::optim::{OptimizerKind, OptimizerSpec};
use freeze_plan::planner::Analysis;
use freeze_plan::runner::{Engine, evaluate};
use freeze_plan::training::{PhaseOptions, Prepared, Rates, build, prepare};
use std::collections::HashSet;

/// Relative to the largest gradient of the parameter; float32 sums over a whole model.
const TOLERANCE: f64 = 2e-4;
/// Gradients that are zero but for rounding (a bias before batch normalization).
const NOISE: f64 = 2e-6;

const MODELS: [&str; 13] = [
    "activations",
    "activations_dynamo",
    "arithmetic",
    "attention",
    "attention_dynamo",
    "convnorm_dynamo",
    "convnorm_eval",
    "convnorm_train",
    "convs",
    "dense",
    "pools",
    "shapes",
    "shapes_dynamo",
];

type Columns = Vec<(String, Tensor)>;

struct Case {
    prepared: Prepared,
    loss: LossSpec,
    data: Columns,
    all_frozen: bool,
}

fn case(name: &str) -> Case {
    let info = golden(&format!("graphs/{name}.json"));
    let file = read(&fixture(&format!("graphs/{name}.onnx"))).unwrap();
    let prepared = prepare(&Analysis::of(&file.model)).unwrap();
    let kind = match info["loss"].as_str().unwrap() {
        "mse" => LossKind::Mse,
        _ => LossKind::CrossEntropy,
    };
    let loss = LossSpec { class_axis: info["class_axis"].as_i64(), ..LossSpec::new(kind) };
    let all_frozen = info["batch_norm"].as_str() == Some("eval");
    let data = read_tensors(&fixture(&format!("graphs/{name}.npz")), None).unwrap();
    Case { prepared, loss, data, all_frozen }
}

fn column<'a>(data: &'a Columns, name: &str) -> Option<&'a Tensor> {
    data.iter().find(|column| column.0 == name).map(|column| &column.1)
}

/// Runs the train graph with `frozen` as constants and returns its outputs by name.
fn run(case: &Case, engine: &mut dyn Engine, frozen: HashSet<&str>) -> Vec<(String, Tensor)> {
    let optimizer = OptimizerSpec::new(OptimizerKind::Sgd);
    let mut frozen = frozen;
    if case.all_frozen {
        frozen.extend(statistics_of_frozen(&case.prepared, &frozen));
    }
    let options = PhaseOptions {
        frozen,
        frozen_inputs: false,
        rates: Rates::new(),
        loss: &case.loss,
        optimizer: &optimizer,
        output: None,
        seed: 0,
    };
    let step = build(&case.prepared, &options).unwrap();
    let graph = &step.train.graph;
    let feeds: Vec<(String, Tensor)> = graph
        .inputs()
        .iter()
        .map(|id| {
            let name = graph.value_name(*id);
            let own = case.prepared.model.graph.find(name);
            let initializer = own.and_then(|id| case.prepared.model.graph.value(id).initializer.clone());
            (name.to_string(), initializer.unwrap_or_else(|| column(&case.data, name).expect(name).clone()))
        })
        .collect();
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let outputs = evaluate(engine, &step.train, &feeds).unwrap_or_else(|error| panic!("{error}"));
    graph.outputs().iter().map(|id| graph.value_name(*id).to_string()).zip(outputs).collect()
}

/// Parameters that are frozen so that BatchNormalization runs in inference form, as in the golden.
fn batch_norm_parameters(case: &Case) -> HashSet<&str> {
    if !case.all_frozen {
        return HashSet::new();
    }
    let graph = &case.prepared.model.graph;
    let nodes = graph.nodes().iter().filter(|node| node.op.is("BatchNormalization"));
    nodes.flat_map(|node| [node.input(1), node.input(2)]).flatten().map(|id| graph.value_name(id)).collect()
}

#[test]
fn gradients_are_pytorchs() {
    let mut failures = Vec::new();
    for name in MODELS {
        let case = case(name);
        for mut engine in engines() {
            let engine_name = engine.info().name.clone();
            let outputs = run(&case, engine.as_mut(), batch_norm_parameters(&case));
            let mut compared = 0;
            for (output, found) in &outputs {
                let golden = match output.strip_suffix(".grad") {
                    Some(parameter) => format!("grad:{parameter}"),
                    None if output.ends_with(".next") => format!("torch_next:{}", output.trim_end_matches(".next")),
                    None if output == "loss" => "loss".to_string(),
                    None => continue,
                };
                let Some(expected) = column(&case.data, &golden) else {
                    failures.push(format!("{name} [{engine_name}]: PyTorch has no {golden}"));
                    continue;
                };
                compared += 1;
                let expected = expected.reshaped(found.shape());
                let size = expected.to_f64s().unwrap().iter().fold(0f64, |m, v| m.max(v.abs()));
                let off = deviation(found, &expected);
                if off > TOLERANCE && off * size.max(1e-6) > NOISE {
                    failures.push(format!("{name} [{engine_name}]: {golden} is off by {off:.1e}"));
                }
            }
            if compared < 2 {
                failures.push(format!("{name} [{engine_name}]: nothing compared"));
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn freezing_leaves_the_other_gradients_as_they_are() {
    let mut engine = crate::engines::onnxruntime();
    for name in ["convs", "arithmetic", "convnorm_train", "attention"] {
        let case = case(name);
        let trainable = case.prepared.trainable();
        let full = run(&case, &mut engine, HashSet::new());
        for count in 1..trainable.len() {
            let frozen: HashSet<&str> = trainable[..count].iter().copied().collect();
            let part = run(&case, &mut engine, frozen.clone());
            for (output, found) in &part {
                let (_, expected) = full.iter().find(|(name, _)| name == output).unwrap();
                assert!(
                    deviation(found, expected) < 1e-5 || found.to_f64s().unwrap().iter().all(|v| v.abs() < NOISE),
                    "{name}: {output} with {count} frozen"
                );
            }
            for parameter in &frozen {
                assert!(!part.iter().any(|(output, _)| *output == format!("{parameter}.grad")), "{parameter}");
            }
        }
    }
}

/// The names under `still` in a golden.
fn still(info: &serde_json::Value, kind: &str) -> Vec<String> {
    info["still"][kind].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_string()).collect()
}

/// Compares gradients and moved statistics with those under `prefix`; returns how many gradients there are.
fn same_as_pytorch(case: &Case, engine: &mut dyn Engine, frozen: HashSet<&str>, prefix: &str) -> usize {
    const CLOSE: f64 = 1e-5;
    let outputs = run(case, engine, frozen);
    let mut gradients = 0;
    for (output, found) in &outputs {
        let golden = match output.strip_suffix(".grad") {
            Some(parameter) => format!("{prefix}{parameter}"),
            None if output.ends_with(".next") => format!("torch_next:{}", output.trim_end_matches(".next")),
            None if output == "loss" => "loss".to_string(),
            None => "output".to_string(),
        };
        let expected = column(&case.data, &golden).unwrap_or_else(|| panic!("PyTorch has no {golden}"));
        let off = deviation(found, &expected.reshaped(found.shape()));
        let noise = found.to_f64s().unwrap().iter().all(|value| value.abs() < 1e-7);
        assert!(off < CLOSE || noise, "{golden} is off by {off:.1e} [{}]", engine.info().name);
        gradients += usize::from(output.ends_with(".grad"));
    }
    gradients
}

#[test]
fn a_still_block_in_the_middle_has_pytorchs_gradients() {
    let case = case("still");
    let info = golden("graphs/still.json");
    let (statistics, dropout) = (still(&info, "statistics"), still(&info, "dropout_off"));
    let held: HashSet<&str> = statistics.iter().chain(&dropout).map(String::as_str).collect();
    let (scale, bias) = ("block.1.weight", "block.1.bias");
    for mut engine in engines() {
        let count = same_as_pytorch(&case, engine.as_mut(), held.clone(), "grad:");
        assert_eq!(count, case.prepared.trainable().len());
        let frozen = held.iter().copied().chain([scale, bias]).collect();
        assert_eq!(same_as_pytorch(&case, engine.as_mut(), frozen, "grad_frozen:"), count - 2);
        let frozen = held.iter().copied().chain([bias]).collect();
        assert_eq!(same_as_pytorch(&case, engine.as_mut(), frozen, "grad:"), count - 1, "the scale alone trains");
        let moved: Vec<String> = run(&case, engine.as_mut(), held.clone()).into_iter().map(|output| output.0).collect();
        assert!(statistics.iter().all(|name| !moved.contains(&format!("{name}.next"))), "{moved:?}");
        assert_eq!(moved.iter().filter(|name| name.ends_with(".next")).count(), 2, "those outside the block move");
    }
}

/// Every BatchNormalization by running statistics, scale and bias frozen and not.
#[test]
fn running_statistics_have_pytorchs_gradients_with_and_without_scale_and_bias() {
    for name in ["convnorm_eval", "dense"] {
        let case = case(name);
        let statistics: HashSet<&str> = case.prepared.statistics().into_iter().collect();
        let affine = batch_norm_parameters(&case);
        for mut engine in engines() {
            let all = same_as_pytorch(&case, engine.as_mut(), statistics.clone(), "grad:");
            let part = same_as_pytorch(&case, engine.as_mut(), &statistics | &affine, "grad:");
            assert_eq!((all, part), (case.prepared.trainable().len(), all - affine.len()), "{name}");
        }
    }
}

fn rows_of(tensor: &Tensor, rows: &[usize]) -> Tensor {
    fn taken<T: Copy>(all: &[T], width: usize, rows: &[usize]) -> Vec<T> {
        rows.iter().flat_map(|row| all[row * width..(row + 1) * width].to_vec()).collect()
    }
    let mut shape = tensor.shape().to_vec();
    shape[0] = rows.len();
    let width = tensor.shape()[1..].iter().product();
    match tensor.to_vec::<f32>() {
        Ok(all) => Tensor::from_vec(&shape, taken(&all, width, rows)),
        Err(_) => Tensor::from_vec(&shape, taken(&tensor.to_vec::<i64>().unwrap(), width, rows)),
    }
}

/// Runs the train graph on `rows` of the data at a number of the step and returns the model's output.
fn output_of(case: &Case, engine: &mut dyn Engine, frozen: &HashSet<&str>, rows: &[usize], number: i64) -> Vec<f64> {
    let optimizer = OptimizerSpec::new(OptimizerKind::Sgd);
    let frozen = frozen.clone();
    let options = PhaseOptions {
        frozen,
        frozen_inputs: false,
        rates: Rates::new(),
        loss: &case.loss,
        optimizer: &optimizer,
        output: None,
        seed: 0,
    };
    let step = build(&case.prepared, &options).unwrap();
    let (graph, model) = (&step.train.graph, &case.prepared.model.graph);
    let number = Tensor::scalar(number);
    let feeds: Vec<(&str, Tensor)> = graph
        .inputs()
        .iter()
        .map(|id| {
            let name = graph.value_name(*id);
            let held = model.find(name).and_then(|id| model.value(id).initializer.clone());
            let batch = || column(&case.data, name).map(|column| rows_of(column, rows));
            (name, held.or_else(batch).unwrap_or_else(|| number.clone()))
        })
        .collect();
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let outputs = evaluate(engine, &step.train, &feeds).unwrap();
    let name = model.value_name(model.outputs()[0]);
    let place = graph.outputs().iter().position(|id| graph.value_name(*id) == name).unwrap();
    outputs[place].to_f64s().unwrap()
}

/// With everything before the head frozen, what comes out of a sample is its own matter.
#[test]
fn outputs_of_a_still_prefix_depend_on_neither_batch_nor_step() {
    let case = case("still");
    let info = golden("graphs/still.json");
    let dropout = still(&info, "dropout_off");
    let frozen: HashSet<&str> = case.prepared.trainable().into_iter().filter(|n| !n.starts_with("head.")).collect();
    for mut engine in engines() {
        let mut first = |frozen: &HashSet<&str>, rows: &[usize], number| -> Vec<f64> {
            output_of(&case, engine.as_mut(), frozen, rows, number)[..5].to_vec()
        };
        let differ = |a: &[f64], b: &[f64]| a.iter().zip(b).any(|(a, b)| (a - b).abs() > 1e-4);
        let base = first(&frozen, &[0, 1, 2], 1);
        assert!(differ(&first(&frozen, &[0, 1, 2], 2), &base), "Dropout drops");
        let all: HashSet<&str> = frozen.iter().copied().chain(dropout.iter().map(String::as_str)).collect();
        let base = first(&all, &[0, 1, 2], 1);
        assert!(differ(&first(&all, &[0, 3], 1), &base), "the batch counts");
        assert!(!differ(&first(&all, &[0, 1, 2], 2), &base), "the step does not");
        let all: HashSet<&str> = all.iter().copied().chain(case.prepared.statistics()).collect();
        let base = first(&all, &[0, 1, 2], 1);
        for (rows, number) in [(&[0, 3][..], 1), (&[0], 2), (&[0, 0, 3, 2], 3)] {
            assert!(!differ(&first(&all, rows, number), &base), "rows {rows:?}, step {number}");
        }
    }
}

#[test]
fn a_frozen_prefix_has_no_backward_node() {
    let case = case("dense");
    let optimizer = OptimizerSpec::new(OptimizerKind::Sgd);
    let trainable = case.prepared.trainable();
    let mut last = usize::MAX;
    for count in 0..trainable.len() {
        let frozen: HashSet<&str> = trainable[..count].iter().copied().collect();
        let options = PhaseOptions {
            frozen,
            frozen_inputs: false,
            rates: Rates::new(),
            loss: &case.loss,
            optimizer: &optimizer,
            output: None,
            seed: 0,
        };
        let step = build(&case.prepared, &options).unwrap();
        let backward =
            |name: &&freeze_plan::graph::Node| matches!(name.origin, freeze_plan::graph::Origin::Backward(_));
        let nodes = step.train.graph.nodes().iter().filter(backward).count();
        assert!(nodes <= last, "{count} frozen: {nodes} backward nodes, before {last}");
        assert_eq!(step.trained, trainable[count..], "what is not frozen trains");
        last = nodes;
    }
    assert!(last < 20, "with one bias left only the loss has a backward pass, found {last} nodes");
}

/// A hidden layer whose weight is frozen, and an output layer that trains.
fn small_model() -> Prepared {
    use freeze_plan::graph::{Attributes, Builder, DType, Dim, Fact, Model};
    let mut b = Builder::new("small");
    let x = b.input("x", Fact::new(DType::F32, vec![Dim::Symbol("batch".into()), Dim::Known(3)]));
    let w1 = b.initializer("fc1.weight", Tensor::from_vec(&[4, 3], vec![0.1f32; 12]));
    let b1 = b.initializer("fc1.bias", Tensor::from_vec(&[4], vec![0f32; 4]));
    let w2 = b.initializer("fc2.weight", Tensor::from_vec(&[2, 4], vec![0.1f32; 8]));
    let transposed = || Attributes::none().with("transB", 1i64);
    let hidden = b.op("Gemm", &[x, w1, b1], transposed());
    let hidden = b.unary("Relu", hidden);
    let y = b.op("Gemm", &[hidden, w2], transposed());
    b.rename(y, "y");
    b.mark_output(y);
    let opsets = [(String::new(), 18)].into_iter().collect();
    prepare(&Analysis::of(&Model { graph: b.finish(), opsets, ir_version: 8, ..Model::default() })).unwrap()
}

#[test]
fn the_train_graph_of_a_small_model_is_exactly_this() {
    let prepared = small_model();
    let (loss, optimizer) = (LossSpec::new(LossKind::Mse), OptimizerSpec::new(OptimizerKind::Sgd));
    let dump = |frozen: &[&'static str]| {
        let frozen = frozen.iter().copied().collect();
        let options = PhaseOptions {
            frozen,
            frozen_inputs: false,
            rates: Rates::new(),
            loss: &loss,
            optimizer: &optimizer,
            output: None,
            seed: 0,
        };
        freeze_plan::graph::dump(&build(&prepared, &options).unwrap().train.graph)
    };
    assert_eq!(dump(&["fc1.weight", "fc1.bias"]), FROZEN_FIRST_LAYER);
    assert_eq!(
        dump(&[]).lines().filter(|line| line.contains("fc1.weight")).count(),
        4,
        "it is read, and has a gradient"
    );
}

const FROZEN_FIRST_LAYER: &str = "\
in  x float32[batch,3]
in  fc2.weight float32[2,4]
in  target float32[batch,2]
Gemm:0 = Gemm(x, fc1.weight, fc1.bias) {transB=1}
Relu:0 = Relu(Gemm:0)
y = Gemm(Relu:0, fc2.weight) {transB=1}
loss/Sub:0 = Sub(y, target)
loss/Mul:0 = Mul(loss/Sub:0, loss/Sub:0)
loss = ReduceMean(loss/Mul:0) {keepdims=0}
loss/ReduceMean/grad/Shape:0 = Shape(loss/Mul:0)
loss/ReduceMean/grad/Gather:0 = Gather(loss/ReduceMean/grad/Shape:0, loss/ReduceMean/grad/axes)
loss/ReduceMean/grad/ReduceProd:0 = ReduceProd(loss/ReduceMean/grad/Gather:0) {keepdims=0}
loss/ReduceMean/grad/Cast:0 = Cast(loss/ReduceMean/grad/ReduceProd:0) {to=1}
loss/ReduceMean/grad/Div:0 = Div(loss/grad/const, loss/ReduceMean/grad/Cast:0)
loss/ReduceMean/grad/Unsqueeze:0 = Unsqueeze(loss/ReduceMean/grad/Div:0, loss/ReduceMean/grad/axes_1)
loss/Mul/grad/Mul:0 = Mul(loss/ReduceMean/grad/Unsqueeze:0, loss/Sub:0)
loss/Mul/grad/Mul_1:0 = Mul(loss/ReduceMean/grad/Unsqueeze:0, loss/Sub:0)
loss/Sub/grad/Sum:0 = Sum(loss/Mul/grad/Mul:0, loss/Mul/grad/Mul_1:0)
fc2.weight.grad = Gemm(loss/Sub/grad/Sum:0, Relu:0) {alpha=1, transA=1, transB=0}
out loss float32[]
out y float32[batch,2]
out fc2.weight.grad float32[2,4]
";

#[test]
fn random_dropout_follows_seed_and_step_and_its_mask_goes_backward() {
    use freeze_plan::graph::{Attributes, Builder, DType, Fact, Model, OpId};
    let (rows, width) = (8, 16);
    let mut b = Builder::new("dropout");
    let x = b.input("x", Fact::fixed(DType::F32, &[rows, 2]));
    let w = b.initializer("fc.weight", Tensor::from_vec(&[2, width], vec![0.5f32; 2 * width]));
    let h = b.op("MatMul", &[x, w], Attributes::none());
    let ratio = b.initializer("ratio", Tensor::scalar(0.5f32));
    let training = b.initializer("training", Tensor::scalar(true));
    let inputs = [Some(h), Some(ratio), Some(training)];
    let y = b.ops(&OpId::standard("Dropout"), &inputs, Attributes::none(), 1)[0];
    b.rename(y, "y");
    b.mark_output(y);
    let opsets = [(String::new(), 18)].into_iter().collect();
    let model = Model { graph: b.finish(), opsets, ir_version: 8, ..Model::default() };
    let prepared = prepare(&Analysis::of(&model)).unwrap();
    let (loss, optimizer) = (LossSpec::new(LossKind::Mse), OptimizerSpec::new(OptimizerKind::Sgd));
    for mut engine in engines() {
        let mut run = |seed: u64, number: i64| -> (Vec<f64>, Vec<f64>) {
            let options = PhaseOptions {
                frozen: HashSet::new(),
                frozen_inputs: false,
                rates: Rates::new(),
                loss: &loss,
                optimizer: &optimizer,
                output: None,
                seed,
            };
            let step = build(&prepared, &options).unwrap();
            assert!(step.is_random());
            let feeds = [
                ("x", &Tensor::from_vec(&[rows, 2], vec![1f32; rows * 2])),
                ("target", &Tensor::zeros(DType::F32, &[rows, width])),
                ("fc.weight", &Tensor::from_vec(&[2, width], vec![0.5f32; 2 * width])),
                ("step", &Tensor::scalar(number)),
            ];
            let outputs = evaluate(engine.as_mut(), &step.train, &feeds).unwrap();
            let graph = &step.train.graph;
            let named = |name: &str| {
                let index = graph.outputs().iter().position(|id| graph.value_name(*id) == name).unwrap();
                outputs[index].to_f64s().unwrap()
            };
            (named("y"), named("fc.weight.grad"))
        };
        let (y, grad) = run(1, 1);
        assert_eq!(run(1, 1).0, y, "the same seed and step drop the same");
        assert_ne!(run(2, 1).0, y, "another seed drops others");
        assert_ne!(run(1, 2).0, y, "another step drops others");
        for column in 0..width {
            let kept = (0..rows).filter(|row| y[row * width + column] != 0.0).count() as f64;
            // d loss / d w = sum over rows of x * 2 y / n * 1 / (1 - ratio), with y = 2 where kept.
            let expected = kept * 2.0 * 2.0 / (rows * width) as f64 * 2.0;
            assert!((grad[column] - expected).abs() < 1e-6, "column {column}: {} not {expected}", grad[column]);
        }
    }
}

#[test]
fn merged_parameters_are_written_back_as_their_own() {
    let file = read(&fixture("trees/resnet.torchscript_shared.onnx")).unwrap();
    let analysis = Analysis::of(&file.model);
    let graph = &analysis.model.graph;
    let own = |name: &String| file.model.graph.find(name).is_some_and(|id| file.model.graph.producer(id).is_none());
    let values: std::collections::BTreeMap<String, Tensor> = analysis
        .parameters
        .iter()
        .map(|parameter| (parameter.name.clone(), graph.value(parameter.value).initializer.clone().unwrap()))
        .collect();
    assert!(values.keys().any(|name| !own(name)), "the exporter merged some");
    let folder = tempfile::tempdir().unwrap();
    let trained = folder.path().join("trained.onnx");
    let edits = freeze_plan::training::trained_edits(&file.model.graph, &values);
    std::fs::write(&trained, file.rewrite(&edits).unwrap()).unwrap();
    let again = read(&trained).unwrap().model;
    for (name, tensor) in &values {
        let id = again.graph.find(name).unwrap();
        assert!(again.graph.value(id).initializer.as_ref() == Some(tensor), "{name} is an initializer of the file");
    }
    let input = file.model.graph.inputs()[0];
    let shape: Vec<usize> =
        file.model.graph.fact(input).shape.iter().flatten().map(|dim| dim.known().unwrap_or(2)).collect();
    let count = shape.iter().product::<usize>();
    let x = Tensor::from_vec::<f32>(&shape, (0..count).map(|index| (index % 7) as f32 / 7.0).collect());
    let feeds = [(file.model.graph.value_name(input), &x)];
    let mut engine = crate::engines::onnxruntime();
    let (before, after) =
        (evaluate(&mut engine, &file.model, &feeds).unwrap(), evaluate(&mut engine, &again, &feeds).unwrap());
    assert!(deviation(&after[0], &before[0]) < 1e-6);
}
