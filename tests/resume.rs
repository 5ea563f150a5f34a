//! A run that goes on from a checkpoint is the run that never stopped, bit for bit.

use crate::engines::{engines, fixture, golden, onnxruntime};
use crate::runs::{ByStep, Counting, Job, Ran, guard, in_order, same_end};
use freeze_plan::checkpoint::{self, Checkpoint};
use freeze_plan::data::{BatchOptions, Batches, Column, DataError, Draw, Feed, LastBatch, Sample, Sampler, Source};
use freeze_plan::graph::{DType, Tensor};
use freeze_plan::plan::{BatchNorm, OnReturn, PlanOptions, Policy};
use freeze_plan::runner::{Checkpoints, Ema, Engine, OnNonfinite, RunEvent, Schedule};
use std::path::Path;
use std::sync::atomic::Ordering;

/// A checkpoint with the number of steps that were reported before it.
type Saved = (Checkpoint, usize);

/// Trains with a checkpoint after every `every` steps.
fn whole(
    job: &mut Job,
    engine: &mut dyn Engine,
    policy: Option<Box<dyn Policy>>,
    folder: &Path,
    every: usize,
) -> (Ran, Vec<Saved>) {
    job.checkpoints = Some(Checkpoints { folder: folder.into(), every: Some(every), keep: 2 });
    let (mut saved, mut steps) = (Vec::new(), 0);
    let mut look = |event: &RunEvent| match event {
        RunEvent::Step { .. } => steps += 1,
        RunEvent::Checkpoint { path, .. } => saved.push((checkpoint::load(path.as_ref()).unwrap(), steps)),
        _ => {}
    };
    let ran = job.run_on(engine, policy, &mut look);
    job.checkpoints = None;
    (ran, saved)
}

/// Trains a job whole, then from every `stride`-th of its checkpoints and the last.
fn resumes(
    name: &str,
    job: &mut Job,
    engine: &mut dyn Engine,
    policy: &dyn Fn() -> Option<Box<dyn Policy>>,
    stride: usize,
) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let (ran, saved) = whole(job, engine, policy(), folder.path(), 1);
    let outcome = ran.outcome();
    let skipped = ran.count(|event| matches!(event, RunEvent::Nonfinite { .. }));
    assert_eq!(saved.len(), ran.losses().len() + skipped, "{name}");
    let last = saved.len() - 1;
    for (position, (checkpoint, steps)) in saved.into_iter().enumerate() {
        if position % stride != stride / 2 && position != last {
            continue;
        }
        let at = format!("{name}, from step {} of epoch {}", checkpoint.step, checkpoint.epoch);
        job.resume = Some(checkpoint);
        let again = job.run_on(engine, policy(), &mut |_| {});
        assert_eq!(again.losses(), ran.losses()[steps..], "{at}");
        same_end(&again, &ran);
        assert_eq!(again.outcome().plan, outcome.plan, "{at}");
        assert_eq!(again.outcome().history, outcome.history, "{at}");
    }
    job.resume = None;
    ran
}

fn none() -> Option<Box<dyn Policy>> {
    None
}

fn mlp(optimizer: &str, on_return: OnReturn) -> Job {
    let golden = golden("freezing/mlp.json");
    let mut options = golden["optimizers"].get(optimizer).cloned().unwrap_or(serde_json::json!({"lr": 0.01}));
    options["kind"] = optimizer.into();
    let mut job = Job::of("freezing/mlp.onnx", "freezing/mlp.npz", ["x", "labels"], in_order(8), options);
    let steps = "1+1:1,1+3:2,2:1,2+2:0,2+4:2";
    let options = PlanOptions { on_return, warm_up_steps: 3, ..PlanOptions::of("steps") };
    job.options = options.with("steps", steps);
    job
}

#[test]
fn every_optimizer_goes_on_from_every_step_of_a_plan_that_freezes_and_unfreezes() {
    use OnReturn::{Keep, Reset, WarmUp};
    let all = ["sgd", "adam", "adamw", "rmsprop", "adagrad", "lion", "muon"];
    let cases =
        all.into_iter().zip([Reset, Keep, WarmUp].into_iter().cycle()).chain([("sgd", WarmUp), ("adamw", Reset)]);
    for (optimizer, on_return) in cases {
        let mut job = mlp(optimizer, on_return);
        let name = format!("{optimizer}, {on_return:?}");
        let ran = resumes(&name, &mut job, &mut onnxruntime(), &none, 1);
        let phases = ran.count(|event| matches!(event, RunEvent::Phase { .. }));
        assert!(phases >= 5, "{name}: {phases} phases");
    }
    for mut engine in engines().into_iter().skip(1) {
        resumes("the embedded engine", &mut mlp("adamw", Keep), engine.as_mut(), &none, 3);
    }
}

#[test]
fn a_run_goes_on_before_and_after_constants_take_over() {
    let ran = resumes("constants", &mut crate::ahead::job(), &mut onnxruntime(), &none, 11);
    assert_eq!(ran.count(|event| matches!(event, RunEvent::Constants { .. })), 1);
}

fn digits() -> Job {
    let options = serde_json::json!({"kind": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4});
    let rows = BatchOptions { size: 8, seed: 3, sampler: Sampler::Shuffle, last_batch: LastBatch::Drop };
    Job::of("digits/model.onnx", "parity/digits.npz", ["images", "labels"], rows, options)
}

/// Every policy with settings at which it changes what is frozen in so short a run.
#[test]
fn every_policy_goes_on_as_if_it_had_never_stopped() {
    let json = |value| -> Vec<(&'static str, serde_json::Value)> { value };
    let cases = [
        ("none", json(vec![])),
        ("linear", json(vec![("freeze_start", 0.2.into())])),
        ("freezeout", json(vec![("t_0", 0.3.into())])),
        ("svcca-linear", json(vec![])),
        ("geometric", json(vec![("alpha", 0.3.into())])),
        ("steps", json(vec![("steps", "2+1:2,3:4,3+2:1".into())])),
        ("thaw", json(vec![])),
        ("cyclic", json(vec![("every", 3.into())])),
        ("gradient", json(vec![("intervals", 3.into()), ("percentile", 90.into())])),
        (
            "plasticity",
            json(vec![
                ("every", 1.into()),
                ("window", 2.into()),
                ("bootstrap", 1e6.into()),
                ("tolerance", 5.0.into()),
                ("samples", 16.into()),
            ]),
        ),
        (
            "similarity",
            json(vec![("every", 4.into()), ("threshold", 0.5.into()), ("patience", 1.into()), ("samples", 16.into())]),
        ),
        ("fisher", json(vec![("every", 3.into())])),
        ("relative-change", json(vec![("rate", 0.5.into()), ("every", 4.into())])),
        ("budget", json(vec![("target", 0.6.into()), ("interval", 7.into())])),
    ];
    assert_eq!(cases.len(), freeze_plan::plan::policies::POLICIES.len());
    for (policy, settings) in cases {
        let mut job = digits();
        job.epochs = 3;
        job.options =
            settings.into_iter().fold(PlanOptions::of(policy), |options, (key, value)| options.with(key, value));
        let ran = resumes(policy, &mut job, &mut onnxruntime(), &none, 4);
        let phases = ran.count(|event| matches!(event, RunEvent::Phase { .. }));
        assert!(phases > 1 || ["none", "fisher"].contains(&policy), "{policy} changes nothing");
    }
}

#[test]
fn a_freeze_that_is_watched_is_taken_back_after_a_resume_as_well() {
    let frozen = || {
        let frozen = vec![(1, vec![0]), (2, Vec::new()), (7, vec![0, 1, 2])];
        let scale = |step: usize, _: usize| if step >= 7 { 100.0 } else { 1.0 };
        Some(Box::new(ByStep { frozen, scale: Some(Box::new(scale)) }) as Box<dyn Policy>)
    };
    let mut job = digits();
    job.schedule = Schedule::step(2, 1e-3);
    job.options = PlanOptions { rollback: guard("loss", 0.05, 2), ..PlanOptions::of("none") };
    job.epochs = 4;
    let ran = resumes("by steps", &mut job, &mut onnxruntime(), &frozen, 3);
    assert_eq!(ran.count(|event| matches!(event, RunEvent::Rollback { .. })), 1);
    // What is measured goes back and on as well.
    let counting = || Some(Box::new(Counting { every: 4, measurements: 2, jump: 9 }) as Box<dyn Policy>);
    resumes("counting", &mut job, &mut onnxruntime(), &counting, 5);
}

#[test]
fn accumulated_steps_and_statistics_that_stay_go_on() {
    let mut job = digits();
    (job.accumulate, job.epochs) = (2, 3);
    let options = PlanOptions { batch_norm: BatchNorm::Frozen, ..PlanOptions::of("steps") };
    job.options = options.with("steps", "1+2:2,2+1:4,3:0");
    resumes("accumulated", &mut job, &mut onnxruntime(), &none, 3);
}

#[test]
fn steps_that_are_not_finite_are_skipped_or_go_back_after_a_resume_as_before_it() {
    for action in [OnNonfinite::Skip, OnNonfinite::Rollback] {
        let mut job = crate::numerics::job(&[0, 1, 2, 3, 4, 5], &[2, 4], action);
        (job.epochs, job.ema) = (3, Some(Ema { decay: 0.5, ..Ema::default() }));
        let ran = resumes(&format!("{action:?}"), &mut job, &mut onnxruntime(), &none, 1);
        assert_eq!(ran.count(|event| matches!(event, RunEvent::Nonfinite { .. })), 6);
    }
}

#[test]
fn averages_schedules_that_watch_and_early_stops_go_on() {
    let mut job = mlp("adamw", OnReturn::WarmUp);
    job.epochs = 8;
    job.ema = Some(Ema { decay: 0.8, warmup: true, every: 2, evaluate: true });
    let plateau =
        serde_json::json!({"kind": "plateau", "metric": "loss", "patience": 0, "threshold": 0.02, "factor": 0.1});
    job.schedule = serde_json::from_value(plateau).unwrap();
    let early = serde_json::json!({"every": 1, "best": "accuracy",
        "early_stopping": {"metric": "loss", "patience": 2, "min_delta": 0.01}});
    job.evaluation = serde_json::from_value(early).unwrap();
    let ran = resumes("plateau", &mut job, &mut onnxruntime(), &none, 3);
    assert_eq!(ran.count(|event| matches!(event, RunEvent::EarlyStop { .. })), 1);
    let rates = ran.events.iter().filter_map(|event| match event {
        RunEvent::Step { lr, .. } => *lr,
        _ => None,
    });
    let rates: Vec<f64> = rates.collect();
    assert!(rates.last() < rates.first(), "{rates:?}");
}

#[test]
fn a_run_that_is_saved_often_is_the_run_that_is_not() {
    let (mut saved, mut plain) = (mlp("adamw", OnReturn::Keep), mlp("adamw", OnReturn::Keep));
    let folder = tempfile::tempdir().unwrap();
    let ran = whole(&mut saved, &mut onnxruntime(), None, folder.path(), 1).0;
    plain.checkpoints = None;
    let other = plain.run(&mut onnxruntime());
    same_end(&ran, &other);
    assert_eq!(ran.losses(), other.losses());
    let store = checkpoint::Store::new(folder.path(), 2);
    assert_eq!(store.list().iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(), [12, 11]);
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = mlp("sgd", OnReturn::Reset);
    let (_, saved) = whole(&mut job, &mut onnxruntime(), None, folder.path(), 1);
    let (checkpoint, _) = &saved[2];
    let refused = |job: &mut Job, change: &dyn Fn(&mut Checkpoint)| {
        let mut other = checkpoint.clone();
        change(&mut other);
        job.resume = Some(other);
        job.run(&mut onnxruntime()).result.unwrap_err().to_string()
    };
    let start = "checkpoint 3 cannot be gone on from: ";
    let values = |checkpoint: &mut Checkpoint| checkpoint.groups.remove("values").unwrap();
    let gone = refused(&mut job, &|checkpoint| drop(values(checkpoint)));
    assert_eq!(gone, format!("{start}it has no value of \"fc1.bias\""));
    let stranger = refused(&mut job, &|checkpoint| {
        let tensor = checkpoint.groups["values"]["fc1.bias"].clone();
        checkpoint.groups.get_mut("values").unwrap().insert("fc9.bias".into(), tensor);
    });
    assert_eq!(stranger, format!("{start}its \"fc9.bias\" is not in the model"));
    let shape = refused(&mut job, &|checkpoint| {
        let tensor = checkpoint.groups["values"]["fc1.weight"].clone();
        checkpoint.groups.get_mut("values").unwrap().insert("fc1.bias".into(), tensor);
    });
    assert!(shape.starts_with(&format!("{start}its \"fc1.bias\" is float32[")), "{shape}");
    (job.accumulate, job.options) = (2, PlanOptions::of("none"));
    let steps = refused(&mut job, &|_| {});
    assert_eq!(
        steps,
        format!("{start}it was made with 48 rows in 6 steps an epoch, the job has 48 rows in 3 steps an epoch")
    );
}

/// The rows of another source, until one cannot be read.
#[derive(Debug)]
struct Vanishing {
    rows: std::sync::Arc<dyn Source>,
    gone: std::sync::atomic::AtomicBool,
}

impl Source for Vanishing {
    fn path(&self) -> &Path {
        self.rows.path()
    }
    fn rows(&self) -> usize {
        self.rows.rows()
    }
    fn columns(&self) -> &[Column] {
        self.rows.columns()
    }
    fn read(&self, columns: &[usize], samples: &[Sample], draw: Draw) -> Result<Vec<Tensor>, DataError> {
        let random = matches!(draw, Draw::Random { epoch: 2, .. });
        match samples.iter().find(|sample| random && sample.row == 30 && self.gone.load(Ordering::Relaxed)) {
            Some(sample) => Err(DataError::Row { path: self.path().into(), row: sample.row, reason: "is gone".into() }),
            None => self.rows.read(columns, samples, draw),
        }
    }
}

#[test]
fn a_row_that_vanishes_costs_nothing_that_is_done() {
    let mut job = mlp("sgd", OnReturn::Reset);
    job.accumulate = 2;
    job.options = PlanOptions::of("none");
    let expected = job.run(&mut onnxruntime());
    let rows = freeze_plan::data::Dataset::open(&fixture("freezing/mlp.npz"), &Default::default(), None).unwrap();
    let vanishing = std::sync::Arc::new(Vanishing { rows: rows.source().clone(), gone: true.into() });
    let feed = |input: &str, column: &str, dtype| Feed {
        source: vanishing.clone(),
        column: rows.position(column).unwrap(),
        ..Feed::of(input, Tensor::ints(&[0]), dtype)
    };
    let feeds = vec![feed("x", "x", DType::F32), feed("target", "labels", DType::I64)];
    job.train = Batches::new(feeds, in_order(8)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (ran, saved) = whole(&mut job, &mut onnxruntime(), None, folder.path(), 100);
    let error = ran.result.as_ref().unwrap_err().to_string();
    assert!(error.ends_with("mlp.npz: row 30 (from 0) is gone"), "{error}");
    let (checkpoint, steps) = saved.last().unwrap().clone();
    assert_eq!((checkpoint.epoch, checkpoint.step, steps, saved.len()), (2, 4, 4, 2));
    vanishing.gone.store(false, Ordering::Relaxed);
    job.resume = Some(checkpoint);
    let again = job.run(&mut onnxruntime());
    assert_eq!([ran.losses(), again.losses()].concat(), expected.losses());
    same_end(&again, &expected);
}
