//! The trainer as other programs use it.

use crate::engines::fixture;
use freeze_plan::data::{DataOptions, Dataset};
use freeze_plan::losses::{LossKind, LossSpec};
use freeze_plan::optim::{OptimizerKind, OptimizerSpec};
use freeze_plan::plan::{Decision, FrozenSet, Moment, PlanOptions, Policy};
use freeze_plan::runner::job::{DataSection, RunSection};
use freeze_plan::runner::{Job, LocateOptions, RunEvent};
use freeze_plan::trainer::{EngineOptions, Parts, Start, Trainer, engine};
use std::path::Path;

fn trainer(folder: &Path, epochs: u64) -> Trainer {
    trainer_with(folder, epochs, None)
}

fn trainer_with(folder: &Path, epochs: u64, policy: Option<Box<dyn Policy>>) -> Trainer {
    let data = DataSection::new([("x", "x")], "labels", 8);
    let mut job = Job::new(fixture("freezing/mlp.onnx"), data, RunSection::new(epochs, folder.join("run")));
    job.loss = Some(LossSpec::new(LossKind::CrossEntropy));
    job.optimizer =
        Some(OptimizerSpec { lr: Some(0.05), momentum: Some(0.9), ..OptimizerSpec::new(OptimizerKind::Sgd) });
    job.freeze = PlanOptions::of("steps").with("steps", "1+3:1,3:0");
    (job.run.threads, job.run.log_every, job.run.ceiling_steps) = (Some(1), 1, 0);
    let data = || Dataset::open(&fixture("freezing/mlp.npz"), &DataOptions::default(), None).unwrap();
    Trainer::with(job, Parts { train: Some(data()), eval: Some(data()), policy, ..Parts::default() }).unwrap()
}

fn on_cpu() -> Result<Box<dyn freeze_plan::runner::Engine>, freeze_plan::trainer::TrainerError> {
    engine(&LocateOptions::default(), &EngineOptions { threads: Some(1), ..EngineOptions::default() }, &mut |_| {})
}

fn losses(events: impl Iterator<Item = RunEvent>) -> Vec<f64> {
    let loss = |event| if let RunEvent::Step { loss, .. } = event { Some(loss) } else { None };
    events.filter_map(loss).collect()
}

#[test]
fn a_run_is_iterated_stopped_and_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let mut whole = trainer(folder.path(), 5).start(Start::New, on_cpu);
    let expected = losses(whole.by_ref());
    assert_eq!(expected.len(), 30);
    let whole = whole.join().unwrap();
    assert!(!whole.outcome.stopped && whole.model.exists() && whole.best_epoch.is_none());

    let folder = tempfile::tempdir().unwrap();
    let mut run = trainer(folder.path(), 5).start(Start::New, on_cpu);
    let mut first = Vec::new();
    while let Some(event) = run.next() {
        if let RunEvent::Step { loss, step, .. } = event {
            first.push(loss);
            if step == 7 {
                run.stop();
            }
        }
    }
    let stopped = run.join().unwrap();
    assert!(stopped.outcome.stopped && (7..30).contains(&first.len()), "{}", first.len());
    let mut run = trainer(folder.path(), 5).start(Start::Resume, on_cpu);
    first.extend(losses(run.by_ref()));
    assert_eq!(first, expected);
    let resumed = run.join().unwrap();
    assert!(resumed.outcome.values == whole.outcome.values && resumed.outcome.slots == whole.outcome.slots);
    assert_eq!(std::fs::read(resumed.model).unwrap(), std::fs::read(whole.model).unwrap());
}

#[test]
fn a_run_that_is_dropped_stops_and_errors_come_with_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = trainer(folder.path(), 1000).start(Start::New, on_cpu);
    assert!(run.any(|event| matches!(event, RunEvent::Step { .. })));
    drop(run);
    let log = std::fs::read_to_string(folder.path().join("run/events.jsonl")).unwrap();
    assert!(log.lines().last().unwrap().contains("\"status\":\"stopped\""));
    let again = trainer(folder.path(), 1000).start(Start::New, on_cpu);
    let error = again.join().unwrap_err();
    assert!(error.to_string().contains("holds an earlier run") && error.remedy().is_some(), "{error}");
    let broken = trainer(folder.path(), 1000).start(Start::Resume, || {
        let options = LocateOptions { runtime: Some("none.so".into()), offline: true, ..LocateOptions::default() };
        engine(&options, &EngineOptions::default(), &mut |_| {})
    });
    assert!(broken.join().unwrap_err().to_string().contains("none.so"));
}

/// Freezes the first unit after some epochs.
struct Settled {
    after: usize,
}

impl Policy for Settled {
    fn name(&self) -> &str {
        "settled"
    }

    fn settings(&self) -> serde_json::Map<String, serde_json::Value> {
        [("after".to_string(), self.after.into())].into_iter().collect()
    }

    fn decide(&self, at: &Moment<'_>) -> Decision {
        let depth = if at.completed < self.after { 0 } else { 1 };
        Decision::of(FrozenSet::prefix(at.units.len(), depth))
    }
}

#[test]
fn a_policy_of_the_caller_trains_and_goes_on() {
    let settled = |after| Some(Box::new(Settled { after }) as Box<dyn Policy>);
    let folder = tempfile::tempdir().unwrap();
    let mut whole = trainer_with(folder.path(), 4, settled(2)).start(Start::New, on_cpu);
    let expected = losses(whole.by_ref());
    let whole = whole.join().unwrap();
    let plan = freeze_plan::plan::read(&folder.path().join("run/plan.json")).unwrap();
    assert_eq!((plan.policy.name.as_str(), &plan.policy.settings["after"]), ("settled", &2.into()));
    let frozen: Vec<usize> = plan.epochs.iter().map(|epoch| epoch.frozen_units).collect();
    assert_eq!(frozen, [0, 0, 1, 1]);
    let job = std::fs::read_to_string(folder.path().join("run/job.toml")).unwrap();
    assert!(job.starts_with("# The policy of this run, \"settled\""), "{job}");

    let folder = tempfile::tempdir().unwrap();
    let mut run = trainer_with(folder.path(), 4, settled(2)).start(Start::New, on_cpu);
    let mut first = Vec::new();
    while let Some(event) = run.next() {
        if let RunEvent::Step { loss, step, .. } = event {
            first.push(loss);
            if step == 14 {
                run.stop();
            }
        }
    }
    assert!(run.join().unwrap().outcome.stopped);
    for other in [settled(3), None] {
        let error = trainer_with(folder.path(), 4, other).start(Start::Resume, on_cpu).join().unwrap_err();
        assert!(error.to_string().contains("the policy was settled {\"after\":2"), "{error}");
    }
    let mut run = trainer_with(folder.path(), 4, settled(2)).start(Start::Resume, on_cpu);
    first.extend(losses(run.by_ref()));
    assert_eq!(first, expected);
    assert!(run.join().unwrap().outcome.values == whole.outcome.values);
}
