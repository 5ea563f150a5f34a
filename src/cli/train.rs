//! `freeze-plan train JOB.toml`: trains a model with a freezing plan.

use super::failure::{CommandResult, Failure};
use super::options::RuntimeArgs;
use super::probe::ChildProbe;
use super::progress::{Screen, ScreenArgs, metric};
use super::{output, signals};
use crate::error::ErrorKind;
use crate::report::steps_table;
use crate::runner::{Engine, RunEvent};
use crate::sinks::{JsonLines, Sinks};
use crate::trainer::{EngineOptions, Parts, Start, Trained, Trainer, engine, load_job};
use std::path::PathBuf;
use std::process::ExitCode;

/// Trains a model as a job file says
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  freeze-plan train job.toml
  freeze-plan train job.toml --resume
  freeze-plan train job.toml --set run.epochs=5 --set freeze.freeze_level=0.8 --set run.dir=runs/short
  freeze-plan train job.toml --json --quiet > events.jsonl")]
pub struct Args {
    /// Job file
    job: PathBuf,
    /// Set a key of the job, such as freeze.freeze_level=0.8; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Go on with the run in the run's folder from its newest checkpoint; where there is none, begin
    #[arg(long, conflicts_with = "overwrite")]
    resume: bool,
    /// Replace what an earlier run left in the run's folder
    #[arg(long)]
    overwrite: bool,
    /// Check everything, run a few steps, print what would happen, and stop before the first step; the run's folder is
    /// left as it is
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    screen: ScreenArgs,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

/// Runs the command. Everything that can be refused is refused before the run's folder is touched.
pub fn run(args: &Args) -> CommandResult {
    let mut screen = Screen::new(&args.screen);
    let start = match (args.resume, args.overwrite) {
        (true, _) => Start::Resume,
        (_, true) => Start::Over,
        _ => Start::New,
    };
    let mut note = |text: &str| screen.note(&format!("note: {text}"));
    let job = load_job(&args.job, &args.set, &mut note)?;
    let mut probe = ChildProbe { runtime: args.runtime.runtime.as_deref() };
    let parts = Parts { file: args.job.clone(), probe: Some(&mut probe), note: Some(&mut note), ..Parts::default() };
    let trainer = Trainer::with(job, parts)?;
    if !args.dry_run {
        trainer.check_folder(start)?;
    }
    screen.plan(trainer.plan());
    let device = trainer.job().run.device().map_err(|error| Failure::new(ErrorKind::BadInput, error.to_string()))?;
    let options = args.runtime.locate(device);
    let mut engine = engine(&options, &EngineOptions::of(&trainer.job().run), &mut |text| screen.engine(text))?;
    if args.dry_run {
        return dry_run(&trainer, engine.as_mut(), start);
    }
    let stop = signals::on_interrupt(screen.printer());
    let mut sinks = Sinks::new();
    sinks.add(&mut screen);
    if args.screen.json {
        let every = usize::try_from(trainer.job().run.log_every).unwrap_or(usize::MAX);
        sinks.add(JsonLines::to("stdout", std::io::stdout(), every));
    }
    let trained = trainer.run_with(engine.as_mut(), start, sinks, &stop.asked)?;
    trained.notes.iter().for_each(|text| screen.note(&format!("note: {text}")));
    finish(&trained, &stop, args.screen.json)
}

/// Prints what would happen.
fn dry_run(trainer: &Trainer, engine: &mut dyn Engine, start: Start) -> CommandResult {
    let found = trainer.check(engine, &mut |event| {
        if let RunEvent::Warning { message } = event {
            eprintln!("warning: {message}");
        }
    })?;
    let mut sentences = match (found.ceiling, trainer.job().run.ceiling_steps) {
        (Some(ceiling), _) => ceiling.sentences(),
        (None, 0) => vec!["nothing is measured: ceiling_steps is 0".into()],
        (None, _) => vec!["nothing is frozen in any epoch: there is nothing to save".into()],
    };
    let eval = if trainer.evaluates() { " and a batch of the eval data" } else { "" };
    sentences.extend(steps_table(&found.plan).map(|table| table.trim_end().to_string()));
    sentences.extend(found.memory.iter().map(|(epoch, memory)| memory.sentence(*epoch)));
    sentences.push(format!("a step{eval} ran without an error"));
    sentences.extend(trainer.prospects(start)?);
    output::emit(&format!("{}\n", sentences.join("\n")), None)?;
    Ok(ExitCode::SUCCESS)
}

fn finish(trained: &Trained, stop: &signals::Stop, json: bool) -> CommandResult {
    let outcome = &trained.outcome;
    let metrics: Vec<String> = outcome.metrics.iter().map(|(name, value)| metric(name, *value)).collect();
    if outcome.stopped {
        eprintln!("stopped before the end of the plan; --resume goes on from here");
    }
    let state = if outcome.stopped { "partly trained" } else { "trained" };
    let best = trained.best_epoch.map_or_else(String::new, |epoch| format!(" (weights of epoch {epoch}, the best)"));
    let text = format!("{}\n{state} model: {}{best}\n", metrics.join(", "), trained.model.display());
    if json {
        eprint!("{text}");
    } else {
        output::emit(&text, None)?;
    }
    Ok(if outcome.stopped { ExitCode::from(stop.exit_code()) } else { ExitCode::SUCCESS })
}
