//! Predictions on a machine whose clock is known, and what a calibration leaves behind.

use super::nodes::{Key, NodeTimes, keys};
use super::{Anchor, Calibration, Curve, Load, Ruler};
use crate::autodiff::Form;
use crate::data::{BatchOptions, Batches, Feed, LastBatch, Sampler};
use crate::graph::{Attributes, Builder, DType, Dim, Fact, INTERNAL_DOMAIN, Model, Tensor, ValueId};
use crate::losses::{LossKind, LossSpec};
use crate::optim::{OptimizerKind, OptimizerSpec};
use crate::plan::testing::chain;
use crate::plan::{FreezePlan, PlanOptions, StepSeconds, build, segments};
use crate::planner::Analysis;
use crate::runner::engine::NodeTime;
use crate::runner::native::{Target, optimize, read};
use crate::runner::pace::Scale;
use crate::runner::run::Run;
use crate::runner::sessions::train_graph;
use crate::runner::timing::nothing;
use crate::runner::train::{Freezing, Setup};
use crate::runner::{Clock, Schedule, measure, testing};
use crate::training::{Objective, Own, Prepared, Rates, TrainStep, names, prepare};
use std::collections::HashSet;
use std::sync::atomic::AtomicBool;

const ROWS: usize = 4;
/// Seconds that go with every node.
const BESIDE: f64 = 2e-6;
/// Parameters in the order of the network.
const LAYERS: [&[&str]; 4] =
    [&["conv1.weight"], &["bn1.scale", "bn1.bias"], &["conv2.weight"], &["fc.weight", "fc.bias"]];

fn model() -> Model {
    let mut b = Builder::new("small");
    let ramp = |shape: &[usize], step: usize| {
        let count = shape.iter().product::<usize>();
        Tensor::from_vec(shape, (0..count).map(|at| ((at * step) % 17) as f32 / 17.0 - 0.4).collect::<Vec<f32>>())
    };
    let dims = vec![Dim::Symbol("batch".into()), Dim::Known(3), Dim::Known(6), Dim::Known(6)];
    let x = b.input("x", Fact::new(DType::F32, dims));
    let w = b.initializer("conv1.weight", ramp(&[4, 3, 3, 3], 7));
    let pads = || Attributes::none().with("kernel_shape", vec![3_i64, 3]).with("pads", vec![1_i64; 4]);
    let y = b.op("Conv", &[x, w], pads());
    let scale = b.initializer("bn1.scale", Tensor::float_full(DType::F32, &[4], 1.0));
    let bias = b.initializer("bn1.bias", Tensor::zeros(DType::F32, &[4]));
    let mean = b.initializer("bn1.mean", Tensor::zeros(DType::F32, &[4]));
    let var = b.initializer("bn1.var", Tensor::float_full(DType::F32, &[4], 1.0));
    let y = b.op("BatchNormalization", &[y, scale, bias, mean, var], Attributes::none());
    let y = b.op("Relu", &[y], Attributes::none());
    let w = b.initializer("conv2.weight", ramp(&[5, 4, 3, 3], 5));
    let y = b.op("Conv", &[y, w], pads());
    let y = b.op("Relu", &[y], Attributes::none());
    let y = b.op("Flatten", &[y], Attributes::none());
    let w = b.initializer("fc.weight", ramp(&[180, 3], 11));
    let bias = b.initializer("fc.bias", ramp(&[3], 3));
    let y = b.op("Gemm", &[y, w, bias], Attributes::none());
    b.mark_output(y);
    Model { graph: b.finish(), opsets: [(String::new(), 18)].into(), ir_version: 8, ..Model::default() }
}

struct Parts {
    prepared: Prepared,
    loss: LossSpec,
    optimizer: OptimizerSpec,
}

impl Parts {
    fn new(form: Form) -> Parts {
        let mut prepared = prepare(&Analysis::of(&model())).unwrap();
        prepared.form = form;
        let optimizer = OptimizerSpec { momentum: Some(0.9), ..OptimizerSpec::new(OptimizerKind::Sgd) };
        Parts { prepared, loss: LossSpec::new(LossKind::CrossEntropy), optimizer }
    }

    fn objective(&self) -> Objective<'_> {
        Objective::Own(Own { loss: &self.loss, output: None, optimizer: &self.optimizer })
    }

    /// Builds a step with the first layers frozen.
    fn step(&self, layers: usize) -> TrainStep {
        let frozen: HashSet<&str> = frozen(layers).collect();
        self.objective().build(&self.prepared, frozen, false, Rates::new(), 0).unwrap()
    }
}

fn frozen(layers: usize) -> impl Iterator<Item = &'static str> {
    LAYERS[..layers].iter().flat_map(|layer| layer.iter().copied())
}

/// What the nodes of a model take on the machine, in two runs that were disturbed and two that were not.
fn took(model: &Model, rename: &dyn Fn(&str, &str) -> String) -> (Vec<NodeTime>, f64) {
    let graph = &optimize(model, Target::Processor).graph;
    let mut sum = 0.0;
    let mut times = Vec::new();
    for (node, index) in graph.nodes().iter().zip(1_u32..) {
        let prepared = |id: &&ValueId| graph.value(**id).initializer.is_some() && node.op.domain != INTERNAL_DOMAIN;
        let inputs = read(node);
        let constants = inputs.iter().flatten().filter(prepared).count();
        let sizes: usize = inputs.iter().flatten().map(|id| graph.fact(*id).to_string().len()).sum();
        let seconds = (1.0 + sizes as f64 + 7.0 * constants as f64 + node.op.name.len() as f64) * 1e-6;
        sum += seconds;
        let output = node.outputs.iter().flatten().next().map(|id| graph.value_name(*id)).unwrap_or_default();
        let disturbed = seconds * f64::from(2 + index % 5);
        times.push(NodeTime { name: rename(&node.name, output), seconds: vec![disturbed, seconds, 9.0, seconds] });
    }
    (times, sum + BESIDE * graph.nodes().len() as f64)
}

/// Returns what a step takes on the machine, adding what its nodes take.
fn run(step: &TrainStep, times: &mut NodeTimes, rename: &dyn Fn(&str, &str) -> String) -> [f64; 2] {
    let train = train_graph(false, step).0;
    let mut seconds = [0.0; 2];
    for (model, seconds) in [Some(&*train), step.optimizer.as_ref()].into_iter().zip(&mut seconds) {
        let Some(model) = model else { continue };
        let (found, sum) = took(model, rename);
        times.add(model, ROWS, &found);
        *seconds = sum;
    }
    seconds
}

fn load(times: &NodeTimes, step: &TrainStep) -> Load {
    let told = times.tell(&keys(&train_graph(false, step).0, ROWS));
    let update = step.optimizer.as_ref().map(|model| times.tell(&keys(model, ROWS))).unwrap_or_default();
    Load {
        train: told.seconds + BESIDE * told.nodes,
        update: update.seconds + BESIDE * update.nodes,
        guessed: told.guessed + update.guessed,
    }
}

#[test]
fn phases_between_the_anchors_take_what_their_nodes_take() {
    for form in [Form::Portable, Form::Native] {
        let parts = Parts::new(form);
        type Rename<'a> = &'a dyn Fn(&str, &str) -> String;
        let renames: [Rename<'_>; 3] =
            [&|name, _| name.to_string(), &|name, _| format!("{name}/SomeFusion/"), &|_, output| {
                format!("{output}_nchwc")
            }];
        for rename in renames {
            let mut times = NodeTimes::default();
            let steps = [parts.step(0), parts.step(LAYERS.len())];
            let seconds = steps.each_ref().map(|step| run(step, &mut times, rename));
            let anchors = steps.iter().zip(seconds).map(|(step, [train, update])| Anchor {
                load: load(&times, step),
                train,
                update,
            });
            let anchors: Vec<Anchor> = anchors.collect();
            let told = times.clone();
            let ruler = Ruler::Nodes { times: told, beside: BESIDE };
            let calibration = Calibration::new(ruler, &anchors, (3e-6, 5e-6), 2.0);
            for layers in 0..=LAYERS.len() {
                let step = parts.step(layers);
                let [train, update] = run(&step, &mut NodeTimes::default(), rename);
                let load = load(&times, &step);
                let found = calibration.predict(&load);
                let forward = 2.0 * seconds[1][0];
                let expected = StepSeconds { data: 6e-6, forward, backward: 2.0 * train - forward, update, rest: 5e-6 };
                // The sum of all gradients, and a normalization that gives none to its input, are like no node that ran.
                let slack = 2.0 * load.guessed + 1e-12;
                let close = |a: f64, b: f64| (a - b).abs() <= slack;
                assert!(
                    close(found.total(), expected.total())
                        && close(found.update, update)
                        && close(found.forward, forward),
                    "{form:?}, {layers} frozen: {found:?}, expected {expected:?}"
                );
                assert!(load.guessed <= 0.1 * train, "{form:?}, {layers} frozen: {load:?}");
                assert!(load.guessed == 0.0 || !layers.is_multiple_of(LAYERS.len()));
            }
        }
    }
}

#[test]
fn nodes_unlike_all_that_ran_go_by_operator_and_bytes() {
    let graph = |rows: usize, op: &str| {
        let mut b = Builder::new("one");
        let x = b.input("x", Fact::fixed(DType::F32, &[rows, 8]));
        let y = b.op(op, &[x], Attributes::none());
        b.mark_output(y);
        Model { graph: b.finish(), opsets: [(String::new(), 18)].into(), ir_version: 8, ..Model::default() }
    };
    let mut times = NodeTimes::default();
    for (op, seconds) in [("Relu", 4e-6), ("Exp", 12e-6)] {
        let model = graph(2, op);
        let name = model.graph.nodes()[0].name.clone();
        times.add(&model, 2, &[NodeTime { name, seconds: vec![seconds] }]);
    }
    let told = |rows: usize, op: &str| times.tell(&keys(&graph(rows, op), rows));
    let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found}, expected {expected}");
    close(told(2, "Relu").seconds, 4e-6);
    close(told(2, "Relu").guessed, 0.0);
    close(told(6, "Relu").seconds, 12e-6);
    close(told(6, "Relu").guessed, 12e-6);
    close(told(6, "Exp").seconds, 36e-6);
    // Of an operator that never ran, by what all of them took.
    close(told(2, "Tanh").seconds, 8e-6);
    let none: Vec<Key> = Vec::new();
    assert_eq!(times.tell(&none).seconds, 0.0);
}

/// Returns a plan that freezes one more layer in each epoch.
fn plan(epochs: usize) -> FreezePlan {
    let mut plan = build(&chain(3).inputs(epochs), &PlanOptions::of("none")).unwrap();
    for (layers, epoch) in plan.epochs.iter_mut().enumerate() {
        epoch.frozen = frozen(layers).map(String::from).collect();
        epoch.predicted.forward_flops = 100;
        epoch.predicted.backward_flops = 200 - 50 * layers as u64;
        epoch.predicted.step_cost = (300.0 - 50.0 * layers as f64) / 300.0;
    }
    plan
}

#[test]
fn without_times_of_nodes_flops_and_elements_decide() {
    let parts = Parts::new(Form::Portable);
    let plan = plan(3);
    let scale = Scale::of(&plan, &parts.prepared, &nothing());
    let elements = scale.load(None).1;
    let anchor = |(train, update): (f64, f64), seconds: f64, updates: f64| Anchor {
        load: Load { train, update, guessed: 0.0 },
        train: seconds,
        update: updates,
    };
    let anchors = [anchor(scale.load(None), 0.009, 0.002), anchor((0.0, 0.0), 0.003, 0.0)];
    let calibration = Calibration::new(Ruler::Flops(scale), &anchors, (0.0, 0.0), 1.0);
    let step = calibration.predict(&calibration.load(&parts.step(2), ROWS, &plan.epochs[2]));
    let trained = elements - (4.0 * 27.0 + 8.0);
    let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found}, expected {expected}");
    close(step.forward, 0.003);
    close(step.backward, 0.003);
    close(step.update, 0.002 * trained / elements);
    close(calibration.most().total(), 0.011);
    assert!(!calibration.is_by_node());
    assert_eq!(Calibration { update: Curve::default(), ..calibration }.predict(&Load::default()).update, 0.0);
}

fn batches() -> Batches {
    let images = (0..3 * ROWS * 108).map(|at| ((at * 31) % 101) as f32 / 50.0 - 1.0).collect();
    let labels = (0..3 * ROWS as i64).map(|at| at % 3).collect();
    let feeds = vec![
        Feed::of("x", Tensor::from_vec::<f32>(&[3 * ROWS, 3, 6, 6], images), DType::F32),
        Feed::of(names::TARGET, Tensor::from_vec::<i64>(&[3 * ROWS], labels), DType::I64),
    ];
    let options = BatchOptions { size: ROWS, seed: 0, sampler: Sampler::Sequential, last_batch: LastBatch::Keep };
    Batches::new(feeds, options).unwrap()
}

#[test]
fn a_calibrated_run_is_the_run_without() {
    for mut engine in testing::engines() {
        let engine = engine.as_mut();
        let parts = Parts::new(engine.info().form);
        let (plan, train, schedule) = (plan(3), batches(), Schedule::default());
        let mut ends = Vec::new();
        for calibrates in [false, true] {
            let freezing = Freezing::of(&plan).checked_on(usize::from(calibrates));
            let setup = Setup::of(&parts.prepared, freezing, parts.objective(), &schedule, &train);
            let mut run = Run::new(engine, &setup, &mut |_| {}).unwrap();
            run.calibrates = calibrates;
            run.check_ceiling(engine, &mut |_| {}).unwrap();
            assert_eq!(run.calibration.is_some(), calibrates);
            for part in segments(&plan) {
                assert!(!run.segment(engine, &part, &mut |_| {}, &AtomicBool::new(false)).unwrap());
            }
            run.finish(engine, &mut |_| {}).unwrap();
            ends.push(run.state.snapshot(engine).unwrap());
        }
        assert!(ends[0] == ends[1], "{}", engine.info().name);
    }
}

#[test]
fn a_measured_plan_has_the_seconds_of_every_step() {
    for mut engine in testing::engines() {
        let engine = engine.as_mut();
        let parts = Parts::new(engine.info().form);
        let (mut plan, train, schedule) = (plan(4), batches(), Schedule::default());
        let told = plan.clone();
        let setup = Setup::of(&parts.prepared, Freezing::of(&told), parts.objective(), &schedule, &train);
        measure(engine, &setup, &mut plan, Clock::Wall).unwrap();
        let steps: Vec<StepSeconds> = plan.epochs.iter().map(|epoch| epoch.predicted.seconds.unwrap()).collect();
        assert!(steps.iter().all(|step| step.total() > 0.0 && step.forward > 0.0), "{steps:?}");
        let measured = plan.summary.measured.clone().unwrap();
        assert_eq!(measured.by_node, engine.info().name == "onnxruntime");
        assert!(measured.engine.starts_with(&engine.info().name) && measured.nothing.total() > 0.0);
        let read: FreezePlan = serde_json::from_str(&plan.to_json()).unwrap();
        assert_eq!(read.summary.measured, plan.summary.measured);
        assert_eq!(read.epochs[3].predicted.seconds, plan.epochs[3].predicted.seconds);
    }
}

#[test]
fn every_name_that_onnx_runtime_tells_is_that_of_a_node() {
    let parts = Parts::new(Form::Native);
    let mut engine = testing::onnxruntime();
    let engine: &mut dyn crate::runner::Engine = &mut engine;
    let (plan, train, schedule) = (plan(3), batches(), Schedule::default());
    let setup = Setup::of(&parts.prepared, Freezing::of(&plan), parts.objective(), &schedule, &train);
    let mut run = Run::new(engine, &setup, &mut |_| {}).unwrap();
    for layers in [0, 1, 4] {
        let step = parts.step(layers);
        run.state.set_slots(engine, &step.slots, false).unwrap();
        assert!(engine.note_nodes(true));
        let mut phase = crate::runner::Phase::new(engine, &step, &run.state).unwrap();
        engine.note_nodes(false);
        for number in 0..2 {
            run.sample(engine, &mut phase, number, Clock::Wall).unwrap();
        }
        let [noted, update] = phase.node_times(engine).unwrap();
        assert_eq!(update.is_empty(), layers == LAYERS.len());
        let train = train_graph(false, &step).0;
        let model = optimize(&train, Target::Processor);
        // What ONNX Runtime adds between layouts belongs to no node.
        let known =
            |time: &&NodeTime| !super::nodes::owned(&model.graph, &time.name) && !time.name.starts_with("Reorder");
        let strangers: Vec<&str> = noted.iter().filter(known).map(|time| time.name.as_str()).collect();
        assert!(strangers.is_empty() && noted.len() > 5, "{strangers:?}");
        assert!(noted.iter().all(|time| time.seconds.len() == 2));
        phase.close(engine);
    }
}
