//! Graphs on which freezing a prefix goes wrong easily: at every depth the gradients of what trains are those of the
//! whole graph, and nothing more is computed than at the depth before.

use crate::engines::{deviation, engines};
use crate::runs::{ByStep, Job, newest};
use freeze_plan::graph::{Attributes, Builder, Dim, Fact, Model, Origin, Tensor, ValueId};
use freeze_plan::losses::LossKind;
use freeze_plan::plan::{FreezePlan, PlanOptions};
use freeze_plan::runner::{Checkpoints, Engine, RunEvent, evaluate};
use freeze_plan::training::{PhaseOptions, Rates, TrainStep, build};
use std::collections::{BTreeMap, HashSet};

const ROWS: usize = 10;
const BATCH: usize = 4;

/// A graph with its data; `units` is how many there are to freeze.
struct Case {
    name: &'static str,
    units: usize,
    make: fn(&mut Net) -> ValueId,
    input: Tensor,
    target: Vec<usize>,
}

/// A builder with numbers for what it is asked for.
struct Net {
    b: Builder,
    x: ValueId,
    seed: usize,
}

fn numbers(shape: &[usize], seed: usize) -> Tensor {
    let value = |index: usize| ((index * 37 + seed * 91) % 61) as f32 / 50.0 - 0.6;
    Tensor::from_vec::<f32>(shape, (0..shape.iter().product()).map(value).collect())
}

impl Net {
    fn weight(&mut self, name: &str, shape: &[usize]) -> ValueId {
        self.seed += 1;
        self.b.initializer(name, numbers(shape, self.seed))
    }

    fn of(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        self.b.op(op, inputs, Attributes::none())
    }

    /// `tanh(x W)`.
    fn layer(&mut self, name: &str, x: ValueId, shape: &[usize]) -> ValueId {
        let weight = self.weight(&format!("{name}.weight"), shape);
        let y = self.of("MatMul", &[x, weight]);
        self.of("Tanh", &[y])
    }
}

fn residual(net: &mut Net) -> ValueId {
    let first = net.layer("fc1", net.x, &[4, 4]);
    let second = net.layer("fc2", first, &[4, 4]);
    let sum = net.b.add(first, second);
    net.layer("fc3", sum, &[4, 3])
}

fn tied(net: &mut Net) -> ValueId {
    let table = net.weight("embedding.weight", &[5, 4]);
    let h = net.of("Gather", &[table, net.x]);
    let h = net.layer("fc", h, &[4, 4]);
    let turned = net.b.transpose(table, &[1, 0]);
    net.of("MatMul", &[h, turned])
}

fn twice(net: &mut Net) -> ValueId {
    let shared = net.weight("shared.weight", &[4, 4]);
    let h = net.of("MatMul", &[net.x, shared]);
    let h = net.of("Tanh", &[h]);
    let h = net.layer("middle", h, &[4, 4]);
    let h = net.of("MatMul", &[h, shared]);
    net.layer("last", h, &[4, 3])
}

fn only_the_loss(net: &mut Net) -> ValueId {
    let h = net.layer("fc1", net.x, &[4, 4]);
    let h = net.layer("fc2", h, &[4, 3]);
    let scale = net.weight("temperature.scale", &[]);
    net.b.mul(h, scale)
}

fn first_at_the_end(net: &mut Net) -> ValueId {
    let scale = net.weight("a.scale", &[3]);
    let h = net.layer("fc1", net.x, &[4, 4]);
    let h = net.layer("fc2", h, &[4, 3]);
    net.b.mul(h, scale)
}

fn two_branches(net: &mut Net) -> ValueId {
    let left = net.layer("left", net.x, &[4, 4]);
    let right = net.layer("right", net.x, &[4, 4]);
    let product = net.b.mul(left, right);
    net.layer("head", product, &[4, 3])
}

fn batch_norm(net: &mut Net) -> ValueId {
    let h = net.layer("fc1", net.x, &[4, 4]);
    let parts = ["weight", "bias", "running_mean"].map(|part| net.weight(&format!("bn.{part}"), &[4]));
    let variance = net.b.initializer("bn.running_var", Tensor::from_vec(&[4], vec![0.5f32, 1.0, 1.5, 2.0]));
    let h = net.of("BatchNormalization", &[h, parts[0], parts[1], parts[2], variance]);
    net.layer("fc2", h, &[4, 3])
}

fn dropout(net: &mut Net) -> ValueId {
    let h = net.layer("fc1", net.x, &[4, 4]);
    let (ratio, on) = (net.b.constant("ratio", Tensor::scalar(0.5f32)), net.b.constant("on", Tensor::scalar(true)));
    let h = net.of("Dropout", &[h, ratio, on]);
    let h = net.layer("fc2", h, &[4, 4]);
    net.layer("fc3", h, &[4, 3])
}

fn read_by_nobody(net: &mut Net) -> ValueId {
    net.weight("nobody.weight", &[4, 4]);
    let h = net.layer("fc1", net.x, &[4, 4]);
    net.layer("fc2", h, &[4, 3])
}

fn scalars(net: &mut Net) -> ValueId {
    let [gain, shift] = ["gain.value", "shift.value"].map(|name| net.weight(name, &[]));
    let h = net.b.mul(net.x, gain);
    let h = net.b.add(h, shift);
    let h = net.layer("fc1", h, &[4, 4]);
    let power = net.weight("power.value", &[1]);
    let h = net.b.mul(h, power);
    net.layer("fc2", h, &[4, 3])
}

fn cases() -> Vec<Case> {
    let case = |name, units, make| Case { name, units, make, input: numbers(&[ROWS, 4], 0), target: vec![ROWS, 3] };
    let ids = Tensor::from_vec::<i64>(&[ROWS, 3], (0..3 * ROWS as i64).map(|index| index * 7 % 5).collect());
    vec![
        case("a skip over the cut", 3, residual),
        Case { input: ids, target: vec![ROWS, 3, 5], ..case("tied embedding and head", 2, tied) },
        case("a module at two depths", 3, twice),
        case("a parameter that feeds only the loss", 3, only_the_loss),
        case("a parameter of the end that comes first", 3, first_at_the_end),
        case("two branches", 3, two_branches),
        case("BatchNorm before the cut", 3, batch_norm),
        case("Dropout in the prefix", 3, dropout),
        case("an initializer that no node reads", 2, read_by_nobody),
        case("scalars", 5, scalars),
    ]
}

fn job(case: &Case) -> Job {
    let mut b = Builder::new("net");
    let mut shape = vec![Dim::Symbol("batch".into())];
    shape.extend(case.input.shape()[1..].iter().map(|size| Dim::Known(*size)));
    let x = b.input("x", Fact::new(case.input.dtype(), shape));
    let mut net = Net { b, x, seed: 0 };
    let y = (case.make)(&mut net);
    net.b.output(y, "y");
    let opsets = [(String::new(), 18)].into();
    let model = Model { graph: net.b.finish(), opsets, ir_version: 8, ..Model::default() };
    let columns = vec![("x", case.input.clone()), ("target", numbers(&case.target, 7))];
    let mut job = Job::on(&model, LossKind::Mse, columns, BATCH);
    job.epochs = case.units + 1;
    job
}

/// Freezes one unit more in each epoch.
fn nested(units: usize) -> ByStep {
    let steps = ROWS.div_ceil(BATCH);
    ByStep { frozen: (0..=units).map(|depth| (depth * steps, (0..depth).collect())).collect(), scale: None }
}

fn plan(case: &Case, job: &Job) -> FreezePlan {
    let plan = job.basis(Some(Box::new(nested(case.units)))).plan().unwrap();
    assert_eq!(plan.units.len(), case.units, "{}: {:?}", case.name, plan.units);
    plan
}

fn graphs(job: &Job, held: &[&str]) -> TrainStep {
    let options = PhaseOptions {
        frozen: held.iter().copied().collect(),
        frozen_inputs: false,
        rates: Rates::new(),
        loss: &job.loss,
        optimizer: &job.optimizer,
        output: None,
        seed: 0,
    };
    build(&job.prepared, &options).unwrap()
}

/// Runs the train graph on the first batch at the starting values; returns its outputs by name.
fn outputs(job: &Job, step: &TrainStep, engine: &mut dyn Engine) -> BTreeMap<String, Tensor> {
    let graph = &step.train.graph;
    let batch = job.train.batch(1, 0).unwrap();
    let feeds = graph.inputs().iter().map(|id| {
        let name = graph.value_name(*id);
        let own = job.prepared.model.graph.find(name);
        let start = own.and_then(|id| job.prepared.model.graph.value(id).initializer.clone());
        let fed = || batch.iter().find(|(own, _)| own == name).map(|(_, tensor)| tensor.clone());
        (name, start.or_else(fed).unwrap_or_else(|| Tensor::scalar(1_i64)))
    });
    let feeds: Vec<(&str, Tensor)> = feeds.collect();
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let found = evaluate(engine, &step.train, &feeds).unwrap_or_else(|error| panic!("{error}"));
    graph.outputs().iter().map(|id| graph.value_name(*id).to_string()).zip(found).collect()
}

fn backward(step: &TrainStep) -> usize {
    step.train.graph.nodes().iter().filter(|node| matches!(node.origin, Origin::Backward(_))).count()
}

#[test]
fn gradients_at_every_depth_are_those_of_the_whole_graph() {
    for case in cases() {
        let job = job(&case);
        let plan = plan(&case, &job);
        for mut engine in engines() {
            let name = format!("{} [{}]", case.name, engine.info().name);
            let full = outputs(&job, &graphs(&job, &[]), engine.as_mut());
            let (mut nodes, mut flops) = (usize::MAX, u64::MAX);
            for (depth, epoch) in plan.epochs.iter().enumerate() {
                let held: Vec<&str> = epoch.held().collect();
                let step = graphs(&job, &held);
                let part = outputs(&job, &step, engine.as_mut());
                assert!(deviation(&part["loss"], &full["loss"]) < 1e-6, "{name}, depth {depth}");
                let trains: HashSet<&str> = job.prepared.trainable().into_iter().collect();
                let trains =
                    trains.iter().filter(|name| !held.contains(name) && full.contains_key(&format!("{name}.grad")));
                let mut expected: Vec<String> = trains.map(|name| format!("{name}.grad")).collect();
                let mut found: Vec<String> = part.keys().filter(|name| name.ends_with(".grad")).cloned().collect();
                expected.sort();
                found.sort();
                assert_eq!(found, expected, "{name}, depth {depth}");
                for gradient in &found {
                    let off = deviation(&part[gradient], &full[gradient]);
                    assert!(off < 1e-5, "{name}, depth {depth}: {gradient} is off by {off:.1e}");
                }
                let (own, predicted) = (backward(&step), epoch.predicted.backward_flops);
                assert!(own <= nodes, "{name}, depth {depth}: {own} backward nodes after {nodes}");
                assert!(predicted <= flops, "{name}, depth {depth}: {predicted} flops after {flops}");
                assert!(
                    predicted < flops || depth == 0 || epoch.frozen == plan.epochs[depth - 1].frozen,
                    "{name} {depth}"
                );
                (nodes, flops) = (own, predicted);
            }
            assert_eq!((nodes, flops), (0, 0), "{name}: nothing trains at the end");
        }
    }
}

#[test]
fn runs_leave_what_is_frozen_as_it_is() {
    for case in cases() {
        for mut engine in engines() {
            let folder = tempfile::tempdir().unwrap();
            let mut job = job(&case);
            let plan = plan(&case, &job);
            job.checkpoints = Some(Checkpoints::after_epochs(folder.path().to_path_buf()));
            let mut saved = Vec::new();
            let mut look = |event: &RunEvent| {
                if matches!(event, RunEvent::Checkpoint { .. }) {
                    saved.push(newest(folder.path()).tensors());
                }
            };
            let ran = job.run_on(engine.as_mut(), Some(Box::new(nested(case.units))), &mut look);
            let name = format!("{} [{}]", case.name, engine.info().name);
            assert_eq!(ran.steps().len(), 3 * job.epochs, "{name}: {:?}", ran.result.as_ref().err());
            assert_eq!(ran.outcome().plan, plan, "{name}");
            assert_eq!(saved.len(), job.epochs);
            let unused = graphs(&job, &[]).contract.unused;
            for (epoch, pair) in plan.epochs[1..].iter().zip(saved.windows(2)) {
                for parameter in job.prepared.trainable() {
                    let held = epoch.frozen.iter().any(|name| name == parameter);
                    let still = pair[0][parameter] == pair[1][parameter];
                    let expected = held || unused.iter().any(|name| name == parameter);
                    assert_eq!(still, expected, "{name}: {parameter} in epoch {}", epoch.epoch);
                }
            }
            let proofs = ran.count(|event| matches!(event, RunEvent::Proof { .. }));
            let sets: HashSet<&Vec<String>> = plan.epochs.iter().map(|epoch| &epoch.frozen).collect();
            assert_eq!(proofs, sets.iter().filter(|set| !set.is_empty()).count(), "{name}");
        }
    }
}

#[test]
fn depths_never_fall_and_the_last_unit_trains() {
    for case in cases() {
        let mut job = job(&case);
        job.epochs = 8;
        let lists = [
            ("linear", PlanOptions::of("linear").with("freeze_start", 0.0).with("freeze_level", 1.0)),
            ("freezeout", PlanOptions::of("freezeout").with("t_0", 0.3)),
            ("svcca-linear", PlanOptions::of("svcca-linear")),
        ];
        for (policy, options) in lists {
            job.options = options;
            let plan = job.basis(None).plan().unwrap();
            let stretches: Vec<_> = plan.epochs.iter().flat_map(|epoch| epoch.stretches()).collect();
            for pair in stretches.windows(2) {
                let kept = pair[0].frozen.iter().all(|name| pair[1].frozen.contains(name));
                assert!(kept, "{} with {policy} thaws in epoch {}", case.name, pair[1].epoch);
            }
            let last = plan.units.last().unwrap();
            let held = last.parameters.iter().all(|name| stretches.iter().any(|entry| entry.frozen.contains(name)));
            assert!(policy != "linear" || !held || last.parameters.is_empty(), "{}: {policy}", case.name);
            // What is decided after the last epoch trains nothing.
            let ran = job.run(&mut crate::engines::onnxruntime());
            assert_eq!(ran.steps().len(), 24, "{} with {policy}", case.name);
            assert_eq!(ran.outcome().plan.last, plan.last);
            assert!(ran.count(|event| matches!(event, RunEvent::Phase { epoch: 9.., .. })) == 0);
        }
    }
}
