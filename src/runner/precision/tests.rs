//! Graphs in mixed precision: what they look like, that their dtypes fit, and what they compute where float16 has kernels.

use super::table::{self, Class};
use super::{Keep, LowDType, Settings, Summary, lower};
use crate::autodiff::Form;
use crate::graph::{
    Attributes, Builder, DType, Dim, Fact, Graph, INTERNAL_DOMAIN, Model, Node, OpId, Tensor, ValueId, check, dump,
};
use crate::losses::{LossKind, LossSpec};
use crate::optim::{OptimizerKind, OptimizerSpec};
use crate::planner::Analysis;
use crate::runner::native::{Target, optimize};
use crate::runner::placement::on_cpu;
use crate::runner::{evaluate, testing};
use crate::training::{PhaseOptions, Prepared, Rates, TrainStep, TrainingError, build, names, prepare};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

fn prepared(model: &Model, form: Form) -> Prepared {
    Prepared { form, ..prepare(&Analysis::of(model)).unwrap() }
}

fn step(prepared: &Prepared, loss: LossKind, frozen: &[&str]) -> Result<TrainStep, TrainingError> {
    let options = PhaseOptions {
        frozen: frozen.iter().copied().collect(),
        frozen_inputs: false,
        rates: Rates::new(),
        loss: &LossSpec::new(loss),
        optimizer: &OptimizerSpec::new(OptimizerKind::Sgd),
        output: None,
        seed: 0,
    };
    build(prepared, &options)
}

fn model(b: Builder) -> Model {
    Model { graph: b.finish(), opsets: [(String::new(), 18)].into(), ir_version: 8, ..Model::default() }
}

fn batch(shape: &[usize]) -> Vec<Dim> {
    [Dim::Symbol("batch".into())].into_iter().chain(shape.iter().map(|size| Dim::Known(*size))).collect()
}

fn weight(b: &mut Builder, name: &str, shape: &[usize]) -> ValueId {
    let count: usize = shape.iter().product();
    let values = (0..count).map(|at| ((at * 37 + shape.len()) % 19) as f32 / 10.0 - 0.9).collect();
    b.initializer(name, Tensor::from_vec(shape, values))
}

/// Convolution, batch normalization, Relu, pooling and a classifier.
fn images() -> Model {
    let mut b = Builder::new("images");
    let x = b.input("x", Fact::new(DType::F32, batch(&[3, 6, 6])));
    let w = weight(&mut b, "conv.weight", &[4, 3, 3, 3]);
    let y = b.op("Conv", &[x, w], Attributes::none().with("pads", vec![1_i64; 4]).with("kernel_shape", vec![3_i64, 3]));
    let mut inputs = vec![Some(y)];
    for part in ["weight", "bias", "running_mean"] {
        inputs.push(Some(weight(&mut b, &format!("bn.{part}"), &[4])));
    }
    inputs.push(Some(b.initializer("bn.running_var", Tensor::float_full(DType::F32, &[4], 1.0))));
    let like = b.fact(y).clone();
    let y = b.ops(&OpId::standard("BatchNormalization"), &inputs, Attributes::none(), 1)[0];
    b.refine(y, &like);
    let y = b.unary("Relu", y);
    let y = b.op("GlobalAveragePool", &[y], Attributes::none());
    let y = b.op("Flatten", &[y], Attributes::none());
    let w = weight(&mut b, "fc.weight", &[5, 4]);
    let bias = weight(&mut b, "fc.bias", &[5]);
    let y = b.op("Gemm", &[y, w, bias], Attributes::none().with("transB", 1));
    b.output(y, "logits");
    model(b)
}

/// Embedded words, one block of attention with a residual around it, and a classifier.
fn text() -> Model {
    let mut b = Builder::new("text");
    let ids = b.input("x", Fact::new(DType::I64, batch(&[5])));
    let table = weight(&mut b, "words.weight", &[7, 4]);
    let x = b.op("Gather", &[table, ids], Attributes::none().with("axis", 0));
    let (scale, bias) = (weight(&mut b, "norm.weight", &[4]), weight(&mut b, "norm.bias", &[4]));
    let y = b.op("LayerNormalization", &[x, scale, bias], Attributes::none().with("axis", -1));
    let linear = |b: &mut Builder, name: &str, x: ValueId| {
        let w = weight(b, &format!("{name}.weight"), &[4, 4]);
        let bias = weight(b, &format!("{name}.bias"), &[4]);
        let y = b.op("MatMul", &[x, w], Attributes::none());
        b.add(y, bias)
    };
    let [q, k, v] = ["q", "k", "v"].map(|name| linear(&mut b, name, y));
    let k = b.transpose(k, &[0, 2, 1]);
    let scores = b.op("MatMul", &[q, k], Attributes::none());
    let scores = b.scale(scores, 0.5);
    let weights = b.op("Softmax", &[scores], Attributes::none().with("axis", -1));
    let y = b.op("MatMul", &[weights, v], Attributes::none());
    let y = b.add(x, y);
    let y = b.reduce("ReduceMean", y, &[1], false);
    let w = weight(&mut b, "head.weight", &[4, 3]);
    let y = b.op("MatMul", &[y, w], Attributes::none());
    b.output(y, "logits");
    model(b)
}

fn lowered(train: &Model, settings: &Settings) -> (Graph, Summary) {
    let optimized = optimize(train, Target::Device);
    let (lowered, summary) = lower(&optimized, settings);
    (lowered.graph.clone(), summary)
}

#[test]
fn images_compute_in_bfloat16() {
    let step = step(&prepared(&images(), Form::Native), LossKind::CrossEntropy, &[]).unwrap();
    let (graph, _) = lowered(&step.train, &Settings::of(LowDType::Bf16));
    assert_eq!(dump(&graph), include_str!("images.txt"));
}

#[test]
fn text_computes_in_float16() {
    let step = step(&prepared(&text(), Form::Native), LossKind::CrossEntropy, &["words.weight"]).unwrap();
    let (graph, _) = lowered(&step.train, &Settings::of(LowDType::Fp16));
    assert_eq!(dump(&graph), include_str!("text.txt"));
}

/// Returns what is wrong with the dtypes of a graph that was lowered.
fn problems(graph: &Graph, low: DType) -> Vec<String> {
    let dtype = |id: ValueId| graph.fact(id).dtype;
    let mut problems = Vec::new();
    for node in graph.nodes() {
        let row = table::find(&node.op).or(Some(&table::BROADCAST_SUM).filter(|_| node.op.is("ReduceSum")));
        let row = row.filter(|row| row.class != Class::Float);
        let takes = |index: usize| row.is_some_and(|row| row.inputs.has(index));
        let either = |index: usize| table::find(&node.op).is_some_and(|row| row.either.contains(&index));
        let read: Vec<(usize, DType)> = node
            .inputs
            .iter()
            .enumerate()
            .filter_map(|(index, id)| Some((index, dtype((*id)?)?)))
            .filter(|(_, dtype)| *dtype == low || *dtype == DType::F32)
            .collect();
        let ports: HashSet<DType> = read.iter().filter(|(index, _)| takes(*index)).map(|(_, dtype)| *dtype).collect();
        let wrong = read.iter().any(|(index, dtype)| *dtype == low && !takes(*index) && !either(*index));
        let computes = ports.iter().next().copied();
        let written = node.outputs.iter().enumerate().filter_map(|(index, id)| Some((index, dtype((*id)?)?)));
        let written: Vec<(usize, DType)> = written.filter(|(_, dtype)| *dtype == low || *dtype == DType::F32).collect();
        let misfit = |(index, dtype): &(usize, DType)| {
            let low_port = row.is_some_and(|row| row.outputs.has(*index));
            let wanted = if low_port { computes.unwrap_or(DType::F32) } else { DType::F32 };
            !node.op.is("Cast") && *dtype != wanted
        };
        let missing = computes == Some(low) && row.is_some_and(|row| !row.bf16) && low == DType::BF16;
        if ports.len() > 1 || wrong || missing || written.iter().any(misfit) {
            problems.push(format!("{} ({}) reads {read:?}, writes {written:?}", node.name, node.op));
        }
    }
    problems
}

/// Returns the files of graphs in a folder of the fixtures, of several exports of a model those with their defaults.
fn files(folder: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(folder);
    let entries = std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_string();
    let wanted = |path: &PathBuf| name(path).ends_with(".onnx") && !name(path).contains("_default.");
    let mut files: Vec<PathBuf> = entries.filter(wanted).collect();
    files.sort();
    files
}

#[test]
fn the_graphs_of_every_fixture_fit_after_it() {
    let (mut failures, mut built, mut lows) = (Vec::new(), 0, 0);
    let own: Vec<&str> = crate::runner::onnxruntime::operator_names().collect();
    for path in ["digits", "digits_vit", "parity", "graphs", "models", "trees/zoo"].into_iter().flat_map(files) {
        let Ok(file) = crate::onnx::read(&path) else { continue };
        let Ok(prepared) = prepare(&Analysis::of(&file.model)) else { continue };
        let prepared = Prepared { form: Form::Native, ..prepared };
        let Ok(step) = step(&prepared, LossKind::Mse, &[]) else { continue };
        built += 1;
        for model in [Some(&step.train), Some(&step.eval), step.optimizer.as_ref()].into_iter().flatten() {
            let optimized = optimize(model, Target::Device);
            // What the provider refuses in float32 as well is rewritten later.
            let refused: HashSet<String> = on_cpu(&optimized, &own).into_iter().map(|node| node.node).collect();
            for low in [LowDType::Bf16, LowDType::Fp16] {
                let (real, summary) = lower(&optimized, &Settings::of(low));
                let (simulated, again) = lower(&optimized, &Settings::of(low).simulated());
                let name = |what: &str| format!("{}: {} in {low:?}: {what}", path.display(), model.graph.name());
                lows += summary.low.values().sum::<usize>();
                if (&summary.low, &summary.float32) != (&again.low, &again.float32) {
                    failures.push(name("simulated, something else is low"));
                }
                for graph in [&real.graph, &simulated.graph] {
                    failures.extend(check(graph).err().map(|error| name(&error.to_string())));
                    let ports = |graph: &Graph| {
                        let port = |id: &ValueId| (graph.value_name(*id).to_string(), graph.fact(*id).clone());
                        let inputs: Vec<_> = graph.inputs().iter().map(port).collect();
                        (inputs, graph.outputs().iter().map(port).collect::<Vec<_>>())
                    };
                    if ports(graph) != ports(&optimized.graph) {
                        failures.push(name("inputs or outputs change"));
                    }
                    let shape = |(_, value): (ValueId, &crate::graph::Value)| {
                        let old = optimized.graph.find(&value.name)?;
                        (optimized.graph.fact(old).shape != value.fact.shape).then(|| value.name.clone())
                    };
                    failures.extend(graph.values().filter_map(shape).map(|value| name(&format!("shape of {value}"))));
                }
                failures.extend(problems(&real.graph, low.dtype()).iter().map(|problem| name(problem)));
                let misplaced = on_cpu(&real, &own).into_iter().filter(|node| node.dtype == Some(low.dtype()));
                let misplaced = misplaced.filter(|node| !refused.contains(&node.node));
                failures.extend(misplaced.map(|node| name(&node.to_string())));
                let widened = simulated.graph.nodes().iter().filter(|node| !node.op.is("Cast"));
                let reads = |node: &Node| {
                    node.inputs.iter().flatten().any(|id| simulated.graph.fact(*id).dtype == Some(low.dtype()))
                };
                if widened.into_iter().any(reads) && !file_has(&optimized.graph, low.dtype()) {
                    failures.push(name("simulated, a node reads the low dtype"));
                }
                if model.graph.name() == "optimizer" && !summary.low.is_empty() {
                    failures.push(name("an update computes in the low dtype"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} of {built}:\n{}", failures.len(), failures.join("\n"));
    assert!(built > 90 && lows > 10_000, "{built} {lows}");
}

fn file_has(graph: &Graph, dtype: DType) -> bool {
    graph.values().any(|(_, value)| value.fact.dtype == Some(dtype))
}

/// Returns the outputs of a train graph by name.
fn outputs(source: &Model, train: &Model, x: &Tensor, classes: i64) -> BTreeMap<String, Vec<f64>> {
    let rows = x.shape()[0] as i64;
    let target = Tensor::from_vec(&[x.shape()[0]], (0..rows).map(|row| row * 2 % classes).collect::<Vec<_>>());
    let mut feeds: Vec<(&str, Tensor)> =
        vec![("x", x.clone()), (names::TARGET, target), (names::STEP, Tensor::scalar(12_i64))];
    feeds.push((names::SCALE, Tensor::scalar(1024f32)));
    feeds.extend(source.graph.initializers().map(|(_, value, tensor)| (value.name.as_str(), tensor.clone())));
    let graph = &train.graph;
    feeds.retain(|(name, _)| graph.find(name).is_some_and(|id| graph.inputs().contains(&id)));
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let found = evaluate(&mut testing::onnxruntime(), train, &feeds);
    let found = found.unwrap_or_else(|error| panic!("{error}\n{}", dump(graph)));
    let names = graph.outputs().iter().map(|id| graph.value_name(*id).to_string());
    names.zip(found.iter().map(|tensor| tensor.to_f64s().unwrap())).collect()
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>())
}

/// Returns the distance of two vectors, relative to the first.
fn apart(a: &[f64], b: &[f64]) -> f64 {
    distance(a, b) / norm(a).max(1e-12)
}

fn cases() -> [(Model, Tensor, i64); 2] {
    let pixels = (0..2 * 108).map(|at| ((at * 31) % 17) as f32 / 8.0 - 1.0).collect();
    let words = (0..10).map(|at| at * 3 % 7).collect::<Vec<i64>>();
    [(images(), Tensor::from_vec(&[2, 3, 6, 6], pixels), 5), (text(), Tensor::from_vec(&[2, 5], words), 3)]
}

/// ONNX Runtime on the CPU has few kernels of float16, but puts casts around those that it has not, and leaves out what
/// these undo: the graphs can run, every dtype in them must fit, and less is rounded than where the kernels exist.
#[test]
fn float16_computes_what_is_simulated() {
    for (model, x, classes) in cases() {
        let prepared = Prepared { scaled: true, ..prepared(&model, Form::Portable) };
        let step = step(&prepared, LossKind::CrossEntropy, &[]).unwrap();
        let settings = Settings::of(LowDType::Fp16);
        let full = outputs(&model, &step.train, &x, classes);
        let (real, _) = lower(&step.train, &settings);
        let (simulated, _) = lower(&step.train, &settings.clone().simulated());
        let [real, simulated] = [real, simulated].map(|lowered| outputs(&model, &lowered, &x, classes));
        assert!(full.keys().eq(real.keys()) && full.keys().eq(simulated.keys()));
        // All of a kind together: single gradients are sums that cancel, that of the bias of keys is 0 but for rounding.
        for kind in ["grad", "loss", "logits", "next"] {
            let all = |found: &BTreeMap<String, Vec<f64>>| {
                found.iter().filter(|(name, _)| name.ends_with(kind)).flat_map(|(_, values)| values.clone()).collect()
            };
            let [full, real, simulated]: [Vec<f64>; 3] = [all(&full), all(&real), all(&simulated)];
            assert!(apart(&full, &real) < 4e-3, "{kind}: {full:?} {real:?}");
            assert!(apart(&full, &simulated) < 4e-3, "{kind}: {full:?} {simulated:?}");
        }
        let moved = full.iter().filter(|(name, full)| simulated[*name] != **full).count();
        assert!(moved > 3, "something is rounded");
    }
}

#[test]
fn what_is_simulated_is_rounded() {
    let mut b = Builder::new("product");
    let x = b.input("x", Fact::fixed(DType::F32, &[1, 1]));
    let w = b.input("w", Fact::fixed(DType::F32, &[1, 1]));
    let y = b.op("MatMul", &[x, w], Attributes::none());
    b.output(y, "y");
    let model = model(b);
    // Of an input, and of what is exact in the low dtype a product that is not.
    for (low, bits) in [(LowDType::Bf16, 7), (LowDType::Fp16, 10)] {
        let (last, half) = (1.0 + 2f32.powi(-bits), 1.0 + 2f32.powi(-bits - 2));
        let (lowered, _) = lower(&model, &Settings::of(low).simulated());
        for (x, w, expected) in [(half, 3.0, 3.0), (last, last, 1.0 + 2f32.powi(1 - bits))] {
            let [x, w] = [x, w].map(|value| Tensor::from_vec(&[1, 1], vec![value]));
            let found = evaluate(&mut testing::onnxruntime(), &lowered, &[("x", &x), ("w", &w)]).unwrap();
            assert_eq!(found[0].to_vec::<f32>().unwrap(), [expected], "{low:?}");
        }
    }
}

#[test]
fn a_scaled_loss_gives_the_same_gradients() {
    for (model, x, classes) in cases() {
        for form in [Form::Portable, Form::Native] {
            let plain = prepared(&model, form);
            let scaled = Prepared { scaled: true, ..plain.clone() };
            let [plain, scaled] = [plain, scaled].map(|p| step(&p, LossKind::CrossEntropy, &[]).unwrap());
            assert!(scaled.is_scaled() && !plain.is_scaled());
            assert_eq!(plain.passed, scaled.passed);
            let [plain, scaled] = [plain, scaled].map(|step| outputs(&model, &step.train, &x, classes));
            for (name, plain) in &plain {
                assert!(apart(plain, &scaled[name]) < 1e-6, "{name}: {plain:?} {:?}", scaled[name]);
            }
        }
    }
}

#[test]
fn gradients_that_vanish_in_float16_stay_where_the_loss_is_scaled() {
    let mut b = Builder::new("small");
    let x = b.input("x", Fact::new(DType::F32, batch(&[2])));
    let w = b.initializer("w", Tensor::from_vec(&[2, 1], vec![1.0_f32, 2.0]));
    let y = b.op("MatMul", &[x, w], Attributes::none());
    let small = b.constant("small", Tensor::scalar(1e-4_f32));
    let y = b.mul(y, small);
    let y = b.op("ReduceSum", &[y], Attributes::none().with("keepdims", 0));
    let y = b.mul(y, small);
    b.output(y, "y");
    let model = model(b);
    let x = Tensor::from_vec(&[1, 2], vec![1.0_f32, 1.0]);
    let gradient = |scaled: bool| {
        let prepared = Prepared { scaled, ..prepared(&model, Form::Portable) };
        let step = step(&prepared, LossKind::Output, &[]).unwrap();
        let (lowered, _) = lower(&step.train, &Settings::of(LowDType::Fp16).simulated());
        outputs(&model, &lowered, &x, 1)["w.grad"].clone()
    };
    assert_eq!(gradient(false), [0.0, 0.0]);
    assert!(apart(&[1e-8, 1e-8], &gradient(true)) < 2e-3);
}

fn kept(patterns: &[&str]) -> Result<(BTreeMap<String, usize>, usize), String> {
    let prepared = prepared(&text(), Form::Native);
    let texts: Vec<String> = patterns.iter().map(|text| text.to_string()).collect();
    let keep = Keep::of(&texts, &prepared).map_err(|error| error.to_string())?;
    let step = step(&prepared, LossKind::CrossEntropy, &[]).unwrap();
    let (graph, summary) = lowered(&step.train, &Settings { keep, ..Settings::of(LowDType::Bf16) });
    assert_eq!(problems(&graph, DType::BF16), Vec::<String>::new());
    Ok((summary.low, summary.kept))
}

#[test]
fn what_a_job_names_stays_float32() {
    let (all, none) = kept(&[]).unwrap();
    assert_eq!(none, 0);
    let (low, count) = kept(&["Softmax", "SoftmaxGrad"]).unwrap();
    assert_eq!(count, 2);
    assert!(!low.keys().any(|op| op.contains("Softmax")) && low["MatMul"] == all["MatMul"], "{low:?}");
    let (low, count) = kept(&["q"]).unwrap();
    assert!(count >= 4, "{count}");
    for (op, fewer) in [("MatMul", 2), ("Gemm", 1), ("Add", 1), ("ReduceSum", 1)] {
        assert_eq!(low[op], all[op] - fewer, "{op}: {low:?} of {all:?}");
    }
    let error = kept(&["Softmx"]).unwrap_err();
    assert!(
        error.starts_with("keep_float32: pattern \"Softmx\" matches no operator and no module (near: \"Softmax\""),
        "{error}"
    );
    assert!(kept(&["a[b"]).unwrap_err().contains("is no glob"));
}

#[test]
fn casts_of_the_model_cancel() {
    let mut b = Builder::new("casts");
    let x = b.input("x", Fact::fixed(DType::F32, &[2, 2]));
    let half = b.input("half", Fact::fixed(DType::F16, &[2, 2]));
    let w = b.cast(half, DType::F32);
    let y = b.op("MatMul", &[x, w], Attributes::none());
    let z = b.cast(y, DType::F16);
    let z = b.op("Neg", &[z], Attributes::none());
    let sign = b.cast(y, DType::Bool);
    b.output(z, "z");
    b.output(sign, "sign");
    let model = model(b);
    let (lowered, summary) = lower(&model, &Settings::of(LowDType::Fp16));
    let text = dump(&lowered.graph);
    assert_eq!(summary.casts, 1, "{text}");
    let casts = lowered.graph.nodes().iter().filter(|node| node.op.is("Cast")).count();
    assert_eq!(casts, 2, "that of x, and that to bool: {text}");
    assert!(lowered.graph.nodes().iter().all(|node| node.op.domain != INTERNAL_DOMAIN));
}
