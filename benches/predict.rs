//! Predicted and measured seconds of steps with more and more of a model frozen, as a table in Markdown.
//!
//! `cargo bench --bench predict -- [--rounds N] [--threads N] [--batch-norm train|frozen] [--processor-time] MODEL,BATCH[,OPTIMIZER] ..`;
//! without a model those of `fixtures/digits` and `fixtures/digits_vit`. Each model is calibrated once; then the phases
//! with 0, 25, 50, 75 and 90 % of the leaves frozen are timed in turn, `rounds` steps of each, on random data. A step is
//! here the train graph and the update, of each the fastest: what other processes take only adds to a step. With
//! `--processor-time` steps are timed by the processor time of the thread, for machines that others use; that is right
//! with `--threads 1`, the default.
//!
//! `saved` is the measured part of a step that is gone against nothing frozen; `of predicted` is that over the part that
//! the calibrated model says, `of flops` over the part that the flops say.

use freeze_plan::error::ErrorKind;
use freeze_plan::optim::{OptimizerKind, OptimizerSpec};
use freeze_plan::plan::{BatchNorm, PlanOptions, Run, StepSeconds};
use freeze_plan::runner::{Clock, Engine, LocateOptions};

use freeze_plan::trainer::{EngineOptions, MadeUp, Sizes, Trainer, TrainerError, engine, model};
use freeze_plan::training::Dropout;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Fractions of the leaves that are frozen, from epoch 1 on.
const FROZEN: &str = "2:0.25,3:0.5,4:0.75,5:0.9";
const EPOCHS: usize = 5;

struct Options {
    rounds: usize,
    threads: usize,
    batch_norm: BatchNorm,
    clock: Clock,
    models: Vec<Wanted>,
}

struct Wanted {
    path: PathBuf,
    batch: usize,
    optimizer: OptimizerSpec,
}

fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), TrainerError> {
    let locate = LocateOptions { offline: true, ..LocateOptions::default() };
    let mut engine =
        engine(&locate, &EngineOptions { threads: Some(options.threads), ..EngineOptions::default() }, &mut |text| {
            eprintln!("{text}")
        })?;
    let info = engine.info();
    println!("{} {}, threads {}, rounds {}\n", info.name, info.version, info.threads, options.rounds);
    println!("| model | frozen | predicted ms | measured ms | error | median ms | saved | of predicted | of flops |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for wanted in &options.models {
        table(wanted, options, engine.as_mut())?;
    }
    Ok(())
}

fn table(wanted: &Wanted, options: &Options, engine: &mut dyn Engine) -> Result<(), TrainerError> {
    let Wanted { path, batch, optimizer } = wanted;
    let sizes = Sizes { batch: Some(*batch), shapes: Vec::new() };
    let mut note = |text: &str| eprintln!("{}: {text}", path.display());
    let loaded = model::load(path, &sizes, (&[], &[]), None)?;
    let slots = model::slots(&loaded, optimizer, &mut note)?;
    let planned = PlanOptions { batch_norm: options.batch_norm, ..PlanOptions::of("steps").with("steps", FROZEN) };
    let length = Run { epochs: EPOCHS, steps_per_epoch: 0 };
    let planned = model::Wanted { options: &planned, length, sizes: &sizes, policy: None };
    let mut plan = model::plan(&loaded, planned, slots)?.plan;
    let made_up = MadeUp {
        loss: None,
        optimizer: optimizer.clone(),
        dropout: Dropout::AsExported,
        sizes: &sizes,
        roles: (&[], &[]),
        threads: Some(options.threads),
    };
    let trainer = Trainer::made_up(path, made_up, None, &mut note)?;
    trainer.measure(engine, &mut plan, options.clock)?;
    plan.summary.notes.iter().filter(|text| text.contains("predicted seconds")).for_each(|text| note(text));
    let timings = trainer.timings(engine, &plan, options.rounds, options.clock)?;
    let alone = |step: &StepSeconds| step.forward + step.backward + step.update;
    let (mut full, mut first) = (None, true);
    for timing in timings {
        let predicted = timing.predicted.as_ref().map_or(0.0, alone);
        let (measured, median) = (timing.fastest, timing.median);
        let (told, whole) = *full.get_or_insert((predicted, measured));
        let (saved, predicted_saved) = (1.0 - measured / whole, 1.0 - predicted / told);
        let flops = 1.0 - timing.step_cost;
        let share = |part: f64| if part > 0.0 { format!("{:.0} %", 100.0 * saved / part) } else { "-".into() };
        let name = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        println!(
            "| {} | {}/{} | {:.2} | {:.2} | {:+.1} % | {:.2} | {:.1} % | {} | {} |",
            if first { &name } else { "" },
            timing.frozen_units,
            plan.units.len(),
            1e3 * predicted,
            1e3 * measured,
            100.0 * (predicted / measured - 1.0),
            1e3 * median,
            100.0 * saved,
            share(predicted_saved),
            share(flops),
        );
        first = false;
    }
    Ok(())
}

fn options() -> Result<Options, TrainerError> {
    let usage = |text: String| TrainerError::new(ErrorKind::Usage, text);
    let mut options =
        Options { rounds: 20, threads: 1, batch_norm: BatchNorm::default(), clock: Clock::Wall, models: Vec::new() };
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| usage(format!("{arg} needs a value")));
        let number = |text: String| text.parse().map_err(|_| usage(format!("\"{text}\" is no number")));
        match arg.as_str() {
            "--rounds" => options.rounds = number(value()?)?,
            "--threads" => options.threads = number(value()?)?,
            "--processor-time" => options.clock = Clock::Thread,
            "--batch-norm" => {
                let word = value()?;
                options.batch_norm = match word.as_str() {
                    "train" => BatchNorm::Train,
                    "frozen" => BatchNorm::Frozen,
                    _ => return Err(usage(format!("--batch-norm {word}"))),
                };
            }
            model => options.models.push(wanted(model).ok_or_else(|| usage(format!("\"{model}\" is no MODEL,BATCH")))?),
        }
    }
    if options.models.is_empty() {
        let fixture = |name: &str| format!("{}/fixtures/{name}/model.onnx,64", env!("CARGO_MANIFEST_DIR"));
        options.models.extend(wanted(&fixture("digits")));
        options.models.extend(wanted(&(fixture("digits_vit") + ",adamw")));
    }
    Ok(options)
}

fn wanted(text: &str) -> Option<Wanted> {
    let mut parts = text.split(',');
    let (path, batch) = (PathBuf::from(parts.next()?), parts.next()?.parse().ok()?);
    let kind = OptimizerKind::from_name(parts.next().unwrap_or("sgd"))?;
    let mut optimizer = OptimizerSpec::new(kind);
    if kind == OptimizerKind::Sgd {
        optimizer.momentum = Some(0.9);
    }
    Some(Wanted { path, batch, optimizer })
}
