//! What a run makes of a plan: freezing and unfreezing within epochs, proof, rollback, rates of single units, phases
//! that come back.

use crate::engines::{engines, golden, onnxruntime};
use crate::runs::{ByStep, Counting, Job, Ran, Victim, Watched, guard, in_order, newest, same_end};
use freeze_plan::data::{BatchOptions, LastBatch, Sampler};
use freeze_plan::error::ErrorKind;
use freeze_plan::graph::Tensor;
use freeze_plan::plan::{BatchNorm, FreezePlan, OnReturn, PlanOptions, Policy, segments, sha256_hex};
use freeze_plan::runner::{Checkpoints, Engine, Freezing, Outcome, RunError, RunEvent, Schedule};
use std::collections::BTreeMap;

/// As in the comparison of whole runs with PyTorch.
const TOLERANCE: f64 = 1e-4;

/// What freezes and returns in the golden, as a list.
fn within_epochs() -> serde_json::Value {
    serde_json::json!([
        {"epoch": 1, "step": 3, "frozen": ["fc1"]},
        {"epoch": 1, "step": 5, "frozen": ["fc1", "fc2"]},
        {"epoch": 2, "step": 2, "frozen": ["fc2"]},
        {"epoch": 2, "step": 4, "frozen": 0},
    ])
}

fn mlp(optimizer: &str) -> Job {
    let golden = golden("freezing/mlp.json");
    let mut options = golden["optimizers"][optimizer].clone();
    options["kind"] = optimizer.into();
    Job::of("freezing/mlp.onnx", "freezing/mlp.npz", ["x", "labels"], in_order(8), options)
}

fn freezing_mlp(optimizer: &str, on_return: OnReturn) -> Job {
    let options = PlanOptions { on_return, warm_up_steps: 3, ..PlanOptions::of("steps") };
    Job { options: options.with("steps", within_epochs()), ..mlp(optimizer) }
}

/// Compares the loss of every step and the parameters at the end with PyTorch's.
fn as_pytorch(ran: &Ran, name: &str) {
    let golden = &golden("freezing/mlp.json")["runs"][name];
    let (losses, expected) = (ran.losses(), golden["losses"].as_array().unwrap());
    assert_eq!(losses.len(), expected.len(), "{name}");
    for (step, (found, expected)) in losses.iter().zip(expected).enumerate() {
        let expected = expected.as_f64().unwrap();
        assert!(
            (found - expected).abs() < TOLERANCE * expected,
            "{name}: the loss of step {} is {found}, PyTorch has {expected}",
            step + 1
        );
    }
    let values = &ran.outcome().values;
    let end = golden["end"].as_object().unwrap();
    assert_eq!(end.len(), 6, "{name}");
    for (parameter, expected) in end {
        let found = values[parameter].to_f64s().unwrap();
        for (found, expected) in found.iter().zip(expected.as_array().unwrap()) {
            let expected = expected.as_f64().unwrap();
            assert!((found - expected).abs() < TOLERANCE, "{name}: {parameter} has {found}, PyTorch {expected}");
        }
    }
}

#[test]
fn what_freezes_and_returns_within_epochs_trains_as_in_pytorch() {
    for mut engine in engines() {
        for (on_return, mode) in [(OnReturn::Reset, "reset"), (OnReturn::Keep, "keep"), (OnReturn::WarmUp, "warm-up")] {
            for optimizer in ["sgd", "adamw"] {
                let ran = freezing_mlp(optimizer, on_return).run(engine.as_mut());
                as_pytorch(&ran, &format!("{optimizer} {mode}"));
                let phases: Vec<(usize, usize, usize)> = ran.events.iter().filter_map(phase).collect();
                assert_eq!(phases, [(1, 0, 0), (1, 3, 2), (1, 5, 4), (2, 2, 2), (2, 4, 0)]);
                assert_eq!(ran.steps(), (1..=12).collect::<Vec<_>>());
            }
        }
    }
}

/// Epoch, steps before and frozen parameters of a phase.
fn phase(event: &RunEvent) -> Option<(usize, usize, usize)> {
    match event {
        RunEvent::Phase { epoch, after, frozen, .. } => Some((*epoch, *after, *frozen)),
        _ => None,
    }
}

#[test]
fn a_plan_without_its_planner_is_followed_as_with_it() {
    let mut engine = onnxruntime();
    let job = freezing_mlp("adamw", OnReturn::Reset);
    let plan = job.basis(None).plan().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.json");
    freeze_plan::plan::write(&path, &plan).unwrap();
    let written = freeze_plan::plan::read(&path).unwrap();
    let ran = job.follow(&mut engine, Freezing::of(&written), &mut |_| {});
    as_pytorch(&ran, "adamw reset");
    assert_eq!(ran.outcome().plan, written);
    assert_eq!(segments(&plan).len(), 5);
}

#[test]
fn frozen_values_stay_to_the_bit_and_others_start_from_where_they_ended() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = freezing_mlp("adamw", OnReturn::Keep);
    job.checkpoints = Some(Checkpoints::after_epochs(folder.path().to_path_buf()));
    // A run that stops shows the state there.
    let mut at = |step: usize| {
        job.stop_after = Some(step);
        let ran = job.run(&mut onnxruntime());
        assert!(ran.outcome().stopped);
        let saved = newest(folder.path());
        assert_eq!(saved.step, step as u64);
        assert!(ran.outcome().values.iter().all(|(name, value)| saved.tensors()[name] == *value));
        saved.tensors()
    };
    let frozen = golden("freezing/mlp.json")["frozen"].clone();
    let states: Vec<(usize, BTreeMap<String, Tensor>)> = [2, 3, 4, 5, 7, 8, 10, 11].map(|step| (step, at(step))).into();
    for pair in states.windows(2) {
        let [(start, before), (end, after)] = pair else { unreachable!() };
        let layers: Vec<&str> = frozen[*start].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        assert_eq!(frozen[*start], frozen[end - 1], "one frozen set from {start} to {end}");
        for (name, value) in before {
            let held = layers.iter().any(|layer| name.starts_with(&format!("{layer}.")));
            assert_eq!(after[name] == *value, held, "{name} from {start} to {end}");
        }
    }
}

#[test]
fn slots_start_anew_with_their_own_count_of_steps() {
    let mut engine = onnxruntime();
    let mut job = freezing_mlp("adamw", OnReturn::Reset);
    job.optimizer.weight_decay = Some(0.0);
    let state = |stop_after, engine: &mut dyn Engine, job: &mut Job| {
        job.stop_after = stop_after;
        job.run(engine).outcome().values["fc1.weight"].to_f64s().unwrap()
    };
    let (before, after) = (state(Some(8), &mut engine, &mut job), state(Some(9), &mut engine, &mut job));
    // The first step of Adam has the length of the learning rate in each element, but for its epsilon.
    for (before, after) in before.iter().zip(&after) {
        let moved = (after - before).abs();
        assert!((0.0199..0.020001).contains(&moved), "{before} {after}");
    }
}

#[test]
fn sums_of_an_epoch_are_those_of_its_steps_whatever_changes_within() {
    let mut engine = onnxruntime();
    for (accumulate, rows) in [(1, 8), (2, 8), (4, 7)] {
        let mut job = freezing_mlp("sgd", OnReturn::Reset);
        let data = "freezing/mlp.npz";
        let options = serde_json::json!({"kind": "sgd", "lr": 0.2, "momentum": 0.9, "weight_decay": 0.01});
        let fresh = Job::of("freezing/mlp.onnx", data, ["x", "labels"], in_order(rows), options);
        (job.train, job.accumulate) = (fresh.train, accumulate);
        let steps = job.steps_per_epoch();
        let list =
            serde_json::json!([{"epoch": 1, "step": 1, "frozen": 1}, {"epoch": 2, "step": steps - 1, "frozen": 2}]);
        job.options = PlanOptions::of("steps").with("steps", list);
        let ran = job.run(&mut engine);
        assert_eq!(ran.steps(), (1..=2 * steps).collect::<Vec<_>>());
        for epoch in 1..=2 {
            let rows = |step: usize| -> usize {
                (step * accumulate..((step + 1) * accumulate).min(job.train.len()))
                    .map(|at| job.train.rows_of(at))
                    .sum()
            };
            let own = &ran.losses()[(epoch - 1) * steps..epoch * steps];
            let expected = own.iter().enumerate().map(|(step, loss)| loss * rows(step) as f64).sum::<f64>() / 48.0;
            let found = ran.events.iter().find_map(|event| match event {
                RunEvent::Epoch { epoch: own, train_loss, .. } if *own == epoch => Some(*train_loss),
                _ => None,
            });
            assert!((found.unwrap() - expected).abs() < 1e-9, "epoch {epoch} of {accumulate}: {found:?} {expected}");
        }
    }
}

#[test]
fn a_frozen_value_that_moves_stops_the_run_by_name() {
    let digits = || {
        let options = serde_json::json!({"kind": "sgd", "lr": 0.05, "momentum": 0.9});
        Job::of("digits/model.onnx", "parity/digits.npz", ["images", "labels"], in_order(8), options)
    };
    let mlp = Job { options: PlanOptions::of("steps").with("steps", "1+3:1"), ..mlp("sgd") };
    let whole = digits();
    let first = whole.basis(None).plan().unwrap().units[1].parameters[0].replace("weight", "running_mean");
    let options = PlanOptions { batch_norm: BatchNorm::Frozen, ..PlanOptions::of("steps") };
    let digits = Job { options: options.with("steps", "2:4"), ..digits() };
    // The running mean starts as the bias of its BatchNormalization does, and is uploaded after it.
    for (job, victim, skip, epochs) in [(&mlp, "fc1.weight", 0, (1, 2)), (&digits, first.as_str(), 1, (2, 2))] {
        let start = {
            let graph = &job.prepared.model.graph;
            graph.value(graph.find(victim).unwrap_or_else(|| panic!("{victim}"))).initializer.clone().unwrap()
        };
        let mut inner = onnxruntime();
        // Two runs a step and those of the evaluation: in the middle of the last epoch.
        let evaluations = job.train.len();
        let run = 2 * job.steps_per_epoch() + evaluations + 5;
        let mut engine = Watched::new(&mut inner, Some(Victim { start, skip, run }));
        let ran = job.run(&mut engine);
        match &ran.result {
            Err(error @ RunError::Moved { name, from, to, before, after }) => {
                assert_eq!((name.as_str(), *from, *to), (victim, epochs.0, epochs.1));
                assert_ne!(before, after);
                assert_eq!(error.kind(), ErrorKind::Check);
            }
            other => panic!("{victim}: {:?}", other.as_ref().map(|_| "it went on")),
        }
        assert_eq!(ran.count(|event| matches!(event, RunEvent::Proof { .. })), 0, "{victim}");
    }
}

#[test]
fn a_proof_can_be_computed_from_the_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let options = serde_json::json!({"kind": "sgd", "lr": 0.05, "momentum": 0.9});
    let mut job = Job::of("digits/model.onnx", "parity/digits.npz", ["images", "labels"], in_order(8), options);
    let options = PlanOptions { batch_norm: BatchNorm::Frozen, ..PlanOptions::of("steps") };
    job.options = options.with("steps", "2:2,3+2:4");
    (job.epochs, job.checkpoints) = (3, Some(Checkpoints::after_epochs(folder.path().to_path_buf())));
    let ran = job.run(&mut onnxruntime());
    let plan = &ran.outcome().plan;
    let tensors = newest(folder.path()).tensors();
    let proofs: Vec<&RunEvent> = ran.events.iter().filter(|event| matches!(event, RunEvent::Proof { .. })).collect();
    let parts = segments(plan);
    assert_eq!((proofs.len(), parts.len()), (2, 3));
    for (proof, (segment, ends)) in proofs.iter().zip(parts[1..].iter().zip([(2, 3), (3, 3)])) {
        let RunEvent::Proof { from_epoch, to_epoch, parameters, statistics, sha256 } = proof else { unreachable!() };
        assert_eq!((*from_epoch, *to_epoch), ends);
        assert_eq!((*parameters, *statistics), (segment.frozen.len(), segment.statistics.len()));
        assert!(!segment.statistics.is_empty());
        let line = |name: &String| format!("{}  {name}\n", sha256_hex(tensors[name].bytes()));
        let lines: String = segment.frozen.iter().chain(&segment.statistics).map(line).collect();
        assert_eq!(sha256_hex(lines.as_bytes()), *sha256);
    }
}

/// Six epochs of the network of digits in an order of its own in each epoch, with rates that fall after the second.
fn guarded(rollback: Option<freeze_plan::plan::Rollback>) -> Job {
    let options = serde_json::json!({"kind": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4});
    let rows = BatchOptions { size: 8, seed: 3, sampler: Sampler::Shuffle, last_batch: LastBatch::Drop };
    let mut job = Job::of("digits/model.onnx", "parity/digits.npz", ["images", "labels"], rows, options);
    job.schedule = Schedule::step(2, 1e-3);
    job.options = PlanOptions { rollback, on_return: OnReturn::Reset, ..PlanOptions::of("none") };
    job.epochs = 6;
    job
}

/// Freezes the first three units after so many steps, and makes what still trains jump. Before, the first unit
/// freezes in the second step of the run and returns in the third.
fn jumping(steps: usize, delayed: usize) -> Option<Box<dyn Policy>> {
    let mut frozen = vec![(1, vec![0]), (2, Vec::new())];
    if delayed > 0 {
        frozen.extend([(delayed + 1, vec![0]), (delayed + 2, Vec::new())]);
    }
    let steps = steps + delayed;
    frozen.push((steps, vec![0, 1, 2]));
    let scale = move |step: usize, _: usize| if step >= steps { 100.0 } else { 1.0 };
    Some(Box::new(ByStep { frozen, scale: Some(Box::new(scale)) }))
}

/// Epoch that is judged, where the run goes back to, and delay, for each rollback.
fn rollbacks(ran: &Ran) -> Vec<(usize, usize, usize, usize)> {
    let back = |event: &RunEvent| match event {
        RunEvent::Rollback { epoch, to_epoch, to_step, metric, before, after, delay } => {
            assert!(metric == "loss" && after.is_none_or(|after| after > before + 0.05));
            Some((*epoch, *to_epoch, *to_step, *delay))
        }
        _ => None,
    };
    ran.events.iter().filter_map(back).collect()
}

#[test]
fn a_freeze_that_hurts_is_taken_back_and_comes_later() {
    for (accumulate, offset, on_return) in [(1, 0, OnReturn::Reset), (1, 2, OnReturn::WarmUp), (2, 1, OnReturn::Keep)] {
        let folder = tempfile::tempdir().unwrap();
        let with = |rollback| {
            let mut job = guarded(rollback);
            (job.accumulate, job.options.on_return, job.options.warm_up_steps) = (accumulate, on_return, 8);
            job
        };
        let mut job = with(guard("loss", 0.05, 2));
        job.checkpoints = Some(Checkpoints::after_epochs(folder.path().to_path_buf()));
        let mut saved = Vec::new();
        let mut look = |event: &RunEvent| {
            if matches!(event, RunEvent::Checkpoint { .. }) {
                saved.push(newest(folder.path()));
            }
        };
        let steps = job.steps_per_epoch();
        let freeze = steps + offset;
        let ran = job.run_on(&mut onnxruntime(), jumping(freeze, 0), &mut look);
        assert_eq!(rollbacks(&ran), [(2, 2, freeze, 2)]);
        assert_eq!((saved[1].epoch, saved[1].step), (if offset == 0 { 1 } else { 2 }, freeze as u64));
        if offset == 0 {
            assert_eq!(saved[0].groups, saved[1].groups, "the state after the rollback is that before the freeze");
            assert_eq!((saved[0].epoch, saved[0].step), (saved[1].epoch, saved[1].step));
            let history =
                |at: usize| serde_json::from_str::<serde_json::Value>(&saved[at].state).unwrap()["history"].clone();
            assert_eq!(history(0), history(1));
        }
        let expected: Vec<usize> = (1..=2 * steps).chain(freeze + 1..=6 * steps).collect();
        assert_eq!(ran.steps(), expected, "what came after the freeze is repeated");
        // The same run without guard in which the policy starts two epochs later.
        let plain = with(None).run_on(&mut onnxruntime(), jumping(freeze, 2 * steps), &mut |_| {});
        same_end(&ran, &plain);
        assert_eq!(
            ran.losses()[2 * steps..],
            plain.losses()[freeze..],
            "rows, rates and statistics are as the first time"
        );
        assert_eq!(ran.outcome().history, plain.outcome().history);
        let frozen = |ran: &Ran| segments(&ran.outcome().plan);
        assert_eq!(frozen(&ran), frozen(&plain), "the plan is the one that was followed");
        let phases = |ran: &Ran| ran.events.iter().filter_map(phase).collect::<Vec<_>>();
        let own = phases(&ran);
        let count = own[3].2;
        assert_eq!(own[3], (2, offset, count));
        assert_eq!(own[4], (2, offset, 0), "the earlier set trains again");
        assert_eq!(own[7..], [(4, offset, count)], "the freeze comes two epochs later");
        assert_eq!(own[5..], phases(&plain)[3..]);
    }
}

#[test]
fn what_is_measured_is_measured_once_wherever_the_run_goes_back_to() {
    let mut engine = onnxruntime();
    let policy =
        |measurements, jump| -> Option<Box<dyn Policy>> { Some(Box::new(Counting { every: 3, measurements, jump })) };
    // The freeze comes after 9 of 30 steps, goes back there, and waits for the two epochs to pass: 19 steps are in no
    // list of points, the next one begins an epoch.
    let ran = guarded(guard("loss", 0.05, 2)).run_on(&mut engine, policy(3, 9), &mut |_| {});
    assert_eq!(rollbacks(&ran), [(2, 2, 9, 2)]);
    let phases: Vec<(usize, usize, usize)> = ran.events.iter().filter_map(phase).collect();
    assert_eq!(phases, [(1, 0, 0), (2, 4, 4), (2, 4, 0), (5, 0, 4)]);
    let observations = &ran.outcome().history.observations;
    let steps: Vec<usize> = observations.iter().map(|observation| observation.step).collect();
    assert_eq!(steps, (1..10).map(|index| 3 * index).collect::<Vec<_>>());
    let losses = [&ran.losses()[..9], &ran.losses()[10..]].concat();
    assert_eq!(losses.len(), 30);
    for (observation, losses) in observations.iter().zip(losses.chunks(3)) {
        let mean = losses.iter().sum::<f64>() / 3.0;
        assert!((observation.loss - mean).abs() < 1e-9 * mean, "{} {mean}", observation.loss);
    }
    let free = guarded(None).run_on(&mut engine, policy(100, 100), &mut |_| {});
    assert_eq!(observations[..6], free.outcome().history.observations[..6], "before anything freezes");
    let scale = |step: usize, _: usize| if step >= 19 { 100.0 } else { 1.0 };
    let plain = ByStep { frozen: vec![(20, vec![0, 1, 2])], scale: Some(Box::new(scale)) };
    same_end(&ran, &guarded(None).run_on(&mut engine, Some(Box::new(plain)), &mut |_| {}));
    // Measured in the last step of an epoch: the next one begins with what was decided.
    let policy = Counting { every: 5, measurements: 2, jump: 100 };
    let ran = guarded(None).run_on(&mut engine, Some(Box::new(policy)), &mut |_| {});
    let phases: Vec<(usize, usize, usize)> = ran.events.iter().filter_map(phase).collect();
    assert_eq!(phases, [(1, 0, 0), (3, 0, 4)]);
    let Outcome { plan, history, .. } = ran.outcome();
    assert_eq!(history.observations.len(), 5);
    assert_eq!(plan.epochs.iter().map(|epoch| epoch.frozen.len()).collect::<Vec<_>>(), [0, 0, 4, 4, 4, 4]);
    assert_eq!(plan.last.frozen, plan.epochs[5].frozen, "the decision after the last epoch is the run's");
}

#[test]
fn a_guard_that_never_acts_changes_nothing() {
    let free = guarded(None).run_on(&mut onnxruntime(), jumping(17, 0), &mut |_| {});
    let watched = guarded(guard("accuracy", 1.0, 1)).run_on(&mut onnxruntime(), jumping(17, 0), &mut |_| {});
    same_end(&free, &watched);
    assert_eq!(free.losses(), watched.losses());
    assert_eq!(segments(&free.outcome().plan), segments(&watched.outcome().plan));
    assert!(rollbacks(&watched).is_empty());
}

#[test]
fn a_metric_that_nobody_measures_is_refused_before_the_first_step() {
    for (metric, eval, known) in [("f1", true, "accuracy, loss"), ("accuracy", false, "no eval data")] {
        let job = Job { eval, ..guarded(guard(metric, 0.1, 1)) };
        let ran = job.run_on(&mut onnxruntime(), jumping(5, 0), &mut |_| {});
        assert_eq!(ran.steps().len(), 0, "{metric}");
        let error = ran.result.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(metric) && text.contains(known), "{text}");
        assert_eq!(error.kind(), ErrorKind::Usage);
    }
}

#[test]
fn rates_of_units_are_followed_from_step_to_step_as_in_pytorch() {
    for optimizer in ["sgd", "adamw"] {
        for mut engine in engines() {
            let job = mlp(optimizer);
            let scale = |step: usize, unit: usize| (1 + (step + unit) % 3) as f64 / 4.0;
            let policy = ByStep { frozen: Vec::new(), scale: Some(Box::new(scale)) };
            as_pytorch(
                &job.run_on(engine.as_mut(), Some(Box::new(policy)), &mut |_| {}),
                &format!("{optimizer} rates"),
            );
        }
        let job = mlp(optimizer);
        let mut plan = job.basis(None).plan().unwrap();
        plan.epochs[1].lr_scale = [("fc1.weight".to_string(), 0.0), ("fc1.bias".to_string(), 0.0)].into();
        let ran = job.follow(&mut onnxruntime(), Freezing::of(&plan), &mut |_| {});
        as_pytorch(&ran, &format!("{optimizer} zero"));
    }
}

#[test]
fn a_policy_that_anneals_leaves_no_room_for_a_schedule() {
    let mut job = mlp("sgd");
    job.options = PlanOptions::of("freezeout");
    job.schedule = Schedule::cosine(0.0, 0);
    let ran = job.run(&mut onnxruntime());
    assert_eq!(ran.steps().len(), 0);
    let error = ran.result.unwrap_err();
    assert!(matches!(error, RunError::Anneals { .. }) && error.to_string().contains("[schedule]"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Usage);
    job.schedule = Schedule::default();
    (job.epochs, job.options) = (4, PlanOptions::of("freezeout").with("t_0", 0.5));
    let basis = job.basis(None);
    let (plan, planner) = (basis.plan().unwrap(), basis.planner().unwrap());
    let ran = job.run(&mut onnxruntime());
    let parts = segments(&plan);
    assert!(parts.len() > 1 && ran.outcome().plan == plan);
    // The rate of a unit falls to zero as its freeze comes.
    let first = parts[1].start();
    let rate = |epoch, after| {
        let at = freeze_plan::plan::Point { epoch, after };
        let scales = planner.lr_scale(at, &Default::default(), 0).unwrap().unwrap();
        scales.into_iter().find(|(name, _)| *name == parts[1].frozen[0]).unwrap().1
    };
    let before = if first.after > 0 { rate(first.epoch, first.after - 1) } else { rate(first.epoch - 1, 5) };
    let (start, end) = (rate(1, 0), rate(first.epoch, first.after));
    assert!((start - 8.0).abs() < 1e-9 && before < 0.1 && end == 0.0, "{start} {before} {end}");
}

/// Counts the graphs that an engine loads.
fn loads(job: &Job, plan: &FreezePlan) -> (Ran, usize) {
    let mut inner = onnxruntime();
    let mut engine = Watched::new(&mut inner, None);
    let ran = job.follow(&mut engine, Freezing::of(plan), &mut |_| {});
    let loads = engine.loads;
    (ran, loads)
}

#[test]
fn phases_that_come_back_keep_their_sessions_and_train_the_same() {
    let mut job = mlp("adamw");
    job.options = PlanOptions::of("cyclic").with("every", 1);
    job.epochs = 4;
    let plan = job.basis(None).plan().unwrap();
    assert_eq!(segments(&plan).len(), 24);
    let (kept, loaded) = loads(&job, &plan);
    // The eval graph, then a train and an optimizer graph for each of the three sets.
    assert_eq!(loaded, 7);
    let seconds: Vec<f64> = kept
        .events
        .iter()
        .filter_map(|event| match event {
            RunEvent::Phase { seconds, .. } => Some(*seconds),
            _ => None,
        })
        .collect();
    assert_eq!(seconds.len(), 24);
    eprintln!("seconds of phases: {seconds:.5?}");
    // With a name that is no parameter in each, no set comes twice, and all graphs are made anew.
    let mut unique = plan.clone();
    for (number, entry) in unique
        .epochs
        .iter_mut()
        .flat_map(|epoch| {
            let mut own = vec![(&mut epoch.frozen, epoch.after)];
            own.extend(epoch.changes.iter_mut().map(|change| (&mut change.frozen, change.after)));
            own
        })
        .map(|(frozen, _)| frozen)
        .enumerate()
    {
        entry.push(format!("nobody.{number}"));
    }
    let (rebuilt, loaded) = loads(&job, &unique);
    assert_eq!(loaded, 1 + 2 * 24);
    let worst = kept.losses().iter().zip(rebuilt.losses()).map(|(a, b)| (a - b).abs() / b).fold(0.0, f64::max);
    assert!(worst < 1e-6, "{worst}");
    eprintln!("kept sessions differ from rebuilt ones by {worst:.1e}");
    for (name, value) in &kept.outcome().values {
        assert!(crate::engines::deviation(value, &rebuilt.outcome().values[name]) < 1e-5, "{name}");
    }
}

#[test]
fn more_sets_come_back_than_are_kept() {
    let mut job = mlp("sgd");
    (job.epochs, job.options) = (6, PlanOptions { on_return: OnReturn::Keep, ..PlanOptions::of("none") });
    let names = ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias", "fc3.weight"];
    let mut plan = job.basis(None).plan().unwrap();
    let template = plan.epochs[0].clone();
    // 18 sets, twice over.
    let set = |number: usize| -> Vec<String> {
        names
            .iter()
            .enumerate()
            .filter(|(bit, _)| (number % 18) >> bit & 1 == 1)
            .map(|(_, name)| name.to_string())
            .collect()
    };
    for (index, epoch) in plan.epochs.iter_mut().enumerate() {
        epoch.frozen = set(index * 6);
        let change = |after: usize| {
            let epoch = index + 1;
            freeze_plan::plan::EpochPlan { epoch, after, frozen: set(index * 6 + after), ..template.clone() }
        };
        epoch.changes = (1..6).map(change).collect();
    }
    let (ran, loaded) = loads(&job, &plan);
    assert_eq!(ran.steps().len(), 36);
    assert!(loaded > 1 + 2 * 18, "{loaded} graphs: 16 sets of 18 are kept");
    assert_eq!(ran.count(|event| matches!(event, RunEvent::Phase { .. })), 36);
}

#[test]
fn a_stop_within_an_epoch_ends_with_a_proof_of_what_was_frozen_until_then() {
    let mut engine = onnxruntime();
    let mut job = freezing_mlp("sgd", OnReturn::Reset);
    (job.epochs, job.stop_after) = (5, Some(5));
    let ran = job.run(&mut engine);
    assert!(ran.outcome().stopped);
    assert_eq!(ran.steps(), [1, 2, 3, 4, 5]);
    let proofs: Vec<_> = ran.events.iter().filter(|event| matches!(event, RunEvent::Proof { .. })).collect();
    assert!(matches!(proofs[..], [RunEvent::Proof { from_epoch: 1, to_epoch: 1, parameters: 2, .. }]), "{proofs:?}");
    // A stop in the last step of an epoch: the epoch is over, and counts.
    job.stop_after = Some(6);
    let ran = job.run(&mut engine);
    assert!(ran.outcome().stopped);
    assert_eq!((ran.steps().len(), ran.outcome().history.epochs.len()), (6, 1));
    assert_eq!(ran.count(|event| matches!(event, RunEvent::Epoch { .. })), 1);
}
