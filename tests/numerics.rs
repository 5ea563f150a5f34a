//! Steps that are not finite.

use crate::engines::engines;
use crate::runs::{ByStep, Job, Ran};
use freeze_plan::graph::{Attributes, Builder, DType, Dim, Fact, Model, Tensor, ValueId};
use freeze_plan::losses::LossKind;
use freeze_plan::runner::{
    Cause, CauseKind, Ema, Engine, Freezing, Nonfinite, OnNonfinite, Run, RunEvent, Setup, Snapshot,
};
use freeze_plan::training::{Objective, Own, names};
use std::sync::atomic::AtomicBool;

const ROWS: usize = 4;

pub fn rows(columns: usize) -> Fact {
    Fact::new(DType::F32, vec![Dim::Symbol("batch".into()), Dim::Known(columns)])
}

/// Returns short decimals in -1..1.
fn wave(shape: &[usize], seed: usize) -> Tensor {
    let count: usize = shape.iter().product();
    let value = |index: usize| ((index * 37 + seed * 53 + 11) % 97) as f32 / 50.0 - 0.97;
    Tensor::from_vec::<f32>(shape, (0..count).map(value).collect())
}

pub fn finished(b: Builder) -> Model {
    Model { graph: b.finish(), opsets: [(String::new(), 18)].into(), ir_version: 8, ..Model::default() }
}

/// Returns a model `x -> linear -> middle -> linear`, its columns 3, 4, 4, 2.
fn around(middle: impl Fn(&mut Builder, ValueId) -> ValueId) -> Model {
    let mut b = Builder::new("net");
    let x = b.input("x", rows(3));
    let linear = |b: &mut Builder, x, name: &str, shape: &[usize], seed| {
        let w = b.initializer(&format!("{name}.weight"), wave(shape, seed));
        let bias = b.initializer(&format!("{name}.bias"), wave(&shape[1..], seed + 1));
        let product = b.op("MatMul", &[x, w], Attributes::none());
        b.add(product, bias)
    };
    let h = linear(&mut b, x, "first", &[3, 4], 1);
    let h = middle(&mut b, h);
    let y = linear(&mut b, h, "second", &[4, 2], 3);
    b.output(y, "y");
    finished(b)
}

fn batch_norm(b: &mut Builder, x: ValueId) -> ValueId {
    let names = ["norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"];
    let mut inputs = vec![x];
    for (index, name) in names.into_iter().enumerate() {
        let start = if index % 3 == 0 { 1.0 } else { 0.0 };
        inputs.push(b.initializer(name, Tensor::float_full(DType::F32, &[4], start)));
    }
    let normal = b.op("BatchNormalization", &inputs, Attributes::none());
    b.unary("Relu", normal)
}

/// Returns the batches of a data set as columns; those in `bad` hold a NaN, in row 2 of the batch.
fn columns(batches: &[usize], bad: &[usize]) -> Vec<(&'static str, Tensor)> {
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for batch in batches {
        let mut own = wave(&[ROWS, 3], 10 + batch).to_vec::<f32>().unwrap();
        if bad.contains(batch) {
            own[2 * 3 + 1] = f32::NAN;
        }
        x.extend(own);
        y.extend(wave(&[ROWS, 2], 40 + batch).to_vec::<f32>().unwrap());
    }
    let count = batches.len() * ROWS;
    vec![("x", Tensor::from_vec(&[count, 3], x)), (names::TARGET, Tensor::from_vec(&[count, 2], y))]
}

/// Returns one epoch of a model with a BatchNorm over the batches.
pub fn job(batches: &[usize], bad: &[usize], action: OnNonfinite) -> Job {
    let mut job = Job::on(&around(batch_norm), LossKind::Mse, columns(batches, bad), ROWS);
    (job.epochs, job.eval) = (1, false);
    job.nonfinite = Nonfinite { action, ..Nonfinite::default() };
    job
}

struct Found {
    step: usize,
    batch: usize,
    gradient: Option<String>,
    action: OnNonfinite,
    in_a_row: usize,
    cause: Option<Cause>,
}

fn found(ran: &Ran) -> Vec<Found> {
    let found = |event: &RunEvent| match event.clone() {
        RunEvent::Nonfinite { step, batch, gradient, action, in_a_row, cause, .. } => {
            Some(Found { step, batch, gradient, action, in_a_row, cause })
        }
        _ => None,
    };
    ran.events.iter().filter_map(found).collect()
}

/// Returns what a failed run says, with its one event.
fn stopped(engine: &mut dyn Engine, job: &Job) -> Option<(String, Cause)> {
    let ran = job.run(engine);
    let error = ran.result.as_ref().err()?.to_string();
    let mut events = found(&ran);
    assert_eq!(events.len(), 1);
    let event = events.remove(0);
    assert_eq!(event.action, OnNonfinite::Stop);
    let Some(cause) = event.cause else { panic!("no cause: {error}") };
    Some((error, cause))
}

#[test]
fn the_first_tensor_that_is_not_finite_is_named() {
    let one = |columns: Vec<(&str, Tensor)>, model: &Model| {
        let mut job = Job::on(model, LossKind::Mse, columns, ROWS);
        (job.epochs, job.eval) = (1, false);
        job
    };
    // tanh(exp(x)) is 1 and its gradient 0 times infinity.
    let exp = around(|b, x| {
        let large = b.scale(x, 1000.0);
        let grown = b.unary("Exp", large);
        b.unary("Tanh", grown)
    });
    let overflow = around(|b, x| {
        let large = b.scale(x, 1000.0);
        let grown = b.unary("Exp", large);
        b.unary("Relu", grown)
    });
    // The root of 0 is finite, its gradient is not.
    let root = around(|b, x| {
        let zero = b.sub(x, x);
        let root = b.unary("Sqrt", zero);
        b.add(root, x)
    });
    // The mask is infinite and does no harm; the logarithm of a negative number does.
    let masked = around(|b, x| {
        let mask = Tensor::from_vec(&[4], vec![0.0f32, f32::NEG_INFINITY, 0.0, 0.0]);
        let mask = b.initializer("mask", mask);
        let logarithm = b.unary("Log", x);
        let scores = b.add(logarithm, mask);
        b.op("Softmax", &[scores], Attributes::none().with("axis", -1))
    });
    // Finite numbers whose sum is no float32 are not taken for the cause of the NaN behind them.
    let large = around(|b, x| {
        let large = b.scale(x, 5e37);
        b.unary("Log", large)
    });
    // A row with nothing but the mask: the Softmax is the first, not the mask.
    let all_masked = around(|b, x| {
        let mask = b.initializer("mask", Tensor::float_full(DType::F32, &[4], f64::NEG_INFINITY));
        let scores = b.add(x, mask);
        b.op("Softmax", &[scores], Attributes::none().with("axis", -1))
    });
    struct Case<'a> {
        name: &'a str,
        job: Job,
        what: &'a str,
        kind: CauseKind,
        operator: Option<&'a str>,
        pass: Option<&'a str>,
    }
    let case = |name, job, what, kind, operator, pass| Case { name, job, what, kind, operator, pass };
    let value = CauseKind::Value;
    let mut infinite = around(|b, x| b.unary("Tanh", x));
    let bad = Tensor::from_vec(&[4], vec![0.5f32, f32::INFINITY, 0.0, 1.0]);
    infinite.graph = infinite.graph.with_initializer("first.bias", bad);
    infinite.graph =
        infinite.graph.with_initializer("second.weight", Tensor::float_full(DType::F32, &[4, 2], f64::NAN));
    let clean = || columns(&[0, 1], &[]);
    let cases = [
        case("overflow", one(clean(), &overflow), "the loss is", value, Some("Exp"), Some("forward")),
        case("vanished", one(clean(), &exp), "the gradient \"first.weight.grad\"", value, Some("Exp"), Some("forward")),
        case("root", one(clean(), &root), "the gradient \"first.weight.grad\"", value, Some("Div"), Some("backward")),
        case("mask", one(clean(), &masked), "the loss is NaN", value, Some("Log"), Some("forward")),
        case("large", one(clean(), &large), "the loss is NaN", value, Some("Log"), Some("forward")),
        case("all masked", one(clean(), &all_masked), "the loss is NaN", value, Some("Softmax"), Some("forward")),
        case("data", one(columns(&[0, 1], &[1]), &around(batch_norm)), "the loss is NaN", CauseKind::Input, None, None),
        case("parameter", one(clean(), &infinite), "the loss is NaN", CauseKind::Parameter, None, None),
    ];
    let mut failures = Vec::new();
    for mut engine in engines() {
        let engine = engine.as_mut();
        for Case { name, job, what, kind, operator, pass } in &cases {
            let Some((error, cause)) = stopped(engine, job) else {
                failures.push(format!("{name} [{}] does not fail", engine.info().name));
                continue;
            };
            let at = (cause.kind, cause.operator.as_deref(), cause.pass.as_deref());
            if at != (*kind, *operator, *pass) || !error.starts_with(what) {
                failures.push(format!("{name} [{}]: {error}\n{cause:?}", engine.info().name));
            }
            match *name {
                "overflow" => {
                    assert!(cause.infinities > 0, "{cause:?}");
                    assert!(cause.inputs.iter().any(|input| input.max.is_some_and(|max| max > 88.0)), "{cause:?}");
                }
                "data" => {
                    assert_eq!((cause.column.as_deref(), cause.row, cause.nans), (Some("x"), Some(6), 1));
                    assert!(error.contains("epoch 1, step 2") && error.contains("row 6"), "{error}");
                }
                "parameter" => {
                    assert_eq!(
                        (cause.tensor.as_str(), cause.module.as_str(), cause.nans),
                        ("second.weight", "second", 8)
                    );
                }
                _ => {}
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn large_gradients_whose_sum_overflows_are_no_failure() {
    let mut b = Builder::new("zeros");
    let x = b.input("x", rows(3));
    let w = b.initializer("fc.weight", Tensor::zeros(DType::F32, &[3, 4]));
    let y = b.op("MatMul", &[x, w], Attributes::none());
    b.output(y, "y");
    let model = finished(b);
    for mut engine in engines() {
        let full = |width, value| Tensor::float_full(DType::F32, &[ROWS, width], value);
        let columns = vec![("x", full(3, 3e38)), (names::TARGET, full(4, 1.0))];
        let mut job = Job::on(&model, LossKind::L1, columns, ROWS);
        (job.epochs, job.eval) = (1, false);
        job.optimizer.lr = Some(1e-30);
        let ran = job.run(engine.as_mut());
        assert_eq!((found(&ran).len(), ran.losses()), (0, vec![1.0]));
        let step = ran.outcome().values["fc.weight"].to_f64s().unwrap();
        // The sum of 12 gradients of 7.5e37 is no float32.
        assert!(step.iter().all(|value| (value - 7.5e7).abs() < 1e3), "{step:?}");
    }
}

/// Runs the first segment and returns the state before and after the last step that was begun.
fn state_around(engine: &mut dyn Engine, job: &Job) -> (Snapshot, Snapshot, bool) {
    let basis = job.basis(None);
    let (plan, planner) = (basis.plan().unwrap(), basis.planner().unwrap());
    let freezing = Freezing::with(&plan, &planner, &job.options);
    let objective = Objective::Own(Own { loss: &job.loss, output: None, optimizer: &job.optimizer });
    let setup = Setup {
        nonfinite: job.nonfinite,
        ema: job.ema,
        ..Setup::of(&job.prepared, freezing, objective, &job.schedule, &job.train)
    };
    let mut run = Run::new(engine, &setup, &mut |_| {}).unwrap();
    let before = run.state.snapshot(engine).unwrap();
    let segment = run.next_segment().unwrap();
    let failed = run.segment(engine, &segment, &mut |_| {}, &AtomicBool::new(false)).is_err();
    let after = run.state.snapshot(engine).unwrap();
    (before, after, failed)
}

#[test]
fn a_bad_step_changes_nothing() {
    for mut engine in engines() {
        for action in [OnNonfinite::Stop, OnNonfinite::Skip, OnNonfinite::Rollback] {
            let mut job = job(&[0], &[0], action);
            job.ema = Some(Ema { decay: 0.5, ..Ema::default() });
            let (before, after, failed) = state_around(engine.as_mut(), &job);
            assert_eq!(failed, action == OnNonfinite::Stop);
            assert!(before.values == after.values && before.averages == after.averages, "{action:?}");
            let momentum = after.slots.values().all(|slot| slot.to_f64s().unwrap().iter().all(|value| *value == 0.0));
            assert!(momentum && !after.slots.is_empty(), "{action:?}");
            let (before, after, _) = state_around(engine.as_mut(), &self::job(&[0], &[], action));
            assert!(before.values["norm.running_mean"] != after.values["norm.running_mean"], "a good step moves them");
        }
    }
}

#[test]
fn a_skipped_batch_is_as_one_that_was_never_there() {
    for mut engine in engines() {
        let engine = engine.as_mut();
        let skipping = job(&[0, 1, 2, 3], &[1, 2], OnNonfinite::Skip);
        let ran = skipping.run(engine);
        let without = job(&[0, 3], &[], OnNonfinite::Stop).run(engine);
        assert!(ran.outcome().values == without.outcome().values && ran.outcome().slots == without.outcome().slots);
        let events = found(&ran);
        let seen: Vec<_> = events.iter().map(|event| (event.step, event.batch, event.in_a_row, event.action)).collect();
        assert_eq!(seen, [(2, 1, 1, OnNonfinite::Skip), (3, 1, 2, OnNonfinite::Skip)]);
        assert_eq!((ran.steps(), ran.losses()), (vec![1, 4], without.losses()));
        let mean = |ran: &Ran| ran.outcome().history.epochs[0].metrics["train_loss"];
        assert_eq!(mean(&ran), mean(&without));
    }
}

#[test]
fn a_rollback_goes_back_to_the_start_of_the_epoch_and_on_with_the_next_batch() {
    for mut engine in engines() {
        let engine = engine.as_mut();
        let ran = job(&[0, 1, 2, 3], &[2], OnNonfinite::Rollback).run(engine);
        let last = job(&[3], &[], OnNonfinite::Stop).run(engine);
        assert!(ran.outcome().values == last.outcome().values && ran.outcome().slots == last.outcome().slots);
        assert_eq!(found(&ran).len(), 1);
        let mut twice = job(&[0, 1, 2], &[0], OnNonfinite::Rollback);
        twice.epochs = 2;
        let mut skipping = job(&[0, 1, 2], &[0], OnNonfinite::Skip);
        skipping.epochs = 2;
        let (a, b) = (twice.run(engine), skipping.run(engine));
        assert!(a.outcome().values == b.outcome().values, "at the first step of an epoch nothing is taken back");
        twice = job(&[0, 1, 2], &[2], OnNonfinite::Rollback);
        twice.epochs = 2;
        let start = wave(&[3, 4], 1);
        assert!(twice.run(engine).outcome().values["first.weight"] == start, "both epochs are taken back");
    }
}

#[test]
fn a_rollback_after_a_freeze_goes_back_to_the_freeze() {
    for mut engine in engines() {
        let job = job(&[0, 1, 2, 3, 4], &[3], OnNonfinite::Rollback);
        let first = |job: &Job| {
            let units = job.basis(None).plan().unwrap().units.clone();
            units.iter().position(|unit| unit.path == "first").unwrap()
        };
        let policy = ByStep { frozen: vec![(2, vec![first(&job)])], scale: None };
        let ran = job.run_on(engine.as_mut(), Some(Box::new(policy)), &mut |_| {});
        assert_eq!(ran.count(|event| matches!(event, RunEvent::Proof { .. })), 1, "what is frozen stays");
        // Batches 0 and 1, then the freeze, then batch 4: those of 2 are taken back.
        let without = self::job(&[0, 1, 4], &[], OnNonfinite::Stop);
        let policy = ByStep { frozen: vec![(2, vec![first(&without)])], scale: None };
        let without = without.run_on(engine.as_mut(), Some(Box::new(policy)), &mut |_| {});
        assert!(ran.outcome().values == without.outcome().values && ran.outcome().slots == without.outcome().slots);
    }
}

#[test]
fn too_many_bad_steps_in_a_row_end_the_run() {
    for mut engine in engines() {
        let all: Vec<usize> = (0..12).collect();
        for action in [OnNonfinite::Skip, OnNonfinite::Rollback] {
            let mut job = job(&all, &all, action);
            job.nonfinite.limit = 3;
            let ran = job.run(engine.as_mut());
            let error = ran.result.as_ref().expect_err("it fails").to_string();
            assert!(error.contains("step 3") && error.contains("as in 3 steps in a row"), "{error}");
            let actions: Vec<_> = found(&ran).iter().map(|event| event.action).collect();
            assert_eq!(actions, [action, action, OnNonfinite::Stop]);
        }
        // A good step in between counts from the start again.
        let mut job = job(&all, &[0, 1, 3, 4, 6, 7], OnNonfinite::Skip);
        job.nonfinite.limit = 3;
        assert_eq!(found(&job.run(engine.as_mut())).len(), 6);
    }
}

#[test]
fn the_batch_of_an_accumulated_step_is_named() {
    for mut engine in engines() {
        let mut job = job(&[0, 1, 2, 3], &[3], OnNonfinite::Skip);
        job.accumulate = 2;
        let ran = job.run(engine.as_mut());
        let events = found(&ran);
        let event = &events[0];
        assert_eq!((event.step, event.batch, event.gradient.as_deref()), (2, 2, None));
        let cause = event.cause.as_ref().unwrap();
        assert_eq!((cause.kind, cause.column.as_deref(), cause.row), (CauseKind::Input, Some("x"), Some(14)));
        let mut first = self::job(&[0, 1], &[], OnNonfinite::Stop);
        first.accumulate = 2;
        let first = first.run(engine.as_mut());
        assert!(ran.outcome().values == first.outcome().values && ran.outcome().slots == first.outcome().slots);
    }
}

/// Writes a job on a model with a BatchNorm; row 9 of its 16 holds a NaN where `bad`.
pub fn written(folder: &std::path::Path, more: &str, bad: bool) -> std::path::PathBuf {
    std::fs::write(folder.join("model.onnx"), freeze_plan::onnx::to_bytes(&around(batch_norm))).unwrap();
    let mut columns = columns(&[0, 1, 2, 3], &[]);
    if bad {
        let mut x = columns[0].1.to_vec::<f32>().unwrap();
        x[9 * 3] = f32::NAN;
        columns[0].1 = Tensor::from_vec(&[16, 3], x);
    }
    let tensors = columns.into_iter().map(|(name, tensor)| (name.to_string(), tensor)).collect();
    let store = freeze_plan::checkpoint::Store::new(&folder.join("data"), 1);
    let saved = store.save(&mut crate::runs::of_values(0, tensors), false).unwrap();
    std::fs::rename(saved.join("values.safetensors"), folder.join("train.safetensors")).unwrap();
    let text = format!(
        "model = \"model.onnx\"\n[data]\ntrain = \"train.safetensors\"\ninputs = {{ x = \"x\" }}\ntarget = \"target\"\n\
         batch = 4\nshuffle = false\n[loss]\nkind = \"mse\"\n[optimizer]\nkind = \"sgd\"\nlr = 0.1\nclip_value = 0.5\n\
         [freeze]\npolicy = \"none\"\n{more}"
    );
    let file = folder.join("job.toml");
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn a_job_says_what_becomes_of_steps_that_are_not_finite() {
    use crate::cli::{fails, freeze_plan, path, text};
    let folder = tempfile::tempdir().unwrap();
    let run = "[run]\nepochs = 2\ndir = \"run\"\n";
    let file = written(folder.path(), run, true);
    let line = fails(&["train", path(&file), "--no-plan"], 4);
    assert!(line.contains("column \"x\" (input \"x\") is NaN in 1 of 12 elements, first in row 9 (from 0)"), "{line}");
    let follows = [("skip", "the step is skipped"), ("rollback", "the state goes back to the start of the epoch")];
    for (action, follows) in follows {
        let set = format!("run.nonfinite={action}");
        let output = freeze_plan(&["train", path(&file), "--no-plan", "--overwrite", "--set", &set]);
        let stderr = text(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        assert!(stderr.contains(&format!("epoch 2, step 7: the loss is not finite, {follows}; column")), "{stderr}");
        let log = std::fs::read_to_string(folder.path().join("run/events.jsonl")).unwrap();
        let events = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let events: Vec<_> = events.filter(|event| event["event"] == "nonfinite").collect();
        assert_eq!(events.len(), 2);
        assert_eq!((&events[1]["step"], &events[1]["cause"]["row"]), (&serde_json::json!(7), &serde_json::json!(9)));
        assert_eq!(events[0]["action"], action);
    }
    let line = fails(&["train", path(&file), "--overwrite", "--set", "run.nonfinite=ignore"], 2);
    assert!(line.contains("run.nonfinite") && line.contains("skip"), "{line}");
    let line = fails(&["train", path(&file), "--overwrite", "--set", "run.nonfinite_limit=0"], 2);
    assert!(line.contains("key `run.nonfinite_limit` given with --set: expected 1 or more, found 0"), "{line}");
    let set = ["run.nonfinite=skip", "run.nonfinite_limit=1"];
    let line = fails(&["train", path(&file), "--overwrite", "--set", set[0], "--set", set[1]], 4);
    assert!(line.contains("epoch 1, step 3"), "{line}");
}

#[test]
fn frozen_parts_and_training_information_are_looked_at_too() {
    use crate::cli::{fails, path};
    for mut engine in engines() {
        // The first layer is frozen: its values are constants of the train graph.
        let mut job = job(&[0, 1], &[], OnNonfinite::Stop);
        job.options.freeze = vec!["first.*".into()];
        let mut bias = vec![0.5f32; 4];
        bias[1] = f32::NEG_INFINITY;
        let graph = std::mem::take(&mut job.prepared.model.graph);
        job.prepared.model.graph = graph.with_initializer("first.bias", Tensor::from_vec(&[4], bias));
        let (error, cause) = stopped(engine.as_mut(), &job).expect("it fails");
        assert_eq!(
            (cause.kind, cause.tensor.as_str(), cause.module.as_str()),
            (CauseKind::Parameter, "first.bias", "first"),
            "{error}"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let fixture = |name: &str| crate::engines::fixture(&format!("training_info/{name}")).display().to_string();
    let job = format!(
        "model = \"{}\"\n[init]\nweights = \"bad.onnx\"\n[data]\ntrain = \"{}\"\ninputs = {{ x = \"x\" }}\ntarget = \"label\"\n\
         batch = 4\n[freeze]\npolicy = \"none\"\n[run]\nepochs = 1\ndir = \"run\"\n",
        fixture("mlp_adam.onnx"),
        fixture("mlp_adam.npz"),
    );
    let file = folder.path().join("job.toml");
    std::fs::write(&file, job).unwrap();
    let mut bad = freeze_plan::onnx::read(&crate::engines::fixture("training_info/mlp_adam.onnx")).unwrap().model;
    let names: Vec<String> =
        bad.graph.initializers().filter(|(_, _, t)| t.shape().len() == 2).map(|(_, v, _)| v.name.clone()).collect();
    let held = bad.graph.value(bad.graph.find(&names[0]).unwrap()).initializer.clone().unwrap();
    bad.graph = bad.graph.with_initializer(&names[0], Tensor::float_full(held.dtype(), held.shape(), f64::NAN));
    std::fs::write(folder.path().join("bad.onnx"), freeze_plan::onnx::to_bytes(&bad)).unwrap();
    let line = fails(&["train", path(&file), "--no-plan"], 4);
    assert!(line.contains(&format!("parameter \"{}\"", names[0])) && line.contains("is NaN"), "{line}");
}
