//! Training in simulated bfloat16 and float16: against float32, against PyTorch's autocast, and with a scaled loss.

use super::super::{Computing, LossScale, Precision, ScaleMode};
use crate::checkpoint::Store;
use crate::data::{self, BatchOptions, Batches, Dataset, LastBatch, Sampler, Wanted};
use crate::graph::Tensor;
use crate::losses::{LossKind, LossSpec};
use crate::onnx::read;
use crate::optim::{OptimizerKind, OptimizerSpec};
use crate::plan::FreezePlan;
use crate::planner::Analysis;
use crate::runner::testing::{linear, onnxruntime};
use crate::runner::{Checkpoints, Ema, Freezing, Nonfinite, OnNonfinite, RunError, RunEvent, Schedule, Setup, train};
use crate::training::{Objective, Own, Prepared, names, prepare, target_fact};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

fn golden(name: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(fixture(name)).unwrap()).unwrap()
}

/// A model with its data and how it is trained.
struct Case {
    prepared: Prepared,
    plan: FreezePlan,
    batches: Batches,
    loss: LossSpec,
    optimizer: OptimizerSpec,
    computing: Computing,
    nonfinite: Nonfinite,
    ema: Option<Ema>,
}

/// What a run came to.
struct Trained {
    losses: Vec<f64>,
    events: Vec<RunEvent>,
    values: BTreeMap<String, Tensor>,
}

impl Case {
    fn of(model: &str, data: &str, epochs: usize, batch: usize, optimizer: OptimizerSpec) -> Case {
        let file = read(&fixture(model)).unwrap();
        let prepared = prepare(&Analysis::of(&file.model)).unwrap();
        let loss = LossSpec::new(LossKind::CrossEntropy);
        let dataset = Dataset::open(&fixture(data), &Default::default(), None).unwrap();
        let input = prepared.model.graph.find("x").unwrap();
        let wanted = |column: &str, input: &str, fact| Wanted { column: column.into(), input: input.into(), fact };
        let wanted = [
            wanted("images", "x", prepared.model.graph.fact(input).clone()),
            wanted("labels", names::TARGET, target_fact(&prepared, &loss, None).unwrap()),
        ];
        let options = BatchOptions { size: batch, seed: 0, sampler: Sampler::Sequential, last_batch: LastBatch::Keep };
        let batches = Batches::new(data::check(&dataset, &wanted).unwrap(), options).unwrap();
        let plan = linear(&prepared, epochs, 1.0, 0.0);
        let computing = Computing::default();
        Case { prepared, plan, batches, loss, optimizer, computing, nonfinite: Nonfinite::default(), ema: None }
    }

    /// Returns the case in a simulated precision.
    fn in_precision(mut self, precision: Precision) -> Case {
        self.computing = Computing { simulated: true, ..Computing::of(precision) };
        self
    }

    fn run(&self, folder: Option<&Path>, stop_at: Option<usize>, goes_on: bool) -> Result<Trained, RunError> {
        let schedule = Schedule::default();
        let objective = Objective::Own(Own { loss: &self.loss, output: None, optimizer: &self.optimizer });
        let resume =
            folder.filter(|_| goes_on).map(|folder| Store::new(folder, 2).latest().unwrap().unwrap().checkpoint);
        let setup = Setup {
            checkpoints: folder.map(|folder| Checkpoints::after_epochs(folder.into())),
            resume: resume.as_ref(),
            nonfinite: self.nonfinite,
            ema: self.ema,
            computing: self.computing.clone(),
            ..Setup::of(&self.prepared, Freezing::of(&self.plan), objective, &schedule, &self.batches)
        };
        let stop = AtomicBool::new(false);
        let mut trained = Trained { losses: Vec::new(), events: Vec::new(), values: BTreeMap::new() };
        let mut report = |event: RunEvent| {
            match &event {
                RunEvent::Step { loss, step, .. } => {
                    trained.losses.push(*loss);
                    stop.fetch_or(stop_at.is_some_and(|at| *step >= at), std::sync::atomic::Ordering::Relaxed);
                }
                RunEvent::LossScale { step, .. } => {
                    stop.fetch_or(stop_at.is_some_and(|at| *step >= at), std::sync::atomic::Ordering::Relaxed);
                }
                _ => {}
            }
            trained.events.push(event);
        };
        let outcome = train(&mut onnxruntime(), &setup, &mut report, &stop)?;
        trained.values = outcome.values;
        trained.values.extend(outcome.slots);
        Ok(trained)
    }
}

fn sgd(lr: f64) -> OptimizerSpec {
    OptimizerSpec { lr: Some(lr), momentum: Some(0.9), ..OptimizerSpec::new(OptimizerKind::Sgd) }
}

fn digits() -> Case {
    Case::of("digits/model.onnx", "parity/digits.npz", 10, 8, sgd(0.02))
}

/// The mean over steps of how far losses are from others, relative to them.
fn apart(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let each = found.iter().zip(expected).map(|(found, expected)| (found - expected).abs() / expected.abs());
    each.sum::<f64>() / found.len() as f64
}

#[test]
fn low_precision_trains_as_float32_does() {
    struct Model {
        model: &'static str,
        data: &'static str,
        epochs: usize,
        optimizer: OptimizerSpec,
        /// How far the losses of bfloat16 and of float16 may be from those of float32, the mean over the steps: about three
        /// times what they are. The first model trains fastest, which parts two runs further.
        bounds: [f64; 2],
    }
    let adamw = OptimizerSpec { lr: Some(1e-3), ..OptimizerSpec::new(OptimizerKind::AdamW) };
    let models = [
        Model {
            model: "digits/model.onnx",
            data: "parity/digits.npz",
            epochs: 10,
            optimizer: sgd(0.02),
            bounds: [2.5e-2, 1.5e-2],
        },
        Model {
            model: "parity/resnet8.onnx",
            data: "parity/resnet8.npz",
            epochs: 10,
            optimizer: sgd(0.005),
            bounds: [1e-3, 5e-4],
        },
        Model {
            model: "digits_vit/model.onnx",
            data: "parity/digits.npz",
            epochs: 10,
            optimizer: adamw,
            bounds: [6e-3, 5e-4],
        },
    ];
    let mut failures = Vec::new();
    for Model { model, data, epochs, optimizer, bounds } in models {
        let case = || Case::of(model, data, epochs, 8, optimizer.clone());
        let full = case().run(None, None, false).unwrap();
        assert_eq!(full.losses.len(), 50, "{model}");
        for (precision, bound) in [Precision::Bf16, Precision::Fp16].into_iter().zip(bounds) {
            let low = case().in_precision(precision).run(None, None, false).unwrap();
            let far = apart(&low.losses, &full.losses);
            let first = apart(&low.losses[..1], &full.losses[..1]);
            let rounding = if precision == Precision::Bf16 { 4e-3 } else { 5e-4 };
            failures
                .extend((first > rounding).then(|| format!("{model} {precision}: the first loss is {first} apart")));
            failures.extend((far > bound || far < 1e-7).then(|| format!("{model} {precision}: {far}")));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn bfloat16_trains_as_under_autocast_of_pytorch() {
    let golden = golden("precision/autocast.json");
    let number = |key: &str| golden[key].as_f64();
    let optimizer = OptimizerSpec {
        lr: number("lr"),
        momentum: number("momentum"),
        weight_decay: number("weight_decay"),
        ..OptimizerSpec::new(OptimizerKind::Sgd)
    };
    let losses = |key: &str| golden[key].as_array().unwrap().iter().map(|l| l.as_f64().unwrap()).collect::<Vec<_>>();
    let (full, autocast) = (losses("float32"), losses("bfloat16"));
    let epochs = golden["epochs"].as_u64().unwrap() as usize;
    let case = || Case::of("parity/resnet8.onnx", "parity/resnet8.npz", epochs, 8, optimizer.clone());
    let ours = case().run(None, None, false).unwrap().losses;
    assert!(apart(&ours, &full) < 1e-4, "{}", apart(&ours, &full));
    let low = case().in_precision(Precision::Bf16).run(None, None, false).unwrap().losses;
    assert!(apart(&low, &autocast) < 2e-3, "{}", apart(&low, &autocast));
    assert!(apart(&low, &full) < 3.0 * apart(&autocast, &full), "no farther from float32 than theirs");
}

/// Returns how a loss is scaled so that float16 overflows in the first steps.
fn overflowing(interval: u64) -> Computing {
    let scale = LossScale { init: 2f64.powi(26), interval, ..LossScale::default() };
    Computing { scale: Some(scale), simulated: true, ..Computing::of(Precision::Fp16) }
}

fn scales(trained: &Trained) -> Vec<(usize, f64, bool)> {
    let scale = |event: &RunEvent| match event {
        RunEvent::LossScale { step, scale, overflow, .. } => Some((*step, scale.log2(), *overflow)),
        _ => None,
    };
    trained.events.iter().filter_map(scale).collect()
}

#[test]
fn a_step_with_overflow_changes_nothing_but_the_scale() {
    let mut case = Case::of("parity/resnet8.onnx", "parity/resnet8.npz", 2, 8, sgd(1e-3));
    case.computing = overflowing(2000);
    case.ema = Some(Ema { decay: 0.5, ..Ema::default() });
    let dir = tempfile::tempdir().unwrap();
    let stopped = case.run(Some(dir.path()), Some(1), false).unwrap();
    assert_eq!(scales(&stopped), [(1, 25.0, true)]);
    assert!(stopped.losses.is_empty());
    for (name, value) in &stopped.values {
        match case.prepared.model.graph.find(name).map(|id| case.prepared.model.graph.value(id)) {
            Some(old) => assert_eq!(old.initializer.as_ref(), Some(value), "{name}"),
            None => assert!(value.to_f64s().unwrap().iter().all(|value| *value == 0.0), "{name}"),
        }
    }
    let checkpoint = Store::new(dir.path(), 2).latest().unwrap().unwrap().checkpoint;
    let start = case.prepared.trainable();
    let averages = checkpoint.group("averages");
    assert!(start.iter().all(|name| {
        let id = case.prepared.model.graph.find(name).unwrap();
        averages.get(*name) == case.prepared.model.graph.value(id).initializer.as_ref()
    }));
}

#[test]
fn the_scale_finds_what_fits_and_training_goes_on() {
    let mut case = digits();
    case.computing = overflowing(3);
    let scaled = case.run(None, None, false).unwrap();
    let told = scales(&scaled);
    assert!(
        told.iter().any(|(_, _, overflow)| *overflow) && told.iter().any(|(_, _, overflow)| !*overflow),
        "{told:?}"
    );
    let skipped = told.iter().filter(|(_, _, overflow)| *overflow).count();
    assert_eq!(scaled.losses.len(), 50 - skipped);
    assert!(!scaled.events.iter().any(|event| matches!(event, RunEvent::Nonfinite { .. })));
    assert!(scaled.losses[scaled.losses.len() - 1] < 0.5 * scaled.losses[0]);
}

#[test]
fn a_scale_that_fits_changes_no_bit() {
    let mut case = digits();
    case.computing = Computing { scale: Some(LossScale::default()), ..Computing::default() };
    let (scaled, plain) = (case.run(None, None, false).unwrap(), digits().run(None, None, false).unwrap());
    assert_eq!(scaled.losses, plain.losses);
    assert!(scaled.values == plain.values);
}

#[test]
fn a_run_that_stops_goes_on_with_its_scale() {
    let mut case = digits();
    case.computing = overflowing(3);
    let whole = case.run(None, None, false).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let first = case.run(Some(dir.path()), Some(23), false).unwrap();
    let second = case.run(Some(dir.path()), None, true).unwrap();
    assert_eq!([first.losses.clone(), second.losses.clone()].concat(), whole.losses);
    assert_eq!([scales(&first), scales(&second)].concat(), scales(&whole));
    assert!(second.values == whole.values);
}

#[test]
fn overflow_at_the_least_scale_is_not_finite() {
    let mut case = digits();
    case.optimizer.lr = Some(1e30);
    case.nonfinite = Nonfinite { action: OnNonfinite::Stop, limit: 10 };
    case.computing = Computing { scale: Some(LossScale { init: 4.0, ..LossScale::default() }), ..Computing::default() };
    let mut events = Vec::new();
    let error = {
        let schedule = Schedule::default();
        let objective = Objective::Own(Own { loss: &case.loss, output: None, optimizer: &case.optimizer });
        let setup = Setup {
            computing: case.computing.clone(),
            ..Setup::of(&case.prepared, Freezing::of(&case.plan), objective, &schedule, &case.batches)
        };
        train(&mut onnxruntime(), &setup, &mut |event| events.push(event), &AtomicBool::new(false)).unwrap_err()
    };
    assert!(matches!(error, RunError::NotFinite { .. }), "{error}");
    let overflows = events.iter().filter(|event| matches!(event, RunEvent::LossScale { overflow: true, .. })).count();
    assert_eq!(overflows, 2);
    // A fixed scale cannot give way: the first overflow counts.
    case.computing = overflowing(1);
    case.computing.scale.as_mut().unwrap().mode = ScaleMode::Fixed;
    case.optimizer.lr = Some(1e-3);
    assert!(matches!(case.run(None, None, false).err(), Some(RunError::NotFinite { step: 1, .. })));
}

#[test]
fn accumulated_and_frozen_steps_are_scaled_too() {
    let mut case = digits();
    case.plan = linear(&case.prepared, 4, 0.25, 1.0);
    let run = |case: &Case, computing: Computing| {
        let schedule = Schedule::default();
        let objective = Objective::Own(Own { loss: &case.loss, output: None, optimizer: &case.optimizer });
        let setup = Setup {
            accumulate: 2,
            computing,
            ..Setup::of(&case.prepared, Freezing::of(&case.plan), objective, &schedule, &case.batches)
        };
        train(&mut onnxruntime(), &setup, &mut |_| {}, &AtomicBool::new(false)).unwrap().values
    };
    let scaled = run(&case, Computing { scale: Some(LossScale::default()), ..Computing::default() });
    assert!(scaled == run(&case, Computing::default()));
}

#[test]
fn an_engine_without_kernels_of_a_dtype_says_so() {
    let mut case = digits();
    case.computing = Computing::of(Precision::Bf16);
    let error = case.run(None, None, false).err().unwrap();
    assert_eq!(error.to_string(), "onnxruntime on cpu does not compute in bfloat16");
}

#[test]
fn a_run_tells_what_computes_in_what() {
    let case = digits().in_precision(Precision::Fp16);
    let trained = case.run(None, Some(1), false).unwrap();
    let start = trained.events.iter().find_map(|event| match event {
        RunEvent::Start { precision, .. } => Some(*precision),
        _ => None,
    });
    assert_eq!(start, Some(Precision::Fp16));
    let told = trained.events.iter().find_map(|event| match event {
        RunEvent::Precision { epoch: 1, low, float32, kept: 0, casts } => Some((low.clone(), float32.clone(), *casts)),
        _ => None,
    });
    let (low, float32, casts) = told.unwrap();
    assert!(
        low.contains_key("Gemm") && float32.contains_key("ai.freeze-plan.SoftmaxCrossEntropy") && casts > 3,
        "{low:?} {float32:?}"
    );
}
