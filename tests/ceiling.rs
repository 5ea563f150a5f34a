//! The ceiling check leaves a run bit for bit as it is without it, on every engine.

use crate::engines::{engines, fixture};
use freeze_plan::data::{self, BatchOptions, Batches, Dataset, LastBatch, Sampler, Wanted};
use freeze_plan::graph::Tensor;
use freeze_plan::losses::{LossKind, LossSpec};
use freeze_plan::modules::UnitKind;
use freeze_plan::onnx::read;
use freeze_plan::optim::OptimizerSpec;
use freeze_plan::plan::PlanOptions;
use freeze_plan::planner::{Analysis, Basis, Request};
use freeze_plan::runner::{Ceiling, Engine, Freezing, RunEvent, Schedule, Setup, train};
use freeze_plan::training::{Objective, Own, Recompute, names, prepare, target_fact};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

const ROWS: usize = 20;

struct Job {
    folder: &'static str,
    optimizer: serde_json::Value,
    options: PlanOptions,
    accumulate: usize,
}

#[derive(PartialEq)]
struct Trained {
    losses: Vec<f64>,
    metrics: BTreeMap<String, f64>,
    values: BTreeMap<String, Tensor>,
    slots: BTreeMap<String, Tensor>,
}

/// Returns the first rows of a column, so that a run takes a few steps.
fn short(feed: data::Feed) -> data::Feed {
    let column = feed.source.whole(feed.column).unwrap().clone();
    let row: usize = column.shape()[1..].iter().product::<usize>() * column.dtype().size();
    let shape = [&[ROWS], &column.shape()[1..]].concat();
    let column = Tensor::new(column.dtype(), shape, column.bytes().slice(..ROWS * row)).unwrap();
    data::Feed::of(&feed.input, column, feed.dtype)
}

fn run(job: &Job, engine: &mut dyn Engine, ceiling_steps: usize) -> (Trained, Vec<RunEvent>) {
    let file = read(&fixture(&format!("{}/model.onnx", job.folder))).unwrap();
    let analysis = Analysis::of(&file.model);
    let prepared = prepare(&analysis).unwrap();
    let loss = LossSpec::new(LossKind::CrossEntropy);
    let optimizer: OptimizerSpec = serde_json::from_value(job.optimizer.clone()).unwrap();
    let dataset = Dataset::open(&fixture("digits/train.npz"), &Default::default(), None).unwrap();
    let input = prepared.model.graph.find("x").unwrap();
    let wanted = |column: &str, input: &str, fact| Wanted { column: column.into(), input: input.into(), fact };
    let wanted = [
        wanted("images", "x", prepared.model.graph.fact(input).clone()),
        wanted("labels", names::TARGET, target_fact(&prepared, &loss, None).unwrap()),
    ];
    let feeds = data::check(&dataset, &wanted).unwrap().into_iter().map(short).collect();
    let options = BatchOptions { size: 8, seed: 0, sampler: Sampler::Shuffle, last_batch: LastBatch::Keep };
    let batches = Batches::new(feeds, options).unwrap();
    let sizes = [("batch".to_string(), 8)].into();
    let steps_per_epoch = batches.len().div_ceil(job.accumulate);
    let options = &job.options;
    let request = Request { epochs: 2, steps_per_epoch, options, slots: 1, own_slots: Default::default(), sizes };
    let basis = Basis::of(&file, &analysis, &request).unwrap();
    let planner = basis.planner().unwrap();
    let plan = planner.plan().unwrap();
    let setup = Setup {
        prepared: &prepared,
        freezing: Freezing::with(&plan, &planner, options).checked_on(ceiling_steps),
        objective: Objective::Own(Own { loss: &loss, output: None, optimizer: &optimizer }),
        schedule: &Schedule::default(),
        evaluation: &Default::default(),
        train: &batches,
        eval: Some(&batches),
        loading: None,
        checkpoints: None,
        resume: None,
        seed: 3,
        recompute: &Recompute::None,
        log_every: 1,
        accumulate: job.accumulate,
        nonfinite: Default::default(),
        ema: None,
        operators: freeze_plan::runner::Operators::Own,
        computing: Default::default(),
    };
    let (mut events, mut losses) = (Vec::new(), Vec::new());
    let mut report = |event: RunEvent| {
        if let RunEvent::Step { loss, .. } = event {
            losses.push(loss);
        }
        events.push(event);
    };
    let outcome = train(engine, &setup, &mut report, &AtomicBool::new(false)).unwrap();
    let trained = Trained { losses, metrics: outcome.metrics, values: outcome.values, slots: outcome.slots };
    (trained, events)
}

fn ceiling_of(event: &RunEvent) -> Option<&Ceiling> {
    match event {
        RunEvent::Ceiling(ceiling) => Some(ceiling),
        _ => None,
    }
}

fn jobs() -> [Job; 2] {
    let sgd = serde_json::json!({"kind": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4});
    let adamw = serde_json::json!({"kind": "adamw", "lr": 2e-3});
    let early = || PlanOptions::default().with("freeze_start", 0.0).with("freeze_level", 0.9);
    let kept = PlanOptions { freeze: vec!["conv1".into()], unit: Some(UnitKind::Block), ..early() };
    let warm = PlanOptions { on_return: freeze_plan::plan::OnReturn::WarmUp, ..early() };
    [
        Job { folder: "digits", optimizer: sgd, options: kept, accumulate: 2 },
        Job { folder: "digits_vit", optimizer: adamw, options: warm, accumulate: 1 },
    ]
}

#[test]
fn a_checked_run_is_the_run_without_the_check() {
    for mut engine in engines() {
        // The transformer takes minutes on the embedded engine of a debug build.
        let most = if engine.info().name == "tract" { 1 } else { 2 };
        for (number, job) in jobs().iter().take(most).enumerate() {
            let (plain, events) = run(job, engine.as_mut(), 0);
            let added = |event: &&RunEvent| {
                matches!(event, RunEvent::Ceiling(_) | RunEvent::Speed { .. } | RunEvent::Gain { .. })
            };
            assert_eq!(events.iter().filter(added).count(), 0);
            let (checked, events) = run(job, engine.as_mut(), 3);
            assert!(checked == plain, "job {number} on {}", engine.info().name);
            let mut found = events.iter().filter_map(ceiling_of);
            let (Some(ceiling), None) = (found.next(), found.next()) else { panic!("job {number}: not one ceiling") };
            assert!(ceiling.measured_steps >= 1 && ceiling.measured_steps <= 3 && !ceiling.upper_bound);
            assert!((0.0..=1.0).contains(&ceiling.share) && ceiling.step_seconds > 0.0);
            let phases = events.iter().filter(|event| matches!(event, RunEvent::Phase { .. })).count();
            assert_eq!(ceiling.changes + 1, phases, "job {number}");
            let steps = events.iter().map(|event| if let RunEvent::Speed { steps, .. } = event { *steps } else { 0 });
            assert_eq!(steps.sum::<usize>(), plain.losses.len(), "job {number}");
            assert_eq!(events.iter().filter(|event| matches!(event, RunEvent::Gain { .. })).count(), 1);
        }
    }
}

#[test]
fn an_adaptive_policy_gets_an_upper_bound_and_none_gets_nothing() {
    let mut engine = engines().remove(0);
    let sgd = serde_json::json!({"kind": "sgd", "lr": 0.1});
    let job =
        |policy| Job { folder: "digits", optimizer: sgd.clone(), options: PlanOptions::of(policy), accumulate: 1 };
    let (_, events) = run(&job("none"), engine.as_mut(), 3);
    assert!(!events.iter().any(|event| matches!(event, RunEvent::Ceiling(_))));
    let (plain, _) = run(&job("plasticity"), engine.as_mut(), 0);
    let (checked, events) = run(&job("plasticity"), engine.as_mut(), 3);
    assert!(checked == plain);
    let bound = events.iter().find_map(ceiling_of).unwrap();
    assert!(bound.upper_bound && bound.flops_gain > 0.1 && bound.changes == 1, "{bound:?}");
}
